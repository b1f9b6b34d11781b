"""Which batch computes a tile, and which results are kept for tiles that have not come yet.

A tile is computed in the batch that is being filled, unless it has the pixels of one whose result is
there, or under way: then it takes that one's, and pins its batch. What a batch goes through:

    filled ── packed, run ──▶ result there ── all its tiles blended ──▶ kept ── let go ──▶ gone
                                  ▲                                       │
                                  └── a tile that has the same pixels ────┘

While something waits for a batch it holds its result slot. So does, for longer, a batch with a tile
that is known to repeat: a photograph beside it must not drive out the background. At most
``max_reserved`` batches are pinned or reserved in this way. Where it takes one more, the one that was
not used for longest is a kept batch like any other again, which the scheduler lets go when it needs a
slot; if all are pinned, a tile is computed although it could borrow. So what is reserved cannot take
all slots. The scheduler has the slots, and says when a batch is run and when a tile is blended.

A tile that is skipped is in no batch, and due at once. Where no result is used twice, a batch has only
tiles of one run of ``batch_size`` numbers, so that it is the same wherever a job goes on.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container
from dataclasses import dataclass, field


@dataclass(eq=False)
class Batch:
    """Tiles that are computed together."""

    number: int
    tiles: list[int] = field(default_factory=list)
    """In raster order, by their place in the batch."""
    kinds: list[int] = field(default_factory=list)
    """For each tile, the first that was known to have its pixels."""
    result_slot: int | None = None
    """Where the result is, once it is there."""
    waiting: int = 0
    """Tiles read and not blended whose results are here."""
    borrowers: int = 0
    """Those of them that it does not compute: if any, it is pinned."""
    repeats: bool = False
    """Whether one of its tiles is known to repeat."""
    full: bool = False
    """Whether it takes no more tiles."""


@dataclass(frozen=True)
class Place:
    """Where a tile's result is, or will be."""

    batch: Batch
    index: int
    borrowed: bool
    """The result of another tile."""


class Results:
    """Batches in raster order, and those kept after them."""

    def __init__(self, batch_size: int, max_reserved: int) -> None:
        """Begin without any.

        Args:
            batch_size: tiles in a batch.
            max_reserved: batches that are not let go, pinned or not; 0: no result is used twice.
        """
        self._batch_size = batch_size
        self._max_reserved = max_reserved
        self._n_batches = 0
        self._places: dict[int, Place] = {}
        self._skipped: set[int] = set()
        self._by_kind: dict[int, Place] = {}
        self._reserved: OrderedDict[int, Batch] = OrderedDict()
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self.unpacked: deque[Batch] = deque()
        """Batches being filled: all but the last are full."""

    def add(self, tile: int, same_as: int | None) -> bool:
        """Find a place for a tile that was read.

        Args:
            tile: the next one in raster order.
            same_as: an earlier one that has the same pixels.

        Returns:
            Whether it is computed; else it takes the result of another.
        """
        if same_as is not None and self._borrow(tile, same_as):
            return False
        if not self.unpacked or self.unpacked[-1].full:
            self.unpacked.append(Batch(self._n_batches))
            self._n_batches += 1
        batch = self.unpacked[-1]
        kind = tile if same_as is None else same_as
        place = self._places[tile] = Place(batch, len(batch.tiles), borrowed=False)
        if self._max_reserved:
            self._by_kind[kind] = place
        batch.tiles.append(tile)
        batch.kinds.append(kind)
        batch.waiting += 1
        batch.repeats |= same_as is not None
        batch.full = len(batch.tiles) == self._batch_size
        self._end_run(tile)
        return True

    def skip(self, tile: int) -> None:
        """Take note that a tile that was read, the next one in raster order, is not computed."""
        self._skipped.add(tile)
        self._end_run(tile)

    def _end_run(self, tile: int) -> None:
        if self._max_reserved == 0 and (tile + 1) % self._batch_size == 0 and self.unpacked:
            self.unpacked[-1].full = True

    def _borrow(self, tile: int, kind: int) -> bool:
        place = self._by_kind.get(kind)
        if place is None or not self._reserve(place.batch):
            return False
        place.batch.borrowers += 1
        place.batch.waiting += 1
        place.batch.repeats = True
        self._places[tile] = Place(place.batch, place.index, borrowed=True)
        return True

    def _reserve(self, batch: Batch) -> bool:
        """See to it that a batch is not let go; returns whether that can be."""
        if batch.number not in self._reserved:
            if len(self._reserved) == self._max_reserved:
                idle = next((b for b in self._reserved.values() if not b.borrowers), None)
                if idle is None:
                    return False
                del self._reserved[idle.number]
                if not idle.waiting:
                    self._kept[idle.number] = idle
            self._kept.pop(batch.number, None)
            self._reserved[batch.number] = batch
        self._reserved.move_to_end(batch.number)
        return True

    def is_due(self, tile: int) -> bool:
        """Whether the result of a tile is there."""
        place = self._places.get(tile)
        return tile in self._skipped or (place is not None and place.batch.result_slot is not None)

    def due_together(self, first: int, stop: int) -> list[tuple[int, int] | None]:
        """The tiles from ``first`` on that one batch computed, and between them those that it did not.

        Args:
            first: a tile that is due.
            stop: the tile to end before, if not earlier.

        Returns:
            For each of these tiles: the result slot, and the place in the batch there; None for one
            that is skipped.
        """
        found: list[tuple[int, int] | None] = []
        computed_in = None
        for tile in range(first, stop):
            if tile in self._skipped:
                found.append(None)
                continue
            place = self._places.get(tile)
            if place is None or place.batch.result_slot is None:
                break
            if not place.borrowed:
                if computed_in not in (None, place.batch):
                    break
                computed_in = place.batch
            found.append((place.batch.result_slot, place.index))
        return found

    def blended(self, tile: int) -> Place | None:
        """Take note that a tile needs its result no more; returns where that is, if anywhere."""
        if tile in self._skipped:
            self._skipped.remove(tile)
            return None
        place = self._places.pop(tile)
        batch = place.batch
        batch.waiting -= 1
        if place.borrowed:
            batch.borrowers -= 1
        if self._max_reserved and not batch.waiting:
            reserved = batch.repeats and self._reserve(batch)
            if not reserved:
                self._kept[batch.number] = batch
        return place

    def let_go(self) -> int:
        """Give up the result that was kept for longest, of those that are not reserved.

        Returns:
            Its slot.
        """
        _, batch = self._kept.popitem(last=False)
        for kind in batch.kinds:
            place = self._by_kind.get(kind)
            if place is not None and place.batch is batch:
                del self._by_kind[kind]
        assert batch.result_slot is not None
        return batch.result_slot

    def last_computed(self, running: Container[int]) -> int:
        """The last tile waiting for a result that it got computed, there or ``running``.

        Args:
            running: numbers of batches.

        Returns:
            -1 where there is none.
        """
        return max(
            (
                tile
                for tile, place in self._places.items()
                if not place.borrowed
                and (place.batch.result_slot is not None or place.batch.number in running)
            ),
            default=-1,
        )
