"""First stage: puts tiles into tile slots, and tells which it has seen before, or are left out."""

from __future__ import annotations

import time

import numpy as np

from srpipe.io.beyond import FrameReader
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.mask import load_mask
from srpipe.plan.colour import Pixels, pad_edges
from srpipe.plan.geometry import Rect
from srpipe.plan.job import Plan
from srpipe.plan.mask import is_even
from srpipe.runtime.messages import Done, Instruction, Read
from srpipe.runtime.seen_tiles import SeenTiles
from srpipe.runtime.slots import Slots


class Reader:
    """Puts tiles into tile slots, padded to one shape, and tells which the model need not see."""

    runners = 1

    def __init__(self, plan: Plan, slots: Slots, at: Checkpoint) -> None:
        self._plan = plan
        self._colour, self._no_data = plan.colour, plan.image.no_data
        self._slots = slots
        self._source = FrameReader(
            plan.image,
            plan.frame,
            fill=plan.on_error == "fill",
            whole_so_far=not at.filled_tiles,
        )
        self._seen = (
            SeenTiles(plan.slot_shapes.tile, plan.image.numpy_dtype) if plan.reuse else None
        )

        self._mask = load_mask(plan.mask, plan.image.size) if plan.mask is not None else None

    def handle(self, instruction: Instruction) -> Done:
        """Read one tile."""
        assert isinstance(instruction, Read)
        begin = time.perf_counter()
        rect = self._plan.grid.at(instruction.tile).source
        pixels = self._slots.tiles[instruction.tile_slot]
        whole = self._source.read(rect, pixels)
        pad_edges(pixels, rect.height, rect.width)
        skipped = self._is_left_out(rect, pixels)
        # Only after padding: a tile at the border may then be the same as one inside.
        same_as = self._seen.find(instruction.tile, pixels) if self._seen and not skipped else None
        beyond = self._count_beyond(instruction.tile, pixels) if self._plan.image.is_float else 0
        busy_s = time.perf_counter() - begin
        return Done(
            instruction, busy_s, filled=not whole, same_as=same_as, skipped=skipped, beyond=beyond
        )

    def _is_left_out(self, rect: Rect, pixels: Pixels) -> bool:
        plan, colour = self._plan, self._colour
        if self._mask is not None and self._mask.is_black(plan.frame.in_image(rect)):
            return True
        if self._no_data is not None:
            holes = self._no_data.find(pixels)
            if holes is not None and holes[..., : colour.colours].all():
                return True
        if plan.background_levels is None:
            return False
        seen = colour.with_data(pixels)[..., : colour.colours]
        return is_even(seen, plan.background_levels * (plan.white - plan.black) / 255)

    def _count_beyond(self, index: int, pixels: Pixels) -> int:
        """Samples of the part that is the tile's own, within the output."""
        plan, tile = self._plan, self._plan.grid.at(index)
        x, y, crop = plan.grid.x, plan.grid.y, plan.frame.crop
        rows, columns = (
            slice(max(begin - start, 0), max(min(start + own, begin + length) - start, 0))
            for start, own, begin, length in (
                (tile.source.top, y.final_px(tile.row), crop.top, crop.height),
                (tile.source.left, x.final_px(tile.column), crop.left, crop.width),
            )
        )
        values = pixels[rows, columns, : self._colour.colours]
        beyond = np.isfinite(values) & ((values < plan.black) | (values > plan.white))
        holes = self._no_data.find_value(pixels) if self._no_data is not None else None
        if holes is not None:
            beyond &= ~holes[rows, columns, : self._colour.colours]
        return int(np.count_nonzero(beyond))

    def abort(self) -> None:
        """Nothing to undo."""
