"""Second stage: turns tiles into batches."""

from __future__ import annotations

import time

from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Pack
from srpipe.runtime.slots import Slots


class Batcher:
    """Turns tiles into a batch; one of fewer tiles is filled up."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots) -> None:
        colour = plan.colour
        self._pack_tile = colour.pack_integers if plan.integer_input else colour.pack
        self._slots = slots

    def handle(self, instruction: Instruction) -> Done:
        """Pack one batch."""
        assert isinstance(instruction, Pack)
        begin = time.perf_counter()
        batch = self._slots.batches[instruction.batch_slot]
        n = len(instruction.tile_slots)
        for i, slot in enumerate(instruction.tile_slots):
            self._pack_tile(self._slots.tiles[slot], batch[i])
        batch[n:] = batch[n - 1]
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""
