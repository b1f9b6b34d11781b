"""Fourth stage: blends results into the pixels, and saves how far they are."""

from __future__ import annotations

import time

from srpipe.io.canvas import Canvas
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction, Save
from srpipe.runtime.slots import Slots


class Accumulator:
    """Blends results into the pixels."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots, at: Checkpoint) -> None:
        self._colour = plan.colour
        self._slots = slots
        self._canvas = Canvas(plan, at)

    def handle(self, instruction: Instruction) -> Done:
        """Blend results, or save how far the canvas is."""
        assert isinstance(instruction, Blend | Save)
        begin = time.perf_counter()
        if isinstance(instruction, Save):
            self._canvas.checkpoint(instruction.filled_tiles)
        else:
            self._blend(instruction)
        busy_s = time.perf_counter() - begin
        return Done(instruction, busy_s, self._canvas.finished_rows_px, self._canvas.stored_px)

    def _blend(self, instruction: Blend) -> None:
        slots = instruction.tile_slots
        for i, (tile, (slot, place)) in enumerate(
            zip(instruction.tiles, instruction.places, strict=True)
        ):
            source = self._slots.tiles[slots[i]] if slots else None
            result = self._slots.results[slot][place]
            self._canvas.add(tile, self._colour.unpack(result, source))

    def abort(self) -> None:
        """Nothing to undo."""
