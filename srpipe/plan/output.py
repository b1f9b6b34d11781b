"""What OUTPUT asks for: the format by its ending, libvips options, and what the format can hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from srpipe.errors import OutputError
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import ImageInfo, band_names
from srpipe.plan.nodata import converted_value
from srpipe.plan.pixels import PixelDtype

FormatName = Literal["TIFF", "PNG", "JPEG", "WebP", "libvips", "raw", "DeepZoom", "Zarr"]

# An uncompressed TIFF beyond this does not fit in 32-bit offsets, its tags included.
_LOSSY = ("jpeg", "webp", "jp2k")
_CLASSIC_TIFF_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Format:
    """What a file format can hold, and how srpipe writes it unless told otherwise."""

    name: FormatName
    suffixes: tuple[str, ...]
    max_side_px: int
    sixteen_bit: bool
    alpha: bool
    any_bands: bool
    """It holds bands too that are neither grey nor RGB."""
    default_options: str
    typical_ratio: float
    """File bytes per raw byte of a photograph, for the space check."""


FORMATS = (
    Format("TIFF", (".tif", ".tiff"), 2**31 - 1, True, True, True,
           "compression=deflate,predictor=horizontal,level=1,tile", 0.7),
    Format("PNG", (".png",), 2**31 - 1, True, True, False, "", 0.7),
    Format("JPEG", (".jpg", ".jpeg"), 65535, False, False, False, "Q=95", 0.35),
    Format("WebP", (".webp",), 16383, False, True, False, "Q=90", 0.25),
    Format("libvips", (".v", ".vips"), 2**31 - 1, True, True, True, "", 1.0),
    Format("raw", (".raw", ".bin"), 2**31 - 1, True, True, True, "", 1.0),
    Format("Zarr", (".zarr",), 2**31 - 1, True, True, True, "", 0.95),
    # What it holds depends on its tiles; these are JPEG's.
    Format("DeepZoom", (".dzi",), 2**31 - 1, False, False, False, "suffix=.jpg[Q=90]", 0.35),
)  # fmt: skip

_TILES = {suffix: fmt for fmt in FORMATS[:4] for suffix in fmt.suffixes}
# Small files fill the disk's blocks badly, and smaller levels follow.
_DEEPZOOM_EXTRA = 1.5


_BY_SUFFIX = {suffix: fmt for fmt in FORMATS for suffix in fmt.suffixes}
# Where libvips has another name for a format than its file has.
_VIPS_SUFFIXES = {"DeepZoom": ".dz", "raw": ".raw"}
_NO_DEEPZOOM = {"layout", "container", "basename", "dirname", "imagename", "angle", "id"}
_SPACES_16 = {"b-w": "grey16", "rgb": "rgb16", "srgb": "rgb16"}


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Where the result goes and how it is written."""

    path: str
    """Without options."""
    format: Format
    options: str
    """libvips save options, ``a=b,c``, without brackets."""

    @property
    def vips_format(self) -> str:
        """Ending and options as libvips' savers take them."""
        suffix = _VIPS_SUFFIXES.get(self.format.name, Path(self.path).suffix.lower())
        return f"{suffix}[{self.options}]" if self.options else suffix

    @property
    def parsed(self) -> dict[str, str]:
        """The options by name; one without a value has an empty one."""
        pairs = (option.partition("=") for option in re.split(r",(?![^\[]*\])", self.options))
        return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}

    @property
    def keeps_exif(self) -> bool:
        """Whether the options let EXIF and IPTC through."""
        options = self.options.replace(" ", "").split(",")
        kept = [option[5:].split("|") for option in options if option.startswith("keep=")]
        stripped = any(option in ("strip", "strip=true", "strip=1") for option in options)
        return not stripped and all({"all", "exif"} & set(names) for names in kept)

    @property
    def keeps_orientation(self) -> bool:
        """Whether a file can say how it is to be turned; else its pixels are."""
        return self.format.name not in ("DeepZoom", "Zarr", "raw")

    @property
    def is_one_file(self) -> bool:
        """Whether it is no folder, and nothing belongs to it."""
        return self.format.name != "Zarr" and companion(self.path) is None

    @property
    def estimated_ratio(self) -> float:
        """File bytes to expect per raw byte."""
        options = [f"{key}={value}" if value else key for key, value in self.parsed.items()]
        ratio = self.format.typical_ratio
        if self.format.name == "DeepZoom":
            return ratio * _DEEPZOOM_EXTRA
        if self.format.name == "TIFF":
            compressed = any(o.startswith("compression=") and o[12:] != "none" for o in options)
            ratio = 0.35 if "compression=jpeg" in options else ratio if compressed else 1.0
            ratio *= 4 / 3 if any(o in ("pyramid", "pyramid=true") for o in options) else 1
        return ratio


def parse_output(output: str) -> OutputSpec:
    """Split ``out.tif[compression=deflate,tile]`` into path, format and options.

    Raises:
        OutputError: no ending, or one that srpipe does not write.
    """
    # Options of DeepZoom's tiles are in brackets of their own.
    inside = r"(?P<options>(?:[^\[\]]|\[[^\[\]]*\])*)"
    match = re.fullmatch(rf"(?P<path>.*?)(?:\[{inside}\])?", output, re.DOTALL)
    assert match is not None
    path, options = match["path"], match["options"]
    suffix = Path(path).suffix.lower()
    for fmt in FORMATS:
        if suffix in fmt.suffixes:
            spec = OutputSpec(
                path, fmt, fmt.default_options if options is None else options.strip()
            )
            return _as_deepzoom(spec) if fmt.name == "DeepZoom" else spec
    known = " ".join(s for f in FORMATS for s in f.suffixes)
    raise OutputError(
        f"cannot tell the format of {path!r} from its ending {suffix!r}: use one of {known}."
    )


def _as_deepzoom(spec: OutputSpec) -> OutputSpec:
    """With what its tiles can hold, and without anything that is no DeepZoom.

    Raises:
        OutputError: the options ask for another layout, another name, or tiles of an unknown kind.
    """
    options = spec.parsed
    for key in _NO_DEEPZOOM & options.keys():
        if (key, options[key]) not in (("layout", "dz"), ("container", "fs")):
            raise OutputError(
                f"{spec.path} is a DeepZoom file and its folder of tiles, without the option {key}: "
                "leave it out."
            )
    suffix = options.get("suffix", ".jpeg")
    kind = _TILES.get(suffix.partition("[")[0].lower())
    if kind is None:
        raise OutputError(
            f"{spec.path} cannot have tiles that end in {suffix!r}: use one of {' '.join(_TILES)}."
        )
    holds = replace(
        spec.format,
        sixteen_bit=kind.sixteen_bit,
        alpha=kind.alpha,
        any_bands=False,  # no viewer shows them
        typical_ratio=kind.typical_ratio,
    )
    if not options.keys() & {"keep", "strip", "no_strip"}:
        # Tiles keep the profile: viewers show them one by one. An orientation would turn each.
        spec = replace(spec, options=f"{spec.options},keep=icc" if spec.options else "keep=icc")
    return replace(spec, format=holds)


def companion(path: str) -> str | None:
    """What else belongs to an output at ``path``, beside it: DeepZoom's folder of tiles, the sidecar of
    raw pixels; None: nothing.
    """
    stem, suffix = os.path.splitext(path)
    fmt = _BY_SUFFIX.get(suffix.lower())
    if fmt is None or fmt.name not in ("DeepZoom", "raw"):
        return None
    return f"{stem}_files" if fmt.name == "DeepZoom" else f"{path}.json"


def as_written(image: ImageInfo, depth: int | None) -> ImageInfo:
    """The image in the depth of the output, and in the colour space that goes with it.

    Floats become unsigned integers: black is 0, and white the largest. Signed integers of 16 bits stay
    so at a depth of 16.
    """
    dtype: PixelDtype = image.dtype if depth is None else "uint8" if depth == 8 else "uint16"
    if dtype == image.dtype or (image.dtype == "int16" and depth == 16):
        return image
    spaces = _SPACES_16 if dtype == "uint16" else {b: a for a, b in _SPACES_16.items()}
    space = {"scrgb": "srgb"}.get(image.interpretation, image.interpretation)
    return replace(
        image,
        dtype=dtype,
        bits=None,
        interpretation=spaces.get(space, space),
        nodata=None if image.nodata is None else converted_value(image.nodata, image.dtype, dtype),
    )


def _for_numbers(spec: OutputSpec, image: ImageInfo) -> OutputSpec:
    """With the options that floats and no-data need.

    Raises:
        OutputError: no-data would not stay what it is.
    """
    fmt, parsed = spec.format, spec.parsed
    names = {key.replace("-", "_").lower() for key in parsed}
    lossy = parsed.get("compression") in _LOSSY and "lossless" not in names
    if fmt.name == "TIFF" and image.nodata is not None and lossy:
        raise OutputError(
            f"{spec.path} would not keep {image.nodata:g}, which means no data in {image.path}: "
            f"use another compression than {parsed['compression']}, or say --nodata none."
        )
    if fmt.name == "TIFF" and image.is_float and spec.options == fmt.default_options:
        spec = replace(spec, options=spec.options.replace("horizontal", "float"))
    levels = fmt.name == "DeepZoom" or (fmt.name == "TIFF" and {"pyramid", "subifd"} & names)
    if levels and image.no_data is not None and "region_shrink" not in names:
        # Means of no-data and data would be neither.
        spec = replace(spec, options=f"{spec.options},region_shrink=nearest".lstrip(","))
    return spec


def fit_output(spec: OutputSpec, image: ImageInfo, size: Size) -> OutputSpec:
    """Check that the format holds the result, and ask for BigTIFF where it must.

    Args:
        spec: as parsed.
        image: the input, in the depth of the output.
        size: of the output, pixels.

    Raises:
        OutputError: too large, too deep, with alpha or with too many bands for the format.
    """
    fmt = spec.format
    holder: str = fmt.name
    instead = f"{spec.path} as .tif or .png"
    if fmt.name == "DeepZoom":
        holder = f"DeepZoom with {spec.parsed.get('suffix', '.jpeg').partition('[')[0]} tiles"
        instead = f"'{spec.path}[suffix=.png]', or .tif"
    if max(size.width, size.height) > fmt.max_side_px:
        raise OutputError(
            f"{fmt.name} holds at most {fmt.max_side_px} pixels on a side, and {spec.path} would be "
            f"{size}: write a .tif instead."
        )
    if not image.is_picture and not fmt.any_bands:
        raise OutputError(
            f"{image.path} has {image.bands} bands ({image.kind}) and {holder} holds only grey or "
            f"RGB: write {spec.path} as .tif instead."
        )
    if image.dtype in ("int16", "float32") and not fmt.any_bands:
        kind = "float numbers" if image.is_float else "signed numbers of 16 bits"
        depths = "--depth 8 or 16" if fmt.sixteen_bit and image.is_float else "--depth 8"
        raise OutputError(
            f"{spec.path} would have {kind}, as {image.path} has, and {holder} holds none: write "
            f"{spec.path} as .tif, or have them made integers from black to white with {depths}."
        )
    if image.others and not fmt.any_bands:
        raise OutputError(
            f"{image.path} has {image.bands} bands, of which {band_names(image.others)} no alpha, and "
            f"{holder} holds only grey or RGB, and alpha: write {spec.path} as .tif instead."
        )
    if image.dtype == "uint16" and not fmt.sixteen_bit:
        raise OutputError(
            f"{spec.path} would have 16 bits a sample and {holder} holds 8: give it --depth 8, or "
            f"write {instead} instead."
        )
    if image.has_alpha and not fmt.alpha:
        raise OutputError(
            f"{image.path} has an alpha channel and {holder} holds none: write {instead} instead."
        )
    spec = _for_numbers(spec, image)
    raw_bytes = size.pixels * image.bands * image.sample_bytes
    large = raw_bytes * max(1.0, spec.estimated_ratio) > _CLASSIC_TIFF_BYTES
    asked = any(option.split("=")[0].strip() == "bigtiff" for option in spec.options.split(","))
    if fmt.name == "TIFF" and large and not asked:
        options = f"{spec.options},bigtiff" if spec.options else "bigtiff"
        return OutputSpec(spec.path, fmt, options)
    return spec
