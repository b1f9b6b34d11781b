"""The stages of the pipeline, in the order a pixel travels: each carries out one instruction kind.

A stage is a plain object that knows slots and one io object, no processes and no queues.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from srpipe.errors import SrpipeError
from srpipe.io.canvas import Canvas
from srpipe.io.session import Session
from srpipe.io.source import TileReader
from srpipe.io.writer import ImageWriter
from srpipe.plan.colour import pad_edges
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Write
from srpipe.runtime.slots import Slots


class Stage(Protocol):
    """What an engine needs of a stage."""

    runners: int
    """Instructions that may be carried out at the same time."""

    def handle(self, instruction: Instruction) -> Done:
        """Carry out one instruction.

        Raises:
            SrpipeError: it cannot be done; the job cannot go on.
        """

    def abort(self) -> None:
        """Leave nothing unfinished behind."""


class Reader:
    """Puts tiles into tile slots."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self._plan = plan
        self._slots = slots
        self._source = TileReader(plan.image)

    def handle(self, instruction: Instruction) -> Done:
        """Read one tile."""
        assert isinstance(instruction, Read)
        begin = time.perf_counter()
        rect = self._plan.grid.at(instruction.tile).source
        self._source.read(rect, self._slots.tiles[instruction.tile_slot])
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""


class Batcher:
    """Pads tiles to one shape and turns them into a batch; the last batch is filled up."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self._plan = plan
        self._colour = plan.colour
        self._slots = slots

    def handle(self, instruction: Instruction) -> Done:
        """Pack one batch."""
        assert isinstance(instruction, Pack)
        begin = time.perf_counter()
        batch = self._slots.batches[instruction.batch_slot]
        n = len(instruction.tiles)
        for i, (tile, slot) in enumerate(
            zip(instruction.tiles, instruction.tile_slots, strict=True)
        ):
            rect = self._plan.grid.at(tile).source
            pixels = self._slots.tiles[slot]
            pad_edges(pixels, rect.height, rect.width)
            self._colour.pack(pixels, batch[i])
        batch[n:] = batch[n - 1]
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""


class Worker:
    """Runs the model from batch slots into result slots, on several threads of one session."""

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self.runners = plan.runners
        self._model = plan.model
        self._slots = slots
        # One thread a run and a run per core beats one run on all cores (DESIGN.md).
        threads = max(1, plan.threads // plan.runners)
        self._session = Session(plan.model.path, plan.device, threads)

    def handle(self, instruction: Instruction) -> Done:
        """Run one batch."""
        assert isinstance(instruction, Run)
        begin = time.perf_counter()
        self._session.run(
            self._model.input_name,
            self._model.output_name,
            self._slots.batches[instruction.batch_slot],
            self._slots.results[instruction.result_slot],
        )
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""


class Accumulator:
    """Blends results into the pixels."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self._colour = plan.colour
        self._slots = slots
        self._canvas = Canvas(plan)

    def handle(self, instruction: Instruction) -> Done:
        """Blend one batch."""
        assert isinstance(instruction, Blend)
        begin = time.perf_counter()
        results = self._slots.results[instruction.result_slot]
        for i, tile in enumerate(instruction.tiles):
            slots = instruction.tile_slots
            source = self._slots.tiles[slots[i]] if slots else None
            planes = self._colour.unpack(results[i], source)
            self._canvas.add(tile, np.ascontiguousarray(planes))
        busy_s = time.perf_counter() - begin
        return Done(instruction, busy_s, self._canvas.finished_rows_px, self._canvas.stored_px)

    def abort(self) -> None:
        """Nothing to undo."""


class Writer:
    """Encodes final rows; the last instruction completes the file."""

    runners = 1

    def __init__(self, plan: Plan, partial_output: str) -> None:
        self._writer = ImageWriter(plan, partial_output)

    def handle(self, instruction: Instruction) -> Done:
        """Write rows."""
        assert isinstance(instruction, Write)
        begin = time.perf_counter()
        self._writer.write_rows(instruction.stop_row)
        if instruction.last:
            self._writer.finish()
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()


STAGES = ("reader", "batcher", "worker", "accumulator", "writer")
"""Names of the stages, in the order a pixel travels."""


def stage_of(instruction: Instruction) -> str:
    """The stage that carries out an instruction."""
    match instruction:
        case Read():
            return "reader"
        case Pack():
            return "batcher"
        case Run():
            return "worker"
        case Blend():
            return "accumulator"
        case Write():
            return "writer"


def make_stage(name: str, plan: Plan, slots: Slots, partial_output: str) -> Stage:
    """Set a stage up.

    Args:
        name: one of :data:`STAGES`.
        plan: the job.
        slots: mapped in this process.
        partial_output: the file the writer begins.

    Raises:
        SrpipeError: the input, the model or the output cannot be opened.
    """
    match name:
        case "reader":
            return Reader(plan, slots)
        case "batcher":
            return Batcher(plan, slots)
        case "worker":
            return Worker(plan, slots)
        case "accumulator":
            return Accumulator(plan, slots)
        case "writer":
            return Writer(plan, partial_output)
    raise SrpipeError(f"there is no stage {name!r}.")
