"""Fourth stage: blends results into the pixels, and saves how far they are."""

from __future__ import annotations

import time

from srpipe.io.canvas import Canvas
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.colour import Pixels, Planes
from srpipe.plan.geometry import Rect
from srpipe.plan.job import Plan
from srpipe.plan.mask import Mask
from srpipe.runtime.messages import Blend, Done, Instruction, Save
from srpipe.runtime.slots import Slots


class Accumulator:
    """Blends results into the pixels."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots, at: Checkpoint) -> None:
        self._plan = plan
        self._colour = plan.colour
        self._mask: Mask | None = None
        if plan.mask is not None:
            from srpipe.io.mask import load_mask  # loads libvips

            self._mask = load_mask(plan.mask, plan.image.size)
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
        for i, (tile, place) in enumerate(zip(instruction.tiles, instruction.places, strict=True)):
            source = self._slots.tiles[slots[i]] if slots else None
            self._canvas.add(tile, self._planes(tile, place, source), source)

    def _planes(self, tile: int, place: tuple[int, int] | None, source: Pixels | None) -> Planes:
        """What a tile gives: the model's result, as much of it as the mask wants."""
        if place is None:
            assert source is not None
            return self._colour.plain(source)
        slot, index = place
        planes = self._colour.unpack(self._slots.results[slot][index], source)
        if self._mask is None:
            return planes
        assert source is not None
        inside, size = self._plan.grid.at(tile).source, self._plan.grid.tile
        rect = self._plan.frame.in_image(Rect(inside.left, inside.top, size.width, size.height))
        if self._mask.is_white(rect):
            return planes
        plain = self._colour.plain(source)
        return plain + (planes - plain) * self._mask.weights(rect, self._plan.scale)

    def abort(self) -> None:
        """Nothing to undo."""
