"""How much tiling changes what a model makes of a picture: its seam class.

A crop goes through the model whole and in tiles, as ``srpipe enhance`` would do it: the same plan,
colours, weights, trim, and canvas. Then the same again with the crop moved by half a stride, so that
the grid lies elsewhere on the picture. All in 16 bits, which round to 1/257 of a level of 255.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from srpipe.errors import ModelError, SettingsError
from srpipe.io.canvas import Canvas
from srpipe.io.canvas_files import CanvasFiles, reserve_canvas
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.session import Session
from srpipe.io.source import read_image_info
from srpipe.io.vips import pyvips
from srpipe.models.sample import middle_square
from srpipe.plan.colour import Pixels, pad_edges
from srpipe.plan.geometry import Size, round_up
from srpipe.plan.grid import AxisGrid
from srpipe.plan.job import DEFAULT_TILE_SIZE_PX, Plan, make_plan
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.output import parse_output
from srpipe.plan.pixels import in_unit
from srpipe.settings import MAX_TILE_SIZE_PX, Settings

SeamClass = Literal["exact", "blended", "discouraged"]

# Rounding to 8 bits hides what is below it.
EXACT_LEVELS = 0.5
# A mean away from seams beyond these has another reason than the seams.
_FAR_LEVELS = 0.5
_FAR_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Difference:
    """Between tiled and whole, levels of 255, over the bands of a set of pixels."""

    largest_levels: float
    mean_levels: float


@dataclass(frozen=True, slots=True)
class GridDifference:
    """What one grid of tiles changes."""

    at_seams: Difference
    """Where tiles overlap, or where the model would see beyond a tile's border."""
    away: Difference
    """Everywhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamReport:
    """How much tiling changes what a model makes of a picture."""

    seam_class: SeamClass
    """exact: tiles make no difference; blended: only near seams; discouraged: everywhere."""
    crop: Size
    """The part of the picture that was enhanced, input pixels."""
    tile: Size
    """Input pixels."""
    overlap_px: int
    """Input pixels that two neighbours share."""
    grid: GridDifference
    shifted: GridDifference
    """The same with the picture moved under the grid by half a stride."""

    @property
    def largest_levels(self) -> float:
        """The largest difference anywhere."""
        grids = (self.grid, self.shifted)
        return max(d.largest_levels for g in grids for d in (g.at_seams, g.away))

    def metadata(self) -> dict[str, str]:
        """What a model file keeps of it."""
        return {
            "seam_class": self.seam_class,
            "seam_max_levels": f"{self.largest_levels:.2f}",
            "seam_tile": f"{self.tile}, overlap {self.overlap_px}",
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def crop_to_measure(info: ModelInfo, tile_size: int | None) -> Size:
    """The largest part of a picture that :func:`measure_seams` uses, input pixels."""
    side_px = 5 * _wanted_px(info, tile_size) // 2
    return Size(side_px, side_px)


def measure_seams(
    info: ModelInfo, pixels: Pixels, *, tile_size: int | None = None, overlap: int | None = None
) -> SeamReport:
    """Compare a model's result for a whole crop with the same made of two by two tiles.

    The whole crop takes four times the memory of a tile.

    Args:
        info: the model, probed; it must take any height and width.
        pixels: (height, width, bands) uint8 or uint16; its middle is used, and what it lacks is
            added by mirroring.
        tile_size: as for ``srpipe enhance``; None as there.
        overlap: as for ``srpipe enhance``; None as there.

    Raises:
        ModelError: the model takes one size only, so that there is no whole result.
        SettingsError: tile size and overlap do not fit the model, or are too large for this.
        InferenceError: the model failed, or gave NaN or infinity.
        OutOfMemoryError: there is too little memory for the whole crop.
    """
    if info.height_px is not None or info.width_px is not None:
        raise ModelError(
            f"model {info.name} takes only a size of {info.width_px or 'any'}x"
            f"{info.height_px or 'any'}: there is no whole result to compare its tiles with."
        )
    if info.lost_px:
        raise ModelError(
            f"model {info.name} gives less than its input's size: there is no whole result to compare "
            "its tiles with."
        )
    settings = Settings(tile_size=tile_size, overlap=overlap, engine="serial", edges="none")
    grids = []
    with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
        maker = _PlanMaker(info, pixels.shape[2], folder)
        side_px, shift_px = _side_and_shift(maker, settings)
        whole_plan = maker.plan(side_px, replace(settings, tile_size=side_px, overlap=0))
        tiled_plan = maker.plan(side_px, settings)
        source = middle_square(_in_16_bits(pixels, tiled_plan.white), side_px + shift_px)
        session = Session(info.path, "cpu", 0)
        for corner in (0, shift_px):
            part = slice(corner, corner + side_px)
            crop = np.ascontiguousarray(source[part, part])
            whole = _enhance(whole_plan, session, crop)
            grids.append(_compare(tiled_plan, _enhance(tiled_plan, session, crop), whole))
    return SeamReport(
        seam_class=classify(*grids),
        crop=Size(side_px, side_px),
        tile=tiled_plan.grid.tile,
        overlap_px=tiled_plan.grid.x.overlap_px,
        grid=grids[0],
        shifted=grids[1],
    )


def classify(*grids: GridDifference) -> SeamClass:
    """The seam class that differences speak for; the worst grid decides."""
    return max(map(_class_of, grids), key=get_args(SeamClass).index)


def _class_of(grid: GridDifference) -> SeamClass:
    seams, away = grid.at_seams, grid.away
    if max(seams.largest_levels, away.largest_levels) <= EXACT_LEVELS:
        return "exact"
    if away.mean_levels > min(_FAR_LEVELS, _FAR_SHARE * seams.mean_levels):
        return "discouraged"
    return "blended"


class _PlanMaker:
    """Plans for square crops of one kind of picture."""

    def __init__(self, info: ModelInfo, bands: int, folder: str) -> None:
        self.info = info
        self._folder = folder
        path = os.path.join(folder, "crop.tif")
        colour = "rgb16" if bands in (3, 4) else "grey16" if bands < 3 else "multiband"
        image = pyvips.Image.black(8, 8, bands=bands).cast("ushort")
        image.copy(interpretation=colour).write_to_file(path)
        self._image = read_image_info(path)

    def plan(self, side_px: int, settings: Settings) -> Plan:
        """What ``srpipe enhance`` would do with a crop."""
        return make_plan(
            settings,
            replace(self._image, size=Size(side_px, side_px)),
            self.info,
            parse_output(os.path.join(self._folder, "out.tif")),
            device="cpu",
            cores=1,
            job_dir=self._folder,
        )


def _side_and_shift(maker: _PlanMaker, settings: Settings) -> tuple[int, int]:
    """The side of a crop that two of the largest tiles cover, and half a stride on the lattice."""
    info = maker.info
    multiple_px = info.multiple_px
    tile_px = max(_wanted_px(info, settings.tile_size) // multiple_px * multiple_px, multiple_px)
    smaller_px = round_up(7 * tile_px // 4, multiple_px)  # two tiles too, but smaller ones
    # Of two sides that differ by the multiple, one needs no more overlap than was asked for.
    overlap_px = min(
        maker.plan(side_px, settings).grid.x.overlap_px
        for side_px in (smaller_px, smaller_px + multiple_px)
    )
    side_px = 2 * tile_px - overlap_px
    if side_px > MAX_TILE_SIZE_PX:
        raise SettingsError(
            f"tiles of {tile_px} are too large to measure seams: the whole crop of {side_px} "
            f"pixels must not exceed {MAX_TILE_SIZE_PX}."
        )
    stride_px = tile_px - overlap_px
    return side_px, max(stride_px // 2 // multiple_px, 1) * multiple_px


def _wanted_px(info: ModelInfo, tile_size: int | None) -> int:
    return tile_size or info.tile_px or DEFAULT_TILE_SIZE_PX


def _in_16_bits(pixels: Pixels, white: float) -> npt.NDArray[np.uint16]:
    if pixels.dtype == np.uint16:
        return pixels.astype(np.uint16)
    return (np.clip(in_unit(pixels), 0, 1) * white + 0.5).astype(np.uint16)


def _enhance(plan: Plan, session: Session, crop: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Carry a plan out on pixels in memory; the result is (height, width, bands)."""
    reserve_canvas(plan)
    canvas = Canvas(plan, Checkpoint(job="", next_tile=0, stored_px=0))
    shapes, colour, info = plan.slot_shapes, plan.colour, plan.model
    tile_pixels = np.empty(shapes.tile, np.uint16)
    batch, result = np.empty(shapes.batch, info.dtype), np.empty(shapes.result, info.dtype)
    for tile in plan.grid.tiles():
        rect = tile.source
        rows = slice(rect.top, rect.top + rect.height)
        columns = slice(rect.left, rect.left + rect.width)
        tile_pixels[: rect.height, : rect.width] = crop[rows, columns]
        pad_edges(tile_pixels, rect.height, rect.width)
        for entry in batch:  # several where the model fixes their number
            colour.pack(tile_pixels, entry)
        session.run(info.input_name, info.output_name, batch, result)
        canvas.add(tile.index, colour.unpack(result[0], tile_pixels))
    return CanvasFiles(plan, writable=False).pixels.copy()


def _compare(
    plan: Plan, tiled: npt.NDArray[np.uint16], whole: npt.NDArray[np.uint16]
) -> GridDifference:
    difference = np.abs(tiled.astype(np.int32) - whole).max(axis=2)
    seams = _seam_mask(plan.grid.y, plan)[:, np.newaxis] | _seam_mask(plan.grid.x, plan)
    levels = difference / (plan.white / 255)
    return GridDifference(_summarise(levels[seams]), _summarise(levels[~seams]))


def _seam_mask(axis: AxisGrid, plan: Plan) -> npt.NDArray[np.bool_]:
    """Output pixels of an axis that two tiles share, or that lack context in the tile that has them."""
    mask = np.zeros(axis.length_px * plan.scale, np.bool_)
    reach_px = plan.model.radius_px or 0
    for before, start in zip(axis.starts_px, axis.starts_px[1:], strict=False):
        end = before + axis.tile_px
        first = max(min(start, end - reach_px), 0)
        last = max(end, start + reach_px)
        mask[first * plan.scale : last * plan.scale] = True
    return mask


def _summarise(levels: npt.NDArray[np.float64]) -> Difference:
    if not levels.size:
        return Difference(0.0, 0.0)
    return Difference(float(levels.max()), float(levels.mean()))
