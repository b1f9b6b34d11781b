"""Finds tiles whose pixels were seen before: by a hash of all of them, and then by comparing.

What is kept is bounded, and shared among two queues (after 2Q: Johnson and Shasha, VLDB 1994): tiles
seen once pass through a short one in order of their coming; a tile that comes again moves to another,
where the one that was not seen for longest makes room. So a photograph, whose tiles all differ, does
not drive out the background that repeats. Of tiles that had to go the hash remains, so that one that
comes again after long is known to repeat.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from srpipe.plan.colour import Pixels
from srpipe.plan.memory import Shape, count, seen_tiles

# Hashes remembered at most, each at the place that its highest bits name.
_PLACE_BITS = 16
# For the last bytes of a tile, less than a word: an odd number of no pattern too.
_REST_FACTOR = 0x9E3779B97F4A7C15

Queue = OrderedDict[int, tuple[int, Pixels]]
"""By hash: the tile, and its pixels; the next to go comes first."""


class SeenTiles:
    """Remembers tiles in bounded memory."""

    def __init__(self, shape: Shape, dtype: npt.DTypeLike) -> None:
        """Remember nothing yet.

        Args:
            shape: of every tile's pixels.
            dtype: of every tile's pixels.
        """
        tile_bytes = count(shape) * np.dtype(dtype).itemsize
        self._capacity = seen_tiles(tile_bytes)
        # Odd, so that no bit of a word is lost; of no pattern, so that no pattern of pixels cancels.
        random = np.random.default_rng(0)
        self._factors = random.integers(2**64, size=tile_bytes // 8, dtype=np.uint64) | np.uint64(1)
        self._once: Queue = OrderedDict()
        self._again: Queue = OrderedDict()
        self._hashes = np.ones(1 << _PLACE_BITS, np.uint64)

    def find(self, tile: int, pixels: Pixels) -> int | None:
        """The tile that has the same pixels, if one is remembered; else ``tile`` is remembered.

        Args:
            tile: its number.
            pixels: all of them, contiguous.

        Returns:
            A tile seen before: the same one as for every tile of these pixels while it is remembered.
        """
        key = self._hash(pixels.reshape(-1).view(np.uint8))
        for queue in (self._again, self._once):
            if key in queue:
                other, remembered = queue.pop(key)
                if np.array_equal(remembered.view(np.uint8), pixels.view(np.uint8)):
                    self._remember(self._again, key, other, remembered)
                    return other
        place = key >> 64 - _PLACE_BITS
        repeats = int(self._hashes[place]) == key
        self._hashes[place] = key
        queue = self._again if repeats else self._once
        room = queue.popitem(last=False)[1][1] if len(queue) == self._capacity else None
        if room is None:
            room = np.empty_like(pixels)
        np.copyto(room, pixels)
        queue[key] = tile, room
        return None

    def _hash(self, values: npt.NDArray[np.uint8]) -> int:
        whole = 8 * len(self._factors)
        words = int(np.dot(values[:whole].view(np.uint64), self._factors))
        rest = int.from_bytes(values[whole:].tobytes(), "little")
        return (words + rest * _REST_FACTOR) % 2**64

    def _remember(self, queue: Queue, key: int, tile: int, pixels: Pixels) -> None:
        if len(queue) == self._capacity:
            queue.popitem(last=False)
        queue[key] = tile, pixels
