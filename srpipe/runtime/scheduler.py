"""Decides what happens next: a state machine without processes, events in, instructions out.

Slots are its currency, and their fixed numbers are the back-pressure: a stage that lags keeps its
slots, and the stages before it run dry. One owner at a time may touch a slot:

    state     tile slot        batch slot        result slot        who may touch it
    free      –                –                 –                  nobody
    writing   reader           batcher           a worker           that stage, to fill it
    ready     –                –                 –                  nobody
    reading   batcher          a worker          accumulator        that stage, to use it
    kept                                         –                  nobody

A tile slot is freed when its tile is packed, or, where finishing needs the input pixels (alpha,
chroma), goes back to ready and is read once more by the accumulator. Batches are dispatched and
blended in raster order, so the oldest batch always holds its slots and the pipeline cannot lock up;
when a worker is lost, its batch slots go back to ready and its result slots are freed.
The accumulator waits while the writer is more than ``max_lag_px`` rows behind.

A result whose tiles are all blended is kept, for tiles of the same pixels that may come: such a tile
is not packed, its slot is freed at once (unless finishing needs it), and the accumulator reads the
kept result again (:mod:`srpipe.runtime.results` says which are there). A kept slot is freed where a
run needs one, unless it is reserved, as it is while a tile that was read waits for it. No more slots
than ``max_reserved`` are, and all others are there for batches that are run and not blended. As such
tiles hold no slot, reading goes no more than so many tiles ahead; a batch that can then not be filled
is packed as it is, once nothing else is under way.

A tile that is not worth the model is not packed either: it keeps its tile slot, from which the
accumulator makes its result.

The tiles of a row overwrite seams that a checkpoint in the row before it speaks of, so once there is a
checkpoint, no row begins before one of the row before it is on the disk. A job that ends before its
first checkpoint is due makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

from srpipe.errors import CoverageError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.activity import Load
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Save, Write
from srpipe.runtime.results import Batch, Results
from srpipe.runtime.slot_table import SlotTable

# How far the writer may lag behind the accumulator, in rows of tiles.
_MAX_LAG_TILE_ROWS = 4
# Tiles read ahead beyond those that slots have room for: they take the results of others.
_MORE_READ_AHEAD = 256
# Tiles blended by one instruction, where a batch has fewer.
_MIN_BLEND_TILES = 8
# Workers lost without a tile blended in between: one more would hardly help.
_MAX_LOSSES = 3


@dataclass
class Scheduler:
    """The state of one job. Call :meth:`start` once, then a method for every event."""

    n_tiles: int
    tiles_per_row: int
    batch_size: int
    tile_slots: SlotTable
    batch_slots: SlotTable
    result_slots: SlotTable
    workers: int
    runs_per_worker: int
    """Runs a worker is given at once: what its runners do, and one that waits."""
    tiles_kept: bool
    """Whether the accumulator needs the input pixels."""
    total_rows_px: int
    total_px: int
    max_lag_px: int
    batch_may_shrink: bool
    """Whether tiles may go through the model in smaller numbers: where that gives the same result,
    and on a GPU, where nothing is promised of the last bit."""
    max_reserved: int
    """Result slots that may be held for tiles that take the result of another, fewer than there are.
    0: every tile is computed, and a batch has the same tiles in every run."""

    first_tile: int = 0
    """The tile to go on with."""
    rows_finished_px: int = 0
    """Output rows from the top that no later tile changes."""
    filled_tiles: tuple[int, ...] = ()
    """Tiles whose input could not be read whole."""
    rows_written_px: int = 0
    finished: bool = False
    """Whether the output file is complete."""

    def __post_init__(self) -> None:
        self.tiles_done = self.first_tile
        """Tiles blended."""
        self.tiles_saved = self.first_tile
        """Tiles that a checkpoint speaks of."""
        self.tiles_at_once = self.batch_size
        """Tiles that go through the model together."""
        self.reused_tiles = 0
        """Tiles blended from the result of another."""
        self.skipped_tiles = 0
        """Tiles blended that the model has not seen."""
        self._rows_resumed_px = self.rows_finished_px
        # Where companions in a batch count they must be those of an undisturbed run.
        blended = self.first_tile == self.n_tiles
        self._next_read = self.first_tile if blended else self._batch_begin(self.first_tile)
        self._next_placed = self._next_read
        in_flight = self.batch_slots.n_slots + self.result_slots.n_slots
        self._read_ahead = self.tile_slots.n_slots + self.batch_size * in_flight + _MORE_READ_AHEAD
        self._results = Results(self.batch_size, self.max_reserved)
        self._tiles_ready: dict[int, int] = {}
        self._tiles_held: dict[int, int] = {}
        self._in_flight: dict[int, Batch] = {}
        self._packed: dict[int, int] = {}
        self._running: dict[int, Run] = {}
        self._unblended = 0
        """Batches running, or run and with tiles of their own that are not blended."""
        self._accumulating = False
        self.saving = False
        """Whether the accumulator is making a checkpoint."""
        self._save_wanted = False
        self._writing = False
        self._stopping = False
        self._stop_tile = self._blend_stop = self.n_tiles
        self._losses = 0

    @classmethod
    def for_plan(cls, plan: Plan, at: Checkpoint) -> Scheduler:
        """The scheduler of a job that goes on from ``at``."""
        counts, grid = plan.slot_counts, plan.grid
        return cls(
            n_tiles=grid.n_tiles,
            tiles_per_row=grid.x.n_tiles,
            batch_size=plan.batch_size,
            tile_slots=SlotTable(counts.tile),
            batch_slots=SlotTable(counts.batch),
            result_slots=SlotTable(counts.result),
            workers=plan.workers,
            runs_per_worker=1 if plan.serial else plan.runners + 1,
            tiles_kept=plan.tiles_kept,
            total_rows_px=plan.cropped_size.height,
            total_px=plan.canvas_size.pixels,
            max_lag_px=_MAX_LAG_TILE_ROWS * grid.tile.height * plan.scale,
            batch_may_shrink=plan.model.batch is None and (plan.model.batch_exact or plan.on_gpu),
            max_reserved=counts.reserved,
            first_tile=at.next_tile,
            rows_finished_px=plan.finished_rows_px(at.next_tile),
            filled_tiles=at.filled_tiles,
        )

    def start(self) -> list[Instruction]:
        """The first instructions."""
        return self._next_instructions()

    @property
    def _ending(self) -> bool:
        """Whether only what is in flight will still be finished."""
        return self._stopping or self._stop_tile < self.n_tiles

    @property
    def stopped(self) -> bool:
        """Whether a job that was told to stop has come to rest, with its last checkpoint made."""
        at_rest = (
            not self._accumulating
            and not self._running
            and not self._blend_is_due()
            and self.tiles_saved == self.tiles_done
        )
        at_the_gap = self._stop_tile < self.n_tiles and self.tiles_done >= self._stop_tile
        return at_rest and (self._stopping or at_the_gap)

    def on_done(self, done: Done) -> list[Instruction]:
        """Take note that an instruction was carried out; returns what can be done now.

        Raises:
            CoverageError: all tiles are blended and pixels are missing.
        """
        match done.instruction:
            case Read() as read:
                self._read_done(read, done)
            case Pack() as pack:
                self._packed_done(pack)
            case Run() as run:
                if self._running.get(run.batch) is None:
                    return []  # nobody waits for it any more
                del self._running[run.batch]
                self.batch_slots.move(run.batch_slot, "free")
                self.result_slots.move(run.result_slot, "ready")
                self._in_flight.pop(run.batch).result_slot = run.result_slot
            case Blend() as blend:
                self._blend_done(blend, done)
            case Save():
                self._accumulating = self.saving = False
                self._save_wanted = self._ending
                self.tiles_saved = self.tiles_done
            case Write(stop_row, last):
                self._writing = False
                self.rows_written_px = stop_row
                self.finished = last
        return self._next_instructions()

    def loads(self) -> dict[str, Load]:
        """What each stage has to do now, and whether it lacks room to do more."""
        unpacked = self._results.unpacked
        batch_ready = bool(unpacked) and unpacked[0].full
        more_to_read = self._next_read < self._stop_tile and not self._ending
        return {
            "reader": Load(self.tile_slots.count("writing"), more_to_read and not self._may_read()),
            "batcher": Load(
                self.batch_slots.count("writing"), batch_ready and not self.batch_slots.n_free
            ),
            "worker": Load(len(self._running), bool(self._packed) and not self._may_run()),
            "accumulator": Load(int(self._accumulating), self._blend_is_due()),
            "writer": Load(int(self._writing), lacks_room=False),
        }

    def save_soon(self) -> list[Instruction]:
        """Make a checkpoint as soon as the accumulator is free."""
        self._save_wanted = True
        return self._next_instructions()

    def stop(self) -> list[Instruction]:
        """Begin nothing new, finish the batches in flight, and make a last checkpoint."""
        # What follows the last of them and takes other tiles' results costs little to do again.
        last_tile = self._results.last_computed(self._running)
        self._blend_stop = min(self._blend_stop, last_tile + 1)
        self._stopping = True
        self._save_wanted = True
        return self._next_instructions()

    def stop_waiting(self) -> list[Instruction]:
        """Stop without the batches that are still running."""
        self._running.clear()
        self._blend_stop = 0
        return self.stop()

    def on_failed(self, instruction: Instruction | None) -> list[Instruction]:
        """Take note that the job will fail; it comes to rest as after :meth:`stop`.

        Args:
            instruction: what could not be carried out; None: a stage is lost.
        """
        match instruction:
            case Read(tile, _):
                # What was read before it can still be finished.
                self._stop_tile = self._batch_begin(tile)
                self._save_wanted = True
                return self._next_instructions()
            case Run() as run:
                self._running.pop(run.batch, None)
            case Blend():
                # Its tiles are missing: what is in flight can no longer be blended.
                self._blend_stop = 0
                self._running.clear()
                self._accumulating = False
                self.tiles_saved = -1
        return self.stop()

    def on_worker_lost(self, worker: int, *, out_of_memory: bool) -> list[Instruction]:
        """Take note that a worker is being replaced: its batches run again.

        Args:
            worker: its number.
            out_of_memory: it ended for want of memory; fewer tiles go through the model at once.

        Raises:
            StageError: it was one too many.
        """
        lost = [run for run in self._running.values() if run.worker == worker]
        for run in lost:
            del self._running[run.batch]
            self.batch_slots.move(run.batch_slot, "ready")
            self.result_slots.move(run.result_slot, "free")
            self._unblended -= 1
            self._packed[run.batch] = run.batch_slot
        # Workers that were lost together shrink the batch once.
        tiles = max((run.tiles_at_once for run in lost), default=self.tiles_at_once)
        if out_of_memory and self.batch_may_shrink and tiles > 1:
            self.tiles_at_once = min(self.tiles_at_once, tiles // 2)
            return self._next_instructions()
        self._losses += 1
        if self._losses >= _MAX_LOSSES:
            advice = (
                f"not even {_tiles(tiles)} at once would fit: use a smaller --tile-size."
                if out_of_memory
                else "free memory, or use a smaller --batch-size, --tile-size, --threads or --workers."
            )
            raise StageError(
                f"{self._losses} workers were lost without a tile done in between: {advice}"
            )
        return self._next_instructions()

    def _batch_begin(self, tile: int) -> int:
        """The first tile of a batch that may end before ``tile``, or hold it."""
        return tile if self.max_reserved else tile - tile % self.batch_size

    def _read_done(self, read: Read, done: Done) -> None:
        tile, slot = read.tile, read.tile_slot
        self.tile_slots.move(slot, "ready")
        if done.filled:
            self.filled_tiles = tuple(sorted({*self.filled_tiles, tile}))
        if tile >= self._stop_tile and self.max_reserved:
            return  # it came after one that could not be read
        self._next_placed = tile + 1
        if done.skipped:
            assert self.tiles_kept
            self._results.skip(tile)
            if tile < self.first_tile:
                self.tile_slots.move(slot, "free")
            else:
                self._tiles_held[tile] = slot
        elif self._results.add(tile, done.same_as):
            self._tiles_ready[tile] = slot
        elif self.tiles_kept:
            self._tiles_held[tile] = slot
        else:
            self.tile_slots.move(slot, "free")
        if tile < self.first_tile:
            self._results.blended(tile)  # by an earlier run

    def _packed_done(self, pack: Pack) -> None:
        tiles = self._in_flight[pack.batch].tiles
        for tile, slot in zip(tiles, pack.tile_slots, strict=True):
            if self.tiles_kept and tile >= self.first_tile:
                self.tile_slots.move(slot, "ready")
                self._tiles_held[tile] = slot
            else:
                self.tile_slots.move(slot, "free")
        self.batch_slots.move(pack.batch_slot, "ready")
        self._packed[pack.batch] = pack.batch_slot

    def _blend_done(self, blend: Blend, done: Done) -> None:
        self._accumulating = False
        self._losses = 0
        self.tiles_done += len(blend.tiles)
        self.rows_finished_px = done.finished_rows_px
        for slot in blend.tile_slots:
            self.tile_slots.move(slot, "free")
        found = [self._results.blended(tile) for tile in blend.tiles]
        places = [place for place in found if place is not None]
        self.skipped_tiles += len(found) - len(places)
        self.reused_tiles += sum(place.borrowed for place in places)
        computed_in = {place.batch for place in places if not place.borrowed}
        for batch in dict.fromkeys(place.batch for place in places):
            assert batch.result_slot is not None
            if batch.waiting > batch.borrowers:
                self.result_slots.move(batch.result_slot, "ready")
            else:
                self._unblended -= batch in computed_in
                self.result_slots.move(batch.result_slot, "kept" if self.max_reserved else "free")
        if self.tiles_done == self.n_tiles and done.stored_px != self.total_px:
            raise CoverageError(
                f"{self.total_px - done.stored_px} of {self.total_px} pixels were left without a "
                "tile: this is a bug in srpipe; please report it with the command."
            )

    def _next_instructions(self) -> list[Instruction]:
        steps = (self._accumulate, self._write, self._run, self._pack, self._read)
        return [instruction for step in steps for instruction in step()]

    def _read(self) -> list[Instruction]:
        reads: list[Instruction] = []
        while self._may_read():
            reads.append(Read(self._next_read, self.tile_slots.take()))
            self._next_read += 1
        return reads

    def _may_read(self) -> bool:
        stop = min(self._stop_tile, self.tiles_done + self._read_ahead)
        ended = self._stopping or self._stop_tile < self.n_tiles
        return self._next_read < stop and self.tile_slots.n_free > 0 and not ended

    def _pack(self) -> list[Instruction]:
        packs: list[Instruction] = []
        unpacked = self._results.unpacked
        while unpacked and self.batch_slots.n_free and not self._stopping:
            if not unpacked[0].full and not self._fills_no_more():
                break
            batch = unpacked.popleft()
            slots = tuple(self._tiles_ready.pop(tile) for tile in batch.tiles)
            for slot in slots:
                self.tile_slots.move(slot, "reading")
            packs.append(Pack(batch.number, slots, self.batch_slots.take()))
            self._in_flight[batch.number] = batch
        return packs

    def _fills_no_more(self) -> bool:
        """Whether there is no tile for the batch that is being filled, or not soon."""
        if self._next_placed == self._stop_tile:
            return True
        reading = self._next_placed < self._next_read or self._may_read()
        return self.max_reserved > 0 and not reading and not self._in_flight

    def _run(self) -> list[Instruction]:
        runs: list[Instruction] = []
        loads = [0] * self.workers
        for run in self._running.values():
            loads[run.worker] += 1
        while (
            self._packed
            and min(loads) < self.runs_per_worker
            and not self._stopping
            and self._may_run()
        ):
            batch = min(self._packed)
            batch_slot = self._packed.pop(batch)
            worker = loads.index(min(loads))
            loads[worker] += 1
            self.batch_slots.move(batch_slot, "reading")
            run = Run(worker, batch, batch_slot, self._take_result_slot(), self.tiles_at_once)
            self._unblended += 1
            self._running[batch] = run
            runs.append(run)
        return runs

    def _may_run(self) -> bool:
        """Whether there is a result slot for one more batch."""
        return self._unblended < self.result_slots.n_slots - self.max_reserved

    def _take_result_slot(self) -> int:
        if not self.result_slots.n_free:
            self.result_slots.move(self._results.let_go(), "free")
        return self.result_slots.take()

    def _accumulate(self) -> list[Instruction]:
        if self._accumulating:
            return []
        # At a row's end, once there is one, and before it begins the next: see the top of the module.
        row_ended = self.tiles_saved != 0 and (
            self.tiles_done % self.tiles_per_row == 0 or self.tiles_done == self.n_tiles
        )
        if self.tiles_saved != self.tiles_done and (
            row_ended or (self._save_wanted and not (self._ending and self._blend_is_due()))
        ):
            self._accumulating = True
            self.saving = True
            return [Save(self.filled_tiles)]
        self._save_wanted = self._save_wanted and self._ending
        # A resumed job's writer begins again at the first row: the rest need not wait for it.
        behind_px = self.rows_finished_px - max(self.rows_written_px, self._rows_resumed_px)
        if not self._blend_is_due() or (behind_px > self.max_lag_px and not self._stopping):
            return []
        self._accumulating = True
        return [self._next_blend()]

    def _blend_is_due(self) -> bool:
        return self.tiles_done < self._blend_stop and self._results.is_due(self.tiles_done)

    def _next_blend(self) -> Blend:
        first = self.tiles_done
        row_stop = first - first % self.tiles_per_row + self.tiles_per_row
        stop = min(row_stop, self._blend_stop, first + max(self.batch_size, _MIN_BLEND_TILES))
        places = self._results.due_together(first, stop)
        tiles = tuple(range(first, first + len(places)))
        held = tuple(self._tiles_held.pop(tile) for tile in tiles) if self.tiles_kept else ()
        for slot in dict.fromkeys(place[0] for place in places if place is not None):
            self.result_slots.move(slot, "reading")
        for slot in held:
            self.tile_slots.move(slot, "reading")
        return Blend(tiles, tuple(places), held)

    def _write(self) -> list[Instruction]:
        last = self.rows_finished_px == self.total_rows_px
        if self._writing or self._stopping or self.rows_finished_px == self.rows_written_px:
            return []
        self._writing = True
        return [Write(self.rows_finished_px, last)]


def _tiles(count: int) -> str:
    return "one tile" if count == 1 else f"{count} tiles"
