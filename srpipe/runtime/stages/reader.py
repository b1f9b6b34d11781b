"""First stage: puts tiles into tile slots, and tells which it has seen before."""

from __future__ import annotations

import time

from srpipe.io.checkpoint import Checkpoint
from srpipe.io.source import TileReader
from srpipe.plan.colour import pad_edges
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Read
from srpipe.runtime.seen_tiles import SeenTiles
from srpipe.runtime.slots import Slots


class Reader:
    """Puts tiles into tile slots, padded to one shape, and tells which it has seen before."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots, at: Checkpoint) -> None:
        self._plan = plan
        self._slots = slots
        self._source = TileReader(
            plan.image, fill=plan.on_error == "fill", whole_so_far=not at.filled_tiles
        )
        self._seen = (
            SeenTiles(plan.slot_shapes.tile, plan.image.numpy_dtype) if plan.reuse else None
        )

    def handle(self, instruction: Instruction) -> Done:
        """Read one tile."""
        assert isinstance(instruction, Read)
        begin = time.perf_counter()
        rect = self._plan.grid.at(instruction.tile).source
        pixels = self._slots.tiles[instruction.tile_slot]
        whole = self._source.read(rect, pixels)
        pad_edges(pixels, rect.height, rect.width)
        # Only after padding: a tile at the border may then be the same as one inside.
        same_as = self._seen.find(instruction.tile, pixels) if self._seen else None
        busy_s = time.perf_counter() - begin
        return Done(instruction, busy_s, filled=not whole, same_as=same_as)

    def abort(self) -> None:
        """Nothing to undo."""
