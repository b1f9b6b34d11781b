"""What a caller may ask for, and nothing that is found out later."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from srpipe.errors import SettingsError

Blend = Literal["feather", "mean", "crop"]
Engine = Literal["auto", "serial", "threads", "local", "ray"]
OnError = Literal["stop", "fill"]
ChannelOrder = Literal["auto", "rgb", "bgr"]
ColorManagement = Literal["keep", "srgb", "off"]
Transfer = Literal["auto", "float", "integer"]
ValueRange = tuple[float, float]
"""What black and white are in a model's numbers."""
NoDataWish = float | Literal["none"] | None
Edges = Literal["reflect", "replicate", "wrap", "none"]
Region = tuple[int, int, int, int]
"""Left, top, width and height of a part of an image, input pixels."""

DEFAULT_MODEL = "lite-x2"
MAX_TILE_SIZE_PX = 8192
DEFAULT_TLC_WINDOW_PX = 384
"""One and a half times the usual training crop of 256, as Chu et al. have it."""
_LEAST_RANGE = 1e-3
MAX_BATCH_SIZE = 256
MAX_WORKERS = 256
MAX_SLABS = 9999
MAX_MODEL_VALUE = 65536
DEPTHS = (8, 16)
MAX_OUTSCALE = 65536
DEFAULT_CHECKPOINT_EVERY_S = 5.0
DEFAULT_BACKGROUND_LEVELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One request's options; ``None`` means that srpipe chooses.

    Raises:
        SettingsError: a value is out of range.
    """

    model: str = DEFAULT_MODEL
    """A bundled model's name, or the path of an .onnx file."""
    tile_size: int | None = None
    """Side of a tile, input pixels."""
    overlap: int | None = None
    """Input pixels that two neighbouring tiles share, in total (stride = tile_size - overlap)."""
    blend: Blend = "feather"
    """How seams are blended."""
    batch_size: int | None = None
    """Tiles that go through the model together."""
    workers: int | None = None
    """ONNX sessions, each a process of its own."""
    threads: int | None = None
    """Cores one session may use."""
    runners: int | None = None
    """Runs of one session under way at once, which share its cores."""
    memory_bytes: int | None = None
    """What the job may take in all; tiles, batches and workers are chosen within it."""
    rewrite: bool = True
    """Run a form of the model's graph that computes the same and is faster, where there is one."""
    reuse: bool = True
    """Compute tiles of the same pixels once."""
    device: str = "auto"
    """ONNX Runtime device: auto, cpu, cuda, cuda:1, …; several between commas get a session each."""
    transfer: Transfer = "auto"
    """How batches reach the model: as float, or as the image's integers, converted on the device."""
    job_dir: str | None = None
    """Folder for the job's files; ``OUTPUT.srpipe`` by default."""
    overwrite: bool = False
    """Replace an output that exists."""
    engine: Engine = "auto"
    """serial (all stages in one thread), threads (a thread for every stage), local (a process for
    every stage), ray (in slabs, on the nodes of a Ray cluster), or auto: by the number of tiles."""
    address: str | None = None
    """Of a Ray cluster, ``host:port``; None: one that runs here or that $RAY_ADDRESS names, or a new
    one of this machine alone."""
    slabs: int | None = None
    """How many slabs Ray's nodes compute; None: by rows of tiles and nodes."""
    slab: tuple[int, int] | None = None
    """Which slab is computed here, from 1 on, and of how many; the others are computed elsewhere."""
    allow_untrusted: bool = False
    """Read formats too that libvips does not trust with files from strangers."""
    fresh: bool = False
    """Start over, whatever the job folder holds."""
    checkpoint_every_s: float = DEFAULT_CHECKPOINT_EVERY_S
    """Seconds between two checkpoints; from the first on, each row of tiles ends with one too."""
    on_error: OnError = "stop"
    """What to do with tiles of the input that cannot be read: stop, or fill with what could be."""
    output_name: str | None = None
    """The model's output that is taken; None: the image of the largest scale."""
    value_range: ValueRange | None = None
    """What black and white are in the model's numbers; None: what its metadata say, or (0, 1)."""
    black: float | None = None
    """The pixel value that is black to the model; None: what its metadata say, or the smallest that
    the image's type holds, 0 for floats."""
    white: float | None = None
    """The pixel value that is white to the model; None: what its metadata say, or the largest that
    the image's type holds, 1 for floats."""
    nodata: NoDataWish = None
    """The pixel value that means no data: it stays, and models do not see it. None: what a TIFF says of
    itself (GDAL's tag); "none": there is none, whatever it says."""
    channel_order: ChannelOrder = "auto"
    """Order of a model's three channels; auto: what its metadata say, or rgb."""
    color_management: ColorManagement = "keep"
    """What becomes of a profile unlike sRGB: kept, while models see sRGB's tone curve; converted to
    sRGB; or left alone."""
    depth: int | None = None
    """Bits of a sample of the output, 8 or 16; None: those of the input."""
    outscale: float | None = None
    """How many times as large as the input the output is on each axis; None: the model's scale."""
    region: Region | None = None
    """The part of the image that is enhanced, and is the output; None: all of it."""
    edges: Edges = "reflect"
    """What the model sees beyond the image's border, as far as its receptive margin: the image
    mirrored, its last pixels repeated, or its opposite side. none: nothing, so that it pads as it does
    by itself, with zeros mostly, which shows."""
    mask: str | None = None
    """An image of the input's shape: white is enhanced, black resized plainly. None: all white."""
    skip_background: bool = False
    """Resize tiles plainly whose pixels hardly differ, instead of running the model on them."""
    background_levels: int = DEFAULT_BACKGROUND_LEVELS
    """How far apart the values of a band may lie in such a tile, where white is 255."""
    storage_options: Mapping[str, Mapping[str, Any]] | None = field(
        default=None, repr=False, hash=False
    )
    """fsspec's options for URLs, by protocol: ``{"s3": {"anon": True}}``; may hold credentials."""

    def __post_init__(self) -> None:
        _check_range("tile_size", self.tile_size, 1, MAX_TILE_SIZE_PX, "input pixels")
        _check_range("overlap", self.overlap, 0, MAX_TILE_SIZE_PX // 2, "input pixels")
        _check_range("batch_size", self.batch_size, 1, MAX_BATCH_SIZE, "tiles")
        _check_range("workers", self.workers, 1, MAX_WORKERS, "processes")
        for name in ("black", "white", "nodata"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("nodata", "none"):
                object.__setattr__(self, name, _as_pixel_value(name, value))
        _check_range("threads", self.threads, 1, 4 * max(os.cpu_count() or 1, 64), "cores")
        _check_range("runners", self.runners, 1, MAX_WORKERS, "runs")
        _check_range("background_levels", self.background_levels, 0, 255, "levels")
        _check_range("memory_bytes", self.memory_bytes, 1, 2**62, "bytes")
        _check_range("slabs", self.slabs, 1, MAX_SLABS, "slabs")
        if self.slab is not None:
            object.__setattr__(self, "slab", as_slab(self.slab))
        if self.engine != "ray" and (self.slabs is not None or self.address is not None):
            raise SettingsError(
                "slabs and address are for the engine ray: name it, or leave them out."
            )
        if self.engine == "ray" and self.slab is not None:
            raise SettingsError("slab is for clusters without Ray: leave it or the engine out.")
        if self.slab is not None and self.fresh:
            raise SettingsError(
                "fresh would undo what other slabs have done: remove the job folder before the first."
            )
        if self.depth not in (None, *DEPTHS):
            raise SettingsError(f"depth is {self.depth!r}: it must be 8 or 16 bits.")
        if self.outscale is not None:
            object.__setattr__(self, "outscale", _as_factor("outscale", self.outscale))
        _check_choice("blend", self.blend, get_args(Blend))
        _check_choice("engine", self.engine, get_args(Engine))
        _check_choice("on_error", self.on_error, get_args(OnError))
        _check_choice("channel_order", self.channel_order, get_args(ChannelOrder))
        _check_choice("color_management", self.color_management, get_args(ColorManagement))
        _check_choice("transfer", self.transfer, get_args(Transfer))
        if not _is_by_protocol(self.storage_options):
            raise SettingsError(
                "storage_options must be options by protocol, such as {'s3': {'anon': True}}."
            )
        if not isinstance(self.device, str):
            raise SettingsError(f"device must be a text such as 'cuda:0', not {self.device!r}.")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", as_value_range(self.value_range))
        if not 0 <= self.checkpoint_every_s <= 86400:
            raise SettingsError(
                f"checkpoint_every_s is {self.checkpoint_every_s}: it must be 0 to 86400 seconds."
            )
        if self.region is not None:
            object.__setattr__(self, "region", as_region(self.region))
        _check_choice("edges", self.edges, get_args(Edges))
        if self.mask is not None and not self.mask:
            raise SettingsError("mask is empty: name an image file, or leave it out.")
        if not self.model:
            raise SettingsError("model is empty: name a bundled model or an .onnx file.")
        if self.tile_size is not None and self.overlap is not None:
            check_overlap(self.tile_size, self.overlap)


def check_overlap(tile_size_px: int, overlap_px: int) -> None:
    """Refuse an overlap of half a tile or more: a pixel would lie in three tiles of a row."""
    if 2 * overlap_px >= tile_size_px:
        raise SettingsError(
            f"overlap {overlap_px} is half of the tile size {tile_size_px} or more: "
            f"use an overlap below {(tile_size_px + 1) // 2}, or larger tiles."
        )


def parse_bytes(text: str) -> int:
    """Read ``4G``, ``500M``, ``1.5GiB`` or a number of bytes; K, M and G are powers of 1000, with an
    ``i`` of 1024.

    Raises:
        SettingsError: it is none of these.
    """
    match = re.fullmatch(r"([\d.]+)\s*(?:([KMGT])(i?))?B?", text.strip(), re.IGNORECASE)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not number > 0:
        raise SettingsError(f"memory {text!r} must be a size such as 4G, 500M or 1.5GiB.")
    power = " KMGT".index((match[2] or " ").upper())
    return int(number * (1024 if match[3] else 1000) ** power)


def parse_value_range(text: str) -> ValueRange:
    """Read ``LOW,HIGH``, or ``HIGH`` alone for a range that begins at 0.

    Raises:
        SettingsError: it is neither.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    value_range = (0.0, *numbers) if len(numbers) == 1 else numbers
    if len(value_range) != 2:
        raise SettingsError(
            f"value range {text!r} must be two numbers, black and white, such as 0,255 or -1,1."
        )
    return as_value_range(value_range)


def as_value_range(numbers: Iterable[float]) -> ValueRange:
    """A range as two floats.

    Raises:
        SettingsError: not two numbers, or a range that is empty, turned round, beyond all reason, or
            too narrow for float32 to tell a thousand values apart in it.
    """
    try:
        if isinstance(numbers, str):
            raise TypeError
        low, high = (float(number) for number in numbers)
    except (TypeError, ValueError):
        low = high = math.nan
    wide_enough = high - low >= _LEAST_RANGE * max(1.0, abs(low), abs(high))
    if not -MAX_MODEL_VALUE <= low < high <= MAX_MODEL_VALUE or not wide_enough:
        raise SettingsError(
            f"value range {numbers} must be two numbers, the lower first, within "
            f"{MAX_MODEL_VALUE} of 0 and well apart, such as 0,255 or -1,1."
        )
    return low, high


def parse_region(text: str) -> Region:
    """Read ``X,Y,W,H``.

    Raises:
        SettingsError: it is not four whole numbers that can be a region.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise SettingsError(
            f"region {text!r} must be four whole numbers, left, top, width and height in pixels, such "
            "as 1000,2000,512,512."
        )
    return as_region(numbers)


def as_region(numbers: Iterable[int]) -> Region:
    """A region as four whole numbers.

    Raises:
        SettingsError: they are none, or it is empty, or begins outside of every image.
    """
    try:
        left, top, width, height = map(operator.index, numbers)
    except (TypeError, ValueError):
        left = top = width = height = -1
    if min(left, top) < 0 or min(width, height) < 1:
        raise SettingsError(
            f"region {numbers} must be left, top, width and height in whole pixels: the first two 0 or "
            "more, the others 1 or more."
        )
    return left, top, width, height


def parse_slab(text: str) -> tuple[int, int]:
    """Read ``3/16``.

    Raises:
        SettingsError: it is no such thing.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None:
        raise SettingsError(f"slab {text!r} must be a number and how many there are, such as 3/16.")
    return as_slab((int(match[1]), int(match[2])))


def as_slab(numbers: Iterable[int]) -> tuple[int, int]:
    """The number of a slab, from 1 on, and how many there are.

    Raises:
        SettingsError: there is no such slab.
    """
    try:
        number, count = map(operator.index, numbers)
    except (TypeError, ValueError):
        number = count = 0
    if not 1 <= number <= count <= MAX_SLABS:
        said = f"{number}/{count}" if count else repr(numbers)
        raise SettingsError(
            f"slab {said} must be a number from 1 on and how many there are, at most {MAX_SLABS}, "
            "such as 3/16."
        )
    return number, count


def _is_by_protocol(options: object) -> bool:
    if options is None:
        return True
    return isinstance(options, Mapping) and all(isinstance(o, Mapping) for o in options.values())


def _check_range(name: str, value: int | None, low: int, high: int, unit: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"{name} must be a whole number of {unit}, not {value!r}.")
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}: it must be {low} to {high} {unit}.")


def parse_nodata(text: str) -> float | Literal["none"]:
    """Read a number, ``nan`` or ``none``.

    Raises:
        SettingsError: it is none of these.
    """
    return "none" if text == "none" else _as_pixel_value("nodata", text)


def _as_pixel_value(name: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"{name} is {value!r}: it must be a number.") from None
    if isinstance(value, bool) or not (math.isfinite(number) or name == "nodata"):
        raise SettingsError(f"{name} is {value!r}: it must be a number.")
    return number


def _as_factor(name: str, value: float) -> float:
    try:
        factor = float(value)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 < factor <= MAX_OUTSCALE:
        raise SettingsError(
            f"{name} is {value!r}: it must be a number above 0 and at most {MAX_OUTSCALE}."
        )
    return factor


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}: it must be one of {', '.join(choices)}.")
