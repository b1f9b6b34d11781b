"""Decides what happens next: a state machine without processes, events in, instructions out.

Slots are its currency, and their fixed numbers are the back-pressure: a stage that lags keeps its
slots, and the stages before it run dry. One owner at a time may touch a slot:

    state     tile slot        batch slot        result slot        who may touch it
    free      –                –                 –                  nobody
    writing   reader           batcher           a worker           that stage, to fill it
    ready     –                –                 –                  nobody
    reading   batcher          a worker          accumulator        that stage, to use it

A tile slot is freed when its tile is packed, or, where finishing needs the input pixels (alpha,
chroma), goes back to ready and is read once more by the accumulator. Batches are dispatched and
blended in raster order, so the oldest batch always holds its slots and the pipeline cannot lock up;
when a worker is lost, its batch slots go back to ready and its result slots are freed.
The accumulator waits while the writer is more than ``max_lag_px`` rows behind.

The tiles of a row overwrite seams that a checkpoint in the row before it speaks of, so once there is a
checkpoint, no row begins before one of the row before it is on the disk. A job that ends before its
first checkpoint is due makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

from srpipe.errors import CoverageError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Save, Write
from srpipe.runtime.slot_table import SlotTable

# How far the writer may lag behind the accumulator, in rows of tiles.
_MAX_LAG_TILE_ROWS = 4
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
        self._rows_resumed_px = self.rows_finished_px
        blended = self.first_tile == self.n_tiles
        self._next_pack = self.n_batches if blended else self.first_tile // self.batch_size
        self._next_read = self._next_pack * self.batch_size
        self._tiles_ready: dict[int, int] = {}
        self._tiles_held: dict[int, tuple[int, ...]] = {}
        self._packed: dict[int, int] = {}
        self._running: dict[int, Run] = {}
        self._results: dict[int, int] = {}
        self._open_batch: int | None = None
        self._accumulating = False
        self._save_wanted = False
        self._writing = False
        self._stopping = False
        self._stop_batch = self.n_batches
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
            tiles_kept=plan.colour.needs_source,
            total_rows_px=plan.output_size.height,
            total_px=plan.output_size.pixels,
            max_lag_px=_MAX_LAG_TILE_ROWS * grid.tile.height * plan.scale,
            batch_may_shrink=plan.model.batch is None and (plan.model.batch_exact or plan.on_gpu),
            first_tile=at.next_tile,
            rows_finished_px=plan.finished_rows_px(at.next_tile),
            filled_tiles=at.filled_tiles,
        )

    @property
    def n_batches(self) -> int:
        """Batches in the job."""
        return -(-self.n_tiles // self.batch_size)

    def start(self) -> list[Instruction]:
        """The first instructions."""
        return self._next_instructions()

    @property
    def _ending(self) -> bool:
        """Whether only what is in flight will still be finished."""
        return self._stopping or self._stop_batch < self.n_batches

    @property
    def stopped(self) -> bool:
        """Whether a job that was told to stop has come to rest, with its last checkpoint made."""
        at_rest = (
            not self._accumulating
            and not self._running
            and not self._blend_is_due()
            and self.tiles_saved == self.tiles_done
        )
        all_batches_run = self.batch_slots.n_free == self.batch_slots.n_slots
        at_the_gap = self._next_pack == self._stop_batch < self.n_batches and all_batches_run
        return at_rest and (self._stopping or at_the_gap)

    def on_done(self, done: Done) -> list[Instruction]:
        """Take note that an instruction was carried out; returns what can be done now.

        Raises:
            CoverageError: all tiles are blended and pixels are missing.
        """
        match done.instruction:
            case Read(tile, slot):
                self.tile_slots.move(slot, "ready")
                self._tiles_ready[tile] = slot
                if done.filled:
                    self.filled_tiles = tuple(sorted({*self.filled_tiles, tile}))
            case Pack() as pack:
                self._packed_done(pack)
            case Run() as run:
                if self._running.get(run.batch) is None:
                    return []  # nobody waits for it any more
                del self._running[run.batch]
                self.batch_slots.move(run.batch_slot, "free")
                self.result_slots.move(run.result_slot, "ready")
                self._results[run.batch] = run.result_slot
            case Blend() as blend:
                self._blend_done(blend, done)
            case Save():
                self._accumulating = False
                self._save_wanted = self._ending
                self.tiles_saved = self.tiles_done
            case Write(stop_row, last):
                self._writing = False
                self.rows_written_px = stop_row
                self.finished = last
        return self._next_instructions()

    def save_soon(self) -> list[Instruction]:
        """Make a checkpoint as soon as the accumulator is free."""
        self._save_wanted = True
        return self._next_instructions()

    def stop(self) -> list[Instruction]:
        """Begin nothing new, finish the batches in flight, and make a last checkpoint."""
        self._stopping = True
        self._save_wanted = True
        return self._next_instructions()

    def stop_waiting(self) -> list[Instruction]:
        """Stop without the batches that are still running."""
        self._running.clear()
        return self.stop()

    def on_failed(self, instruction: Instruction | None) -> list[Instruction]:
        """Take note that the job will fail; it comes to rest as after :meth:`stop`.

        Args:
            instruction: what could not be carried out; None: a stage is lost.
        """
        match instruction:
            case Read(tile, _):
                # What was read before it can still be finished.
                self._stop_batch = tile // self.batch_size
                self._save_wanted = True
                return self._next_instructions()
            case Run() as run:
                self._running.pop(run.batch, None)
            case Blend():
                # Its tiles are missing: what is in flight can no longer be blended.
                self._results.clear()
                self._running.clear()
                self._open_batch = None
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

    def _packed_done(self, pack: Pack) -> None:
        for slot in pack.tile_slots:
            self.tile_slots.move(slot, "ready" if self.tiles_kept else "free")
        if self.tiles_kept:
            self._tiles_held[pack.batch] = pack.tile_slots
        self.batch_slots.move(pack.batch_slot, "ready")
        self._packed[pack.batch] = pack.batch_slot

    def _blend_done(self, blend: Blend, done: Done) -> None:
        self._accumulating = False
        self._losses = 0
        self.tiles_done += len(blend.tiles)
        self.rows_finished_px = done.finished_rows_px
        if self.tiles_done in (self.n_tiles, (blend.batch + 1) * self.batch_size):
            self._open_batch = None
            self.result_slots.move(blend.result_slot, "free")
            for slot in self._tiles_held.pop(blend.batch, ()):
                self.tile_slots.move(slot, "free")
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
        stop = self.n_tiles if self._stop_batch == self.n_batches else 0
        while self._next_read < stop and self.tile_slots.n_free and not self._stopping:
            reads.append(Read(self._next_read, self.tile_slots.take()))
            self._next_read += 1
        return reads

    def _pack(self) -> list[Instruction]:
        packs: list[Instruction] = []
        while self._next_pack < self._stop_batch and self.batch_slots.n_free and not self._stopping:
            tiles = self._tiles_of(self._next_pack)
            if any(tile not in self._tiles_ready for tile in tiles):
                break
            slots = tuple(self._tiles_ready.pop(tile) for tile in tiles)
            for slot in slots:
                self.tile_slots.move(slot, "reading")
            packs.append(Pack(self._next_pack, tiles, slots, self.batch_slots.take()))
            self._next_pack += 1
        return packs

    def _run(self) -> list[Instruction]:
        runs: list[Instruction] = []
        loads = [0] * self.workers
        for run in self._running.values():
            loads[run.worker] += 1
        while (
            self._packed
            and self.result_slots.n_free
            and min(loads) < self.runs_per_worker
            and not self._stopping
        ):
            batch = min(self._packed)
            batch_slot = self._packed.pop(batch)
            worker = loads.index(min(loads))
            loads[worker] += 1
            self.batch_slots.move(batch_slot, "reading")
            run = Run(worker, batch, batch_slot, self.result_slots.take(), self.tiles_at_once)
            self._running[batch] = run
            runs.append(run)
        return runs

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
            return [Save(tuple(tile for tile in self.filled_tiles if tile < self.tiles_done))]
        self._save_wanted = self._save_wanted and self._ending
        # A resumed job's writer begins again at the first row: the rest need not wait for it.
        behind_px = self.rows_finished_px - max(self.rows_written_px, self._rows_resumed_px)
        if not self._blend_is_due() or (behind_px > self.max_lag_px and not self._stopping):
            return []
        self._accumulating = True
        return [self._next_blend()]

    def _blend_is_due(self) -> bool:
        return self.tiles_done // self.batch_size in self._results or self._open_batch is not None

    def _next_blend(self) -> Blend:
        batch = self.tiles_done // self.batch_size
        tiles = self._tiles_of(batch)
        held = self._tiles_held.get(batch, ())
        if self._open_batch is None:
            self._open_batch = batch
            self._open_slot = self._results.pop(batch)
            self.result_slots.move(self._open_slot, "reading")
            for slot in held:
                self.tile_slots.move(slot, "reading")
        first = self.tiles_done - tiles[0]
        row_stop = self.tiles_done - self.tiles_done % self.tiles_per_row + self.tiles_per_row
        stop = min(len(tiles), row_stop - tiles[0])
        return Blend(batch, first, tiles[first:stop], held[first:stop], self._open_slot)

    def _write(self) -> list[Instruction]:
        last = self.rows_finished_px == self.total_rows_px
        if self._writing or self._stopping or self.rows_finished_px == self.rows_written_px:
            return []
        self._writing = True
        return [Write(self.rows_finished_px, last)]

    def _tiles_of(self, batch: int) -> tuple[int, ...]:
        first = batch * self.batch_size
        return tuple(range(first, min(first + self.batch_size, self.n_tiles)))


def _tiles(count: int) -> str:
    return "one tile" if count == 1 else f"{count} tiles"
