"""Fourth stage: blends results into the pixels."""

from __future__ import annotations

import time

from srpipe.io.canvas import Canvas
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction
from srpipe.runtime.slots import Slots


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
            self._canvas.add(tile, self._colour.unpack(results[i], source))
        busy_s = time.perf_counter() - begin
        return Done(instruction, busy_s, self._canvas.finished_rows_px, self._canvas.stored_px)

    def abort(self) -> None:
        """Nothing to undo."""
