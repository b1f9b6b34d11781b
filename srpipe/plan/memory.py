"""Bytes a job takes, from its shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from srpipe.plan.grid import Grid
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.model_info import ModelInfo

Shape = tuple[int, ...]

# Measured on strip TIFF in and tiled TIFF out: rows that libvips keeps while it streams.
_READER_ROWS = 768
_WRITER_ROWS = 384
RESIZE_ROW_FACTOR = 12
"""How much more libvips holds of each row while it resizes: more rows, and in float."""
LEVELS_ROW_FACTOR = 3
"""How much more is held of each row for the levels of DeepZoom and Zarr."""
_BUFFER_BUDGET_BYTES = 256_000_000
# Tiles remembered to find those that repeat: two queues of so many bytes or tiles, two at least.
_SEEN_BYTES = 8_000_000
_SEEN_TILES = 32
# Result slots, if there is room, for results of tiles that repeat.
_KEPT_RESULTS = 8


@dataclass(frozen=True, slots=True)
class SlotShapes:
    """Shape of one slot of each kind."""

    tile: Shape
    """(tile height, tile width, bands) in the image's depth, input pixels."""
    batch: Shape
    """What the model takes: (N, C, H, W) or (N, H, W, C), input pixels."""
    result: Shape
    """What the model gives: the same layout, output pixels."""


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """How many slots of each kind: the back-pressure of the whole pipeline."""

    tile: int
    batch: int
    result: int
    reserved: int
    """Of the result slots: how many may hold results for tiles of the same pixels that may come."""


@dataclass(frozen=True, slots=True)
class SeamShapes:
    """Partial sums kept between tiles, float32, output pixels."""

    rows: Shape
    """(2, bands, shared height, image width): one strip is read while the other is written."""
    columns: Shape
    """(tiles in a row - 1, bands, tile height, shared width)."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all seams."""
        return 4 * (count(self.rows) + count(self.columns))


def count(shape: Shape) -> int:
    """Number of elements of a shape."""
    n = 1
    for length in shape:
        n *= length
    return n


def slot_shapes(grid: Grid, image: ImageInfo, model: ModelInfo, batch_size: int) -> SlotShapes:
    """Shapes of the slots of a job."""
    height, width = grid.tile.height, grid.tile.width
    return SlotShapes(
        tile=(height, width, image.bands),
        batch=_model_shape(model, batch_size, height, width),
        result=_model_shape(model, batch_size, height * model.scale, width * model.scale),
    )


def _model_shape(model: ModelInfo, batch: int, height: int, width: int) -> Shape:
    if model.layout == "NCHW":
        return (batch, model.channels, height, width)
    return (batch, height, width, model.channels)


def slot_counts(
    batch_size: int, runs: int, *, tiles_kept: bool, reuse: bool, serial: bool, spare_results: int
) -> SlotCounts:
    """Slots that keep every runner busy.

    Args:
        batch_size: tiles in a batch.
        runs: batches that workers are given at once: what their runners do, and one that waits.
        tiles_kept: a tile stays in its slot until its result is blended.
        reuse: results are kept for tiles of the same pixels, one at least.
        serial: the stages take turns, so that a deeper queue gains nothing.
        spare_results: result slots that there is room for beyond what is needed: at most as many
            again are made, and then some for results that are kept.
    """
    batches = runs + 1
    spare = max(spare_results, 0)
    queued = 0 if serial else min(spare, batches)
    reserved = max(1, min(spare - queued, _KEPT_RESULTS)) if reuse else 0
    results = batches + queued + reserved
    in_flight = batches + batches + queued if tiles_kept else 0
    return SlotCounts(
        tile=batch_size * (2 + in_flight), batch=batches, result=results, reserved=reserved
    )


def spare_results(
    source_row_bytes: int, output_row_bytes: int, result_bytes: int, needed: int
) -> int:
    """Result slots that fit beside the rows that libvips holds and the ``needed`` ones.

    Rows in flight grow with the width of the image, results need not be many: sharing one budget
    keeps the memory of a job the same whatever its size, and gives narrow images a deeper queue.

    Args:
        source_row_bytes: bytes of one row of the input.
        output_row_bytes: bytes of one row of the output.
        result_bytes: bytes of one result slot, which two processes map.
        needed: result slots there are anyway.
    """
    held_bytes = rows_bytes(source_row_bytes, output_row_bytes)
    return (_BUFFER_BUDGET_BYTES - held_bytes) // (2 * result_bytes) - needed


def seen_tiles(tile_bytes: int) -> int:
    """Tiles that each of the two queues holds in which repeated ones are looked for."""
    return max(2, min(_SEEN_TILES, _SEEN_BYTES // tile_bytes))


def rows_bytes(source_row_bytes: int, output_row_bytes: int) -> int:
    """What libvips holds of the image while it streams, from the bytes of a row of input and output."""
    return _READER_ROWS * source_row_bytes + _WRITER_ROWS * output_row_bytes


def seam_shapes(grid: Grid, bands: int, scale: int) -> SeamShapes:
    """Shapes of the seams of a job."""
    return SeamShapes(
        rows=(2, bands, grid.y.max_shared_px * scale, grid.x.length_px * scale),
        columns=(
            grid.x.n_tiles - 1,
            bands,
            grid.tile.height * scale,
            grid.x.max_shared_px * scale,
        ),
    )
