"""The plan: everything decided before the first tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srpipe.errors import SettingsError
from srpipe.plan.bands import as_asked, bands_seen, check_bands, find_black_and_white
from srpipe.plan.colour import BICUBIC_RADIUS_PX, ColourPath
from srpipe.plan.frame import Frame, frame_grid
from srpipe.plan.geometry import Rect, Size, round_up
from srpipe.plan.grid import Grid, plan_axis
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.mask import MaskInfo
from srpipe.plan.memory import (
    LEVELS_ROW_FACTOR,
    RESIZE_ROW_FACTOR,
    SeamShapes,
    SlotCounts,
    SlotShapes,
    count,
    seam_shapes,
    slot_counts,
    slot_shapes,
    spare_results,
)
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.output import OutputSpec, as_written, fit_output
from srpipe.plan.window import MAX_DEFAULT_OVERLAP_PX, default_trim_px, overlap_for
from srpipe.settings import Blend, OnError, Settings, check_overlap

DEFAULT_TILE_SIZE_PX = 256
DEFAULT_BATCH_SIZE_CPU = 1
DEFAULT_BATCH_SIZE_GPU = 8
# Where bytes cost more on their way than their conversion does.
_INTEGER_DEVICES = ("cuda", "tensorrt")
# Nothing can overlap with so few.
SERIAL_MAX_TILES = 1
# Starting processes would take longer than they gain; more tiles are worth their robustness.
THREADS_MAX_TILES = 64


ResolvedEngine = Literal["serial", "threads", "local"]
Part = Literal["pixels", "encoded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job, decided."""

    image: ImageInfo
    model: ModelInfo
    """As it is used in this job: settings have replaced what its metadata say."""
    black: float
    white: float
    """The pixel values that are black and white to the model."""
    output: OutputSpec
    tile_size: int | None
    """As it was asked for or chosen by measurement; None: the model's usual one."""
    overlap: int | None
    """As it was asked for; None: the model's usual one."""
    grid: Grid
    blend: Blend
    trim_px: tuple[int, int]
    """Input pixels left out at each side of an overlap, horizontally and vertically."""
    batch_size: int
    workers: int
    threads: int
    """Cores of one session."""
    runners: int
    """Runs of one session that are under way at once, each on an equal share of its cores."""
    device: str
    """Resolved: cpu, cuda:0, or several of one kind between commas."""
    rewrites: tuple[str, ...] = ()
    """Names of the rewrites that make the graph that sessions run; none: the model's own."""
    graph_sha256: str = ""
    """Hash of the rewritten graph."""
    integer_input: bool
    """Whether batches hold the image's integers, which the model's session converts itself."""
    reuse: bool
    """Whether tiles of the same pixels are computed once."""
    engine: ResolvedEngine
    """How the stages run: one after the other, each in a thread, or each in a process."""
    job_dir: str
    overwrite: bool
    """Whether the output may replace a file."""
    fresh: bool
    """Whether to start over, whatever the job folder holds."""
    checkpoint_every_s: float
    on_error: OnError
    frame: Frame
    """Where the grid lies in the image, and which part of it is the output."""
    mask: MaskInfo | None
    """Where the model's result is taken; None: everywhere."""
    background_levels: int | None
    """The largest range of a tile's values, of 255, that is not worth the model; None: all are."""
    depth: int | None = None
    """Bits of a sample of the output, as it was asked for; None: those of the input."""
    outscale: float | None = None
    """Output pixels per input pixel, where the model's result is resized to that; None: it is not."""
    part: Part | None = None
    """How the output is a part of one that is joined later: its pixels as they are, or its rows as they
    are encoded there. None: it is whole."""

    @property
    def serial(self) -> bool:
        """Whether stages take turns, so that one of each kind of slot is enough."""
        return self.engine == "serial"

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.model.scale

    @property
    def input_size(self) -> Size:
        """The part of the image that is enhanced, input pixels."""
        return Size(self.frame.crop.width, self.frame.crop.height)

    @property
    def redundancy(self) -> float:
        """Share of the model's work beyond one computation per input pixel (0.14: 14 % more)."""
        return self.grid.model_pixels / self.input_size.pixels - 1

    @property
    def canvas_size(self) -> Size:
        """What all tiles cover, output pixels before any resizing."""
        return Size(self.grid.x.length_px, self.grid.y.length_px).scaled(self.scale)

    @property
    def cropped_size(self) -> Size:
        """What is left of the canvas when the rest around the output is cut off."""
        return self.input_size.scaled(self.scale)

    def source_of(self, tile: int) -> Rect:
        """The pixels of the image that a tile covers."""
        return self.frame.in_image(self.grid.at(tile).source).within(self.image.size)

    @property
    def turned(self) -> bool:
        """Whether pixels are turned as the image's orientation says, since the output cannot say it."""
        return self.image.orientation != 1 and not self.output.keeps_orientation

    @property
    def resized_size(self) -> Size:
        """Pixels of the output before any turning."""
        return (
            self.cropped_size if self.outscale is None else self.input_size.resized(self.outscale)
        )

    @property
    def output_size(self) -> Size:
        """Pixels of the output file."""
        size = self.resized_size
        on_its_side = self.turned and self.image.orientation >= 5
        return Size(size.height, size.width) if on_its_side else size

    @property
    def output_factor(self) -> float:
        """Pixels of the output file per input pixel, before its size is rounded."""
        return self.scale if self.outscale is None else self.outscale

    @property
    def written(self) -> ImageInfo:
        """The image in the depth and colour space that canvas and output have."""
        return as_written(self.image, self.depth)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, which workers take in turn."""
        return tuple(self.device.split(","))

    @property
    def on_gpu(self) -> bool:
        """Whether sessions run on anything but the CPU."""
        return self.device != "cpu"

    @property
    def own_processes(self) -> bool:
        """Whether each stage has a process of its own."""
        return self.engine == "local"

    @property
    def run_threads(self) -> int:
        """Cores of one run."""
        return max(1, self.threads // self.runners)

    @property
    def colour(self) -> ColourPath:
        """How bands travel through the model."""
        seen = bands_seen(self.image, self.model)
        lowest, highest = self.image.limits
        if self.image.is_float and not self.written.is_float:
            lowest, highest = self.black, self.white
        return ColourPath(
            bands=self.image.bands,
            colours=seen,
            channels=self.model.channels,
            bgr=self.model.bgr,
            value_range=self.model.value_range,
            black=self.black,
            white=self.white,
            lowest=lowest,
            highest=highest,
            layout=self.model.layout,
            scale=self.scale,
            alpha=self.image.alpha_band if seen < self.image.bands else None,
            no_data=self.image.no_data,
        )

    @property
    def tiles_kept(self) -> bool:
        """Whether finishing a tile may need its input pixels: for bands that the model does not see,
        what it is not used for, or where there is no data.
        """
        left_out = self.mask is not None or self.background_levels is not None
        return self.colour.needs_source or left_out or self.image.no_data is not None

    @property
    def slot_shapes(self) -> SlotShapes:
        """Shapes of the slots."""
        return slot_shapes(self.grid, self.image, self.model, self.batch_size)

    @property
    def slot_counts(self) -> SlotCounts:
        """Numbers of slots."""
        n_batches = -(-self.grid.n_tiles // self.batch_size)
        runs = 1 if self.serial else min(self.workers * (self.runners + 1), n_batches)
        pixel_bytes = self.image.bands * self.image.sample_bytes
        spare = spare_results(
            self.image.size.width * pixel_bytes,
            self.writer_row_bytes,
            count(self.slot_shapes.result) * self.model_item_bytes,
            needed=runs + 1,
        )
        return slot_counts(
            self.batch_size,
            runs,
            tiles_kept=self.tiles_kept,
            reuse=self.reuse,
            serial=self.serial,
            spare_results=min(spare, n_batches - runs),
        )

    @property
    def model_item_bytes(self) -> int:
        """Bytes of one number in and out of the model."""
        return 4 if self.model.dtype == "float32" else 2

    @property
    def batch_dtype(self) -> str:
        """Numpy's name for the numbers in batch slots."""
        return self.image.dtype if self.integer_input else self.model.dtype

    @property
    def slot_bytes(self) -> int:
        """Bytes of all slots."""
        shapes, counts = self.slot_shapes, self.slot_counts
        batch_item_bytes = self.image.sample_bytes if self.integer_input else self.model_item_bytes
        return (
            count(shapes.tile) * counts.tile * self.image.sample_bytes
            + count(shapes.batch) * counts.batch * batch_item_bytes
            + count(shapes.result) * counts.result * self.model_item_bytes
        )

    @property
    def seam_shapes(self) -> SeamShapes:
        """Shapes of the seams."""
        return seam_shapes(self.grid, self.image.bands, self.scale)

    @property
    def pixels_bytes(self) -> int:
        """Bytes of the memory-mapped pixels."""
        return self.canvas_row_bytes * self.canvas_size.height

    @property
    def canvas_row_bytes(self) -> int:
        """Bytes of a row of the memory-mapped pixels."""
        return self.canvas_size.width * self.image.bands * self.written.sample_bytes

    @property
    def writer_row_bytes(self) -> int:
        """What the writer holds for each row that a saver keeps."""
        factor = LEVELS_ROW_FACTOR if self.output.format.name in ("DeepZoom", "Zarr") else 1
        if self.outscale is not None:
            factor = max(factor, RESIZE_ROW_FACTOR)
        return factor * self.canvas_row_bytes

    def finished_rows_px(self, next_tile: int) -> int:
        """Canvas rows from the top that neither ``next_tile`` nor a later one changes."""
        row = next_tile // self.grid.x.n_tiles
        if row == self.grid.y.n_tiles:
            return self.cropped_size.height
        rows_px = self.grid.y.starts_px[row] - self.frame.crop.top
        return max(0, min(rows_px, self.frame.crop.height)) * self.scale

    @property
    def output_bytes(self) -> int:
        """Bytes the output file is expected to take."""
        samples = self.output_size.pixels * self.image.bands
        return int(samples * self.written.sample_bytes * self.output.estimated_ratio)


def make_plan(
    settings: Settings,
    image: ImageInfo,
    model: ModelInfo,
    output: OutputSpec,
    *,
    device: str,
    cores: int,
    job_dir: str,
    grid: Grid | None = None,
    mask: MaskInfo | None = None,
) -> Plan:
    """Decide a job.

    Args:
        settings: what the caller asked for.
        image: the input.
        model: the model, probed.
        output: the output, parsed.
        device: resolved device, or several between commas.
        cores: processor cores this process may use.
        job_dir: the job's folder.
        grid: the tiles of the whole image, where an earlier run has laid them.
        mask: where the model's result is taken.

    Raises:
        InputError: the model cannot work on the image's bands.
        SettingsError: tile size, overlap, batch size, white, channel order or region do not fit the
            model or the image.
        OutputError: the format cannot hold the result.
    """
    model = as_asked(model, settings)
    check_bands(image, model)
    black, white = find_black_and_white(settings, image, model)
    whole = grid or plan_grid(settings, image, model)
    grid, frame = frame_grid(whole, image.size, settings.region, settings.edges)
    outscale = None if settings.outscale == model.scale else settings.outscale
    cropped = Size(frame.crop.width, frame.crop.height)
    size = cropped.resized(model.scale if outscale is None else outscale)
    output = fit_output(output, as_written(image, settings.depth), size)
    batch_size = _batch_size(settings, model, device, grid.n_tiles)
    n_batches = -(-grid.n_tiles // batch_size)
    workers = min(_workers(settings, device), n_batches)
    reach_px = _reach_px(model, image)
    trims = tuple(
        max(default_trim_px(axis.overlap_px, reach_px), model.border_px)
        for axis in (whole.x, whole.y)
    )
    engine = chosen_engine(settings) or auto_engine(grid.n_tiles, workers)
    if engine == "serial":
        workers = 1
    threads = settings.threads or max(1, cores // workers)
    runners = _runners(settings, device, threads, -(-n_batches // workers))
    return Plan(
        image=image,
        model=model,
        black=black,
        white=white,
        output=output,
        tile_size=settings.tile_size,
        overlap=settings.overlap,
        grid=grid,
        blend=settings.blend,
        trim_px=(trims[0], trims[1]),
        batch_size=batch_size,
        workers=workers,
        threads=threads,
        runners=1 if engine == "serial" else runners,
        device=device,
        integer_input=_integer_input(settings, image, model, device),
        # A result that depends on its companions in the batch is another tile's no more.
        reuse=settings.reuse and (model.batch_exact or batch_size == 1),
        engine=engine,
        job_dir=job_dir,
        overwrite=settings.overwrite,
        fresh=settings.fresh,
        checkpoint_every_s=settings.checkpoint_every_s,
        on_error=settings.on_error,
        depth=settings.depth,
        outscale=outscale,
        frame=frame,
        mask=mask,
        background_levels=settings.background_levels if settings.skip_background else None,
    )


def chosen_engine(settings: Settings) -> ResolvedEngine | None:
    """How stages are to run, if the settings say; Ray leaves that open on each node."""
    match settings.engine:
        case "auto" | "ray":
            return None
        case engine:
            return engine


def auto_engine(n_tiles: int, workers: int) -> ResolvedEngine:
    """Processes for what takes long, and where several workers are asked for."""
    if workers > 1 or n_tiles > THREADS_MAX_TILES:
        return "local"
    return "serial" if n_tiles <= SERIAL_MAX_TILES else "threads"


def _runners(settings: Settings, device: str, threads: int, batches: int) -> int:
    """One run on other devices; on a CPU a run per core, which beats one on all cores (DESIGN.md)."""
    if device != "cpu":
        return settings.runners or 1
    return min(settings.runners or threads, threads, batches)


def _workers(settings: Settings, device: str) -> int:
    """One session for every device unless more are asked for."""
    devices = device.count(",") + 1
    if settings.workers is not None and settings.workers < devices:
        raise SettingsError(
            f"workers is {settings.workers}, but {devices} devices are named ({device}): each needs a "
            "worker; leave --workers out, or name fewer devices."
        )
    return settings.workers or devices


def _integer_input(settings: Settings, image: ImageInfo, model: ModelInfo, device: str) -> bool:
    """Whether batches travel as integers: where asked for, and 8 bits to CUDA devices anyway."""
    if settings.transfer == "integer" and image.is_float:
        raise SettingsError(
            f"transfer 'integer' is not possible: {image.path} has float numbers; leave --transfer out."
        )
    possible = model.channels >= image.colours and not image.is_float
    if settings.transfer == "integer" and not possible:
        raise SettingsError(
            f"transfer 'integer' is not possible: model {model.name} sees the luma of a colour image, "
            "which is no integer; leave --transfer out."
        )
    if settings.transfer == "auto":
        on_cuda = device.partition(":")[0] in _INTEGER_DEVICES
        return possible and on_cuda and image.dtype == "uint8"
    return settings.transfer == "integer"


def plan_grid(settings: Settings, image: ImageInfo, model: ModelInfo) -> Grid:
    """Lay the tiles of an image for a model, over what it is continued by too.

    Raises:
        SettingsError: the tile size or the overlap does not fit the model.
    """
    wanted_px = settings.tile_size
    axes = []
    for length_px, fixed_px, axis in (
        (image.size.width, model.width_px, "width"),
        (image.size.height, model.height_px, "height"),
    ):
        tile_px = _tile_px(wanted_px, fixed_px, model, axis)
        multiple_px = model.multiple_px
        overlap_px = settings.overlap
        if overlap_px is None:
            most_px = min((tile_px - 1) // 2, tile_px - multiple_px)
            overlap_px = max(0, min(_default_overlap_px(model, image), most_px))
        check_overlap(tile_px, overlap_px)
        _check_border(settings, model, overlap_px)
        if tile_px - overlap_px < multiple_px:
            raise SettingsError(
                f"overlap {overlap_px} leaves no whole multiple of {multiple_px} pixels, which model "
                f"{model.name} needs, in a tile of {tile_px}: use larger tiles."
            )
        margin_px = None
        if settings.edges != "none":
            margin_px = max(_margin_px(model, image, overlap_px), model.border_px)
        axes.append(
            plan_axis(
                length_px,
                tile_px,
                overlap_px,
                multiple_px,
                least_px=tile_px if fixed_px is not None else model.least_px,
                margin_px=None if margin_px is None else round_up(margin_px, multiple_px),
                may_grow=settings.tile_size is None,
            )
        )
    return Grid(*axes)


def _check_border(settings: Settings, model: ModelInfo, overlap_px: int) -> None:
    """Refuse what would show the pixels at a tile's border for which the model gives nothing."""
    if not model.border_px:
        return
    lacks = f"model {model.name} gives nothing for {model.border_px} pixels at each side of a tile"
    if settings.edges == "none":
        raise SettingsError(f"{lacks}, so that edges cannot be none: choose others.")
    if settings.blend == "mean":
        raise SettingsError(f"{lacks}, which the blend mean would show: use feather or crop.")
    if overlap_px < 2 * model.border_px:
        raise SettingsError(
            f"{lacks}, so that overlap {overlap_px} leaves gaps: it must be {2 * model.border_px} at "
            "least, in tiles more than twice as large."
        )


def _tile_px(wanted_px: int | None, fixed_px: int | None, model: ModelInfo, axis: str) -> int:
    multiple_px = model.multiple_px
    if fixed_px is not None:
        if wanted_px not in (None, fixed_px):
            raise SettingsError(
                f"tile size {wanted_px} is not possible: model {model.name} takes only a {axis} of "
                f"{fixed_px} pixels; leave --tile-size out."
            )
        return fixed_px
    if wanted_px is None:
        preferred_px = model.tile_px or DEFAULT_TILE_SIZE_PX
        return max(preferred_px // multiple_px, 1) * multiple_px
    if wanted_px % multiple_px:
        near = round_up(wanted_px, multiple_px)
        choices = " or ".join(str(c) for c in (near - multiple_px, near) if c > 0)
        raise SettingsError(
            f"tile size {wanted_px} is not a multiple of {multiple_px}, which model {model.name} "
            f"needs: use {choices}."
        )
    if wanted_px < model.least_px:
        raise SettingsError(
            f"tile size {wanted_px} is below {model.least_px}, the least that model {model.name} "
            "takes: use larger tiles."
        )
    return wanted_px


def _reach_px(model: ModelInfo, image: ImageInfo) -> int | None:
    """What a tile's border lacks context for, what is resized beside the model included."""
    halo_px = model.radius_px if model.halo_px is None else model.halo_px
    if halo_px is None:
        return None
    seen = bands_seen(image, model)
    resized = model.scale > 1 and (image.bands > seen or model.channels < seen)
    return max(halo_px, model.border_px, BICUBIC_RADIUS_PX if resized else 0)


def _default_overlap_px(model: ModelInfo, image: ImageInfo) -> int:
    reach_px = _reach_px(model, image)
    if reach_px is None:
        return MAX_DEFAULT_OVERLAP_PX
    # Without a halo beyond which all is well, half of the overlap is for the ramp.
    overlap_px = 4 * reach_px if model.halo_from == "balanced" else overlap_for(reach_px)
    return max(min(overlap_px, MAX_DEFAULT_OVERLAP_PX), 2 * model.border_px)


def _margin_px(model: ModelInfo, image: ImageInfo, overlap_px: int) -> int:
    """What an image is continued by: the receptive margin; where that is not known, or not all, as
    much as a pixel has in the middle of a seam.
    """
    reach_px = _reach_px(model, image)
    if reach_px is None or model.halo_from == "balanced":
        return -(-overlap_px // 2)
    return min(reach_px, MAX_DEFAULT_OVERLAP_PX)


def _batch_size(settings: Settings, model: ModelInfo, device: str, n_tiles: int) -> int:
    if model.batch is not None:
        if settings.batch_size not in (None, model.batch):
            raise SettingsError(
                f"batch size {settings.batch_size} is not possible: model {model.name} takes only "
                f"batches of {model.batch}; leave --batch-size out."
            )
        return model.batch
    if settings.batch_size is not None:
        return min(settings.batch_size, n_tiles)
    preferred = DEFAULT_BATCH_SIZE_CPU if device == "cpu" else DEFAULT_BATCH_SIZE_GPU
    return min(preferred, n_tiles)
