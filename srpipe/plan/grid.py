"""Where the tiles lie: no tile twice, every origin on the model's lattice.

On an axis of length L with tile t and overlap o (input pixels), n = max(1, ceil((L - o) / (t - o)))
tiles are the fewest that cover it. A model that takes any size gets the smallest aligned tile with
which n tiles still cover L; a fixed size is spread evenly. Where aligned origins leave a rest, the
last tile hangs over the border and the batcher pads it. Where the image is continued beyond its
border (srpipe.plan.frame), the axis begins a margin before the image and ends with its last tile.

       0 ├──── tile 0 ────┤            ┊ border
         ┊         ├──── tile 1 ────┤  ┊
         ┊         ┊     ├seam┤  ├──── tile 2 ──┊─┤
         ├─ final ─┤ = the pixels no later tile covers
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from srpipe.plan.geometry import Rect, Size, round_up


@dataclass(frozen=True)
class AxisGrid:
    """The tiles along one axis, input pixels."""

    length_px: int
    """Length of what is tiled on this axis: the image, and what it is continued by."""
    tile_px: int
    """Length of every tile; the last may hang over the border."""
    starts_px: tuple[int, ...]
    """Origin of each tile, strictly increasing, the first 0."""
    margin_px: int = 0
    """Pixels of the axis before the image's first."""

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.starts_px)

    @property
    def covers(self) -> bool:
        """Whether the tiles cover the axis, as those of :func:`plan_axis` do."""
        starts = self.starts_px
        return (
            starts[:1] == (0,)
            and all(0 < b - a <= self.tile_px for a, b in itertools.pairwise(starts))
            and starts[-1] < self.length_px <= starts[-1] + self.tile_px
        )

    def covered_px(self, index: int) -> int:
        """Pixels of the image that tile ``index`` covers (less than the tile at the border)."""
        return min(self.tile_px, self.length_px - self.starts_px[index])

    def final_px(self, index: int) -> int:
        """Pixels from the tile's origin on that no later tile covers."""
        if index + 1 < self.n_tiles:
            return self.starts_px[index + 1] - self.starts_px[index]
        return self.covered_px(index)

    def shared_before_px(self, index: int) -> int:
        """Pixels from the tile's origin on that the tile before it covers too."""
        if index == 0:
            return 0
        return self.starts_px[index - 1] + self.tile_px - self.starts_px[index]

    @cached_property
    def stride_px(self) -> int:
        """The largest distance between two origins (the tile's length if there is one tile)."""
        if self.n_tiles == 1:
            return self.tile_px
        return max(b - a for a, b in zip(self.starts_px, self.starts_px[1:], strict=False))

    @cached_property
    def overlap_px(self) -> int:
        """The smallest overlap of two neighbours (0 if there is one tile)."""
        return self.tile_px - self.stride_px

    @cached_property
    def max_shared_px(self) -> int:
        """The largest overlap of two neighbours: what a seam's buffer must hold."""
        return max((self.shared_before_px(i) for i in range(self.n_tiles)), default=0)


def plan_axis(
    length_px: int,
    tile_px: int,
    overlap_px: int,
    multiple_px: int,
    *,
    least_px: int,
    margin_px: int | None = None,
    may_grow: bool = False,
) -> AxisGrid:
    """Lay tiles along one axis.

    Args:
        length_px: image length, at least 1.
        tile_px: the largest tile wanted; a multiple of ``multiple_px`` unless the model fixes it.
        overlap_px: least overlap of two neighbours; rounded up to ``multiple_px``.
        multiple_px: every origin, and every free tile length, is a multiple of it.
        least_px: the shortest tile the model takes: ``tile_px`` where the model fixes it.
        margin_px: what the image is continued by at least, before and behind it; a multiple of
            ``multiple_px``. None: it is not continued, not even to the end of the last tile.
        may_grow: a free tile may be up to half as large again where only the margins need more tiles.

    Raises:
        ValueError: the rounded overlap leaves no stride.
    """
    if length_px < 1 or multiple_px < 1 or overlap_px < 0:
        raise ValueError(f"no grid for length {length_px}, overlap {overlap_px}")
    # The largest aligned stride that keeps the overlap, even where the tile itself is off-lattice.
    max_stride_px = (tile_px - overlap_px) // multiple_px * multiple_px
    if max_stride_px < 1:
        raise ValueError(f"overlap {overlap_px} leaves no stride in a tile of {tile_px}")
    keep_px = tile_px - max_stride_px
    covered_px = length_px + 2 * (margin_px or 0)

    def fewest(length_px: int) -> tuple[int, int]:
        """Number of tiles, and the shortest aligned ones with which so many are enough."""
        n = max(1, 1 + -(-(length_px - tile_px) // max_stride_px))
        return n, round_up(-(-(covered_px + (n - 1) * keep_px) // n), multiple_px)

    n, enough_px = fewest(covered_px)
    smallest_px = min(tile_px, max(enough_px, least_px))
    fewer, larger_px = fewest(length_px)
    may_grow &= fewer < n and least_px < tile_px and larger_px <= tile_px * 3 // 2
    if may_grow and fewer * larger_px < n * smallest_px:
        n, smallest_px = fewer, larger_px
    tile_px = smallest_px
    last = round_up(max(covered_px - tile_px, 0), multiple_px) // multiple_px
    starts = tuple(i * last // max(n - 1, 1) * multiple_px for i in range(n))
    end_px = length_px if margin_px is None else starts[-1] + tile_px
    return AxisGrid(end_px, tile_px, starts, margin_px or 0)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a grid."""

    index: int
    """Place in raster order."""
    column: int
    row: int
    source: Rect
    """The pixels of the input image it covers: smaller than the tile where it hangs over."""


@dataclass(frozen=True)
class Grid:
    """The tile positions of an image, in raster order."""

    x: AxisGrid
    y: AxisGrid

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return self.x.n_tiles * self.y.n_tiles

    @property
    def tile(self) -> Size:
        """Size of every tile as the model sees it, input pixels."""
        return Size(self.x.tile_px, self.y.tile_px)

    @property
    def model_pixels(self) -> int:
        """Input pixels the model computes in all, padding and overlaps included."""
        return self.n_tiles * self.tile.pixels

    def at(self, index: int) -> Tile:
        """The tile at ``index`` in raster order."""
        row, column = divmod(index, self.x.n_tiles)
        source = Rect(
            self.x.starts_px[column],
            self.y.starts_px[row],
            self.x.covered_px(column),
            self.y.covered_px(row),
        )
        return Tile(index, column, row, source)

    def tiles(self) -> Iterator[Tile]:
        """All tiles in raster order."""
        return (self.at(index) for index in range(self.n_tiles))
