"""First stage: puts tiles into tile slots."""

from __future__ import annotations

import time

from srpipe.io.checkpoint import Checkpoint
from srpipe.io.source import TileReader
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Read
from srpipe.runtime.slots import Slots


class Reader:
    """Puts tiles into tile slots."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots, at: Checkpoint) -> None:
        self._plan = plan
        self._slots = slots
        self._source = TileReader(
            plan.image, fill=plan.on_error == "fill", whole_so_far=not at.filled_tiles
        )

    def handle(self, instruction: Instruction) -> Done:
        """Read one tile."""
        assert isinstance(instruction, Read)
        begin = time.perf_counter()
        rect = self._plan.grid.at(instruction.tile).source
        whole = self._source.read(rect, self._slots.tiles[instruction.tile_slot])
        return Done(instruction, time.perf_counter() - begin, filled=not whole)

    def abort(self) -> None:
        """Nothing to undo."""
