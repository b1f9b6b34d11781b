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
blended in raster order, so the oldest batch always holds its slots and the pipeline cannot lock up.
The accumulator waits while the writer is more than ``max_lag_px`` rows behind.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from srpipe.errors import CoverageError
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Write

_NEXT_STATE = {
    "free": {"writing"},
    "writing": {"ready"},
    "ready": {"reading"},
    "reading": {"ready", "free"},
}
# How far the writer may lag behind the accumulator, in rows of tiles.
_MAX_LAG_TILE_ROWS = 4


class SlotTable:
    """States of the slots of one kind."""

    def __init__(self, n_slots: int) -> None:
        self._states = ["free"] * n_slots
        self._free = deque(range(n_slots))

    @property
    def n_slots(self) -> int:
        """All slots."""
        return len(self._states)

    @property
    def n_free(self) -> int:
        """Slots that can be taken."""
        return len(self._free)

    def take(self) -> int:
        """A free slot, now in state writing."""
        slot = self._free.popleft()
        self.move(slot, "writing")
        return slot

    def move(self, slot: int, state: str) -> None:
        """Change a slot's state.

        Raises:
            RuntimeError: the table above forbids it.
        """
        if state not in _NEXT_STATE[self._states[slot]]:
            raise RuntimeError(f"slot {slot} cannot go from {self._states[slot]} to {state}")
        self._states[slot] = state
        if state == "free":
            self._free.append(slot)


@dataclass
class Scheduler:
    """The state of one job. Call :meth:`start` once, then :meth:`on_done` for every event."""

    n_tiles: int
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

    tiles_done: int = 0
    """Tiles blended."""
    rows_written_px: int = 0
    finished: bool = False
    """Whether the output file is complete."""

    _next_read: int = 0
    _next_pack: int = 0
    _next_blend: int = 0
    _tiles_ready: dict[int, int] = field(default_factory=dict)
    _tiles_held: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _packed: deque[tuple[int, int]] = field(default_factory=deque)
    _running: dict[int, int] = field(default_factory=dict)
    _results: dict[int, int] = field(default_factory=dict)
    _blending: bool = False
    _rows_finished_px: int = 0
    _writing: bool = False

    @classmethod
    def for_plan(cls, plan: Plan) -> Scheduler:
        """The scheduler of a job from its beginning."""
        counts = plan.slot_counts
        return cls(
            n_tiles=plan.grid.n_tiles,
            batch_size=plan.batch_size,
            tile_slots=SlotTable(counts.tile),
            batch_slots=SlotTable(counts.batch),
            result_slots=SlotTable(counts.result),
            workers=plan.workers,
            runs_per_worker=1 if plan.serial else plan.runners + 1,
            tiles_kept=plan.colour.needs_source,
            total_rows_px=plan.output_size.height,
            total_px=plan.output_size.pixels,
            max_lag_px=_MAX_LAG_TILE_ROWS * plan.grid.tile.height * plan.scale,
        )

    @property
    def n_batches(self) -> int:
        """Batches in the job."""
        return -(-self.n_tiles // self.batch_size)

    def start(self) -> list[Instruction]:
        """The first instructions."""
        return self._next_instructions()

    def on_done(self, done: Done) -> list[Instruction]:
        """Take note that an instruction was carried out; returns what can be done now.

        Raises:
            CoverageError: all tiles are blended and pixels are missing.
        """
        match done.instruction:
            case Read(tile, slot):
                self.tile_slots.move(slot, "ready")
                self._tiles_ready[tile] = slot
            case Pack() as pack:
                self._packed_done(pack)
            case Run() as run:
                self.batch_slots.move(run.batch_slot, "free")
                self.result_slots.move(run.result_slot, "ready")
                del self._running[run.batch]
                self._results[run.batch] = run.result_slot
            case Blend() as blend:
                self._blend_done(blend, done)
            case Write(stop_row, last):
                self._writing = False
                self.rows_written_px = stop_row
                self.finished = last
        return self._next_instructions()

    def _packed_done(self, pack: Pack) -> None:
        for slot in pack.tile_slots:
            self.tile_slots.move(slot, "ready" if self.tiles_kept else "free")
        if self.tiles_kept:
            self._tiles_held[pack.batch] = pack.tile_slots
        self.batch_slots.move(pack.batch_slot, "ready")
        self._packed.append((pack.batch, pack.batch_slot))

    def _blend_done(self, blend: Blend, done: Done) -> None:
        for slot in blend.tile_slots:
            self.tile_slots.move(slot, "free")
        self.result_slots.move(blend.result_slot, "free")
        self._blending = False
        self.tiles_done += len(blend.tiles)
        self._rows_finished_px = done.finished_rows_px
        if self.tiles_done == self.n_tiles and done.stored_px != self.total_px:
            raise CoverageError(
                f"{self.total_px - done.stored_px} of {self.total_px} pixels were left without a "
                "tile: this is a bug in srpipe; please report it with the command."
            )

    def _next_instructions(self) -> list[Instruction]:
        steps = (self._write, self._blend, self._run, self._pack, self._read)
        return [instruction for step in steps for instruction in step()]

    def _read(self) -> list[Instruction]:
        reads: list[Instruction] = []
        while self._next_read < self.n_tiles and self.tile_slots.n_free:
            reads.append(Read(self._next_read, self.tile_slots.take()))
            self._next_read += 1
        return reads

    def _pack(self) -> list[Instruction]:
        packs: list[Instruction] = []
        while self._next_pack < self.n_batches and self.batch_slots.n_free:
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
        for worker in self._running.values():
            loads[worker] += 1
        while self._packed and self.result_slots.n_free and min(loads) < self.runs_per_worker:
            batch, batch_slot = self._packed.popleft()
            worker = loads.index(min(loads))
            loads[worker] += 1
            self._running[batch] = worker
            self.batch_slots.move(batch_slot, "reading")
            runs.append(Run(worker, batch, batch_slot, self.result_slots.take()))
        return runs

    def _blend(self) -> list[Instruction]:
        batch = self._next_blend
        behind_px = self._rows_finished_px - self.rows_written_px
        if self._blending or batch not in self._results or behind_px > self.max_lag_px:
            return []
        self._blending = True
        self._next_blend += 1
        slot = self._results.pop(batch)
        self.result_slots.move(slot, "reading")
        tile_slots = self._tiles_held.pop(batch, ())
        for tile_slot in tile_slots:
            self.tile_slots.move(tile_slot, "reading")
        return [Blend(batch, self._tiles_of(batch), tile_slots, slot)]

    def _write(self) -> list[Instruction]:
        if self._writing or self._rows_finished_px == self.rows_written_px:
            return []
        self._writing = True
        return [Write(self._rows_finished_px, self._rows_finished_px == self.total_rows_px)]

    def _tiles_of(self, batch: int) -> tuple[int, ...]:
        first = batch * self.batch_size
        return tuple(range(first, min(first + self.batch_size, self.n_tiles)))
