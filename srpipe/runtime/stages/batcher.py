"""Second stage: pads tiles and turns them into batches."""

from __future__ import annotations

import time

from srpipe.plan.colour import pad_edges
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Pack
from srpipe.runtime.slots import Slots


class Batcher:
    """Pads tiles to one shape and turns them into a batch; the last batch is filled up."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self._plan = plan
        colour = plan.colour
        self._pack_tile = colour.pack_integers if plan.integer_input else colour.pack
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
            self._pack_tile(pixels, batch[i])
        batch[n:] = batch[n - 1]
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""
