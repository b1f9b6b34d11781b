"""Which pixels the tiles of a job lie on, and which of these are the output.

The whole grid is laid over the image, or over the image continued beyond its border by a margin. A
job for a region takes the tiles of that grid that touch the region, and nothing else of it: whatever
the region, a tile lies where it always lies. All pixels of the region are covered by the same tiles
under the same weights as in the whole grid; those around it, which lack tiles, are cut off.

    image ┌──────────────────────────┐
          │   ┌──── grid ────┐       │
          │   │  ┌─ crop ─┐  │       │
          │   │  └────────┘  │       │
          │   └──────────────┘       │
          └──────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srpipe.errors import SettingsError
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.grid import AxisGrid, Grid
from srpipe.settings import Edges, Region

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the grid of a job lies, input pixels."""

    left: int
    """Of the grid's first column, in the image; negative beyond its border."""
    top: int
    """Of the grid's first row."""
    crop: Rect
    """The output, from the grid's first pixel on."""
    edges: Edges
    """How the image is continued beyond its border."""
    whole: Grid
    """The tiles of the whole image and what it is continued by, of which the job has some or all."""

    @property
    def margin(self) -> Size:
        """How far the image is continued at its left and its top."""
        return Size(self.whole.x.margin_px, self.whole.y.margin_px)

    def in_image(self, rect: Rect) -> Rect:
        """A rectangle of the grid in the image's pixels; it may lie beyond the image's border."""
        return Rect(rect.left + self.left, rect.top + self.top, rect.width, rect.height)


def frame_grid(whole: Grid, size: Size, region: Region | None, edges: Edges) -> tuple[Grid, Frame]:
    """Take the tiles that a job needs.

    Args:
        whole: the tiles of the whole image, and of what it is continued by.
        size: of the image.
        region: left, top, width and height of what is wanted of the image; None: all of it.
        edges: how the image is continued.

    Raises:
        SettingsError: the region does not lie within the image.
    """
    x, y, width, height = region or (0, 0, size.width, size.height)
    if x + width > size.width or y + height > size.height:
        raise SettingsError(
            f"region {x},{y},{width},{height} reaches beyond the image, which has {size} pixels: "
            "give left, top, width and height of a part of it."
        )
    x, y = x + whole.x.margin_px, y + whole.y.margin_px
    columns, left = _touching(whole.x, x, width)
    rows, top = _touching(whole.y, y, height)
    crop = Rect(x - left, y - top, width, height)
    frame = Frame(left - whole.x.margin_px, top - whole.y.margin_px, crop, edges, whole)
    return Grid(columns, rows), frame


def _touching(axis: AxisGrid, begin: int, length: int) -> tuple[AxisGrid, int]:
    """The tiles that cover any of ``length`` pixels from ``begin`` on, and where they begin."""
    touching = [
        i
        for i, start in enumerate(axis.starts_px)
        if start < begin + length and start + axis.covered_px(i) > begin
    ]
    starts = axis.starts_px[touching[0] : touching[-1] + 1]
    end = starts[-1] + axis.covered_px(touching[-1])
    moved = tuple(start - starts[0] for start in starts)
    return AxisGrid(end - starts[0], axis.tile_px, moved), starts[0]


def continued(positions: Indices, length_px: int, edges: Edges) -> Indices:
    """Which pixel of an axis is seen at each position.

    Args:
        positions: pixels from the image's first on, negative before it.
        length_px: of the image on the axis.
        edges: ``replicate`` repeats the last pixel, ``reflect`` mirrors at it, without repeating it,
            ``wrap`` goes on at the other side. Any but ``none``.

    Returns:
        For each position a pixel of the image, 0 to ``length_px - 1``.
    """
    if edges == "replicate":
        return np.clip(positions, 0, length_px - 1)
    if edges == "wrap":
        return positions % length_px
    period = max(2 * (length_px - 1), 1)
    folded = positions % period
    return np.minimum(folded, period - folded) if length_px > 1 else np.zeros_like(positions)
