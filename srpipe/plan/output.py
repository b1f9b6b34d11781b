"""What OUTPUT asks for: the format by its ending, libvips options, and what the format can hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from srpipe.errors import OutputError
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import ImageInfo

# An uncompressed TIFF beyond this does not fit in 32-bit offsets, its tags included.
_CLASSIC_TIFF_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Format:
    """What a file format can hold, and how srpipe writes it unless told otherwise."""

    name: str
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
)  # fmt: skip


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
        suffix = Path(self.path).suffix.lower()
        return f"{suffix}[{self.options}]" if self.options else suffix

    @property
    def estimated_ratio(self) -> float:
        """File bytes to expect per raw byte."""
        options = self.options.replace(" ", "").split(",")
        ratio = self.format.typical_ratio
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
    match = re.fullmatch(r"(?P<path>.*?)(?:\[(?P<options>[^\[\]]*)\])?", output, re.DOTALL)
    assert match is not None
    path, options = match["path"], match["options"]
    suffix = Path(path).suffix.lower()
    for fmt in FORMATS:
        if suffix in fmt.suffixes:
            return OutputSpec(
                path, fmt, fmt.default_options if options is None else options.strip()
            )
    known = " ".join(s for f in FORMATS for s in f.suffixes)
    raise OutputError(
        f"cannot tell the format of {path!r} from its ending {suffix!r}: use one of {known}."
    )


def fit_output(spec: OutputSpec, image: ImageInfo, size: Size) -> OutputSpec:
    """Check that the format holds the result, and ask for BigTIFF where it must.

    Args:
        spec: as parsed.
        image: the input, whose depth and bands the output keeps.
        size: of the output, pixels.

    Raises:
        OutputError: too large, too deep, with alpha or with too many bands for the format.
    """
    fmt = spec.format
    if max(size.width, size.height) > fmt.max_side_px:
        raise OutputError(
            f"{fmt.name} holds at most {fmt.max_side_px} pixels on a side, and {spec.path} would be "
            f"{size}: write a .tif instead."
        )
    if not image.is_picture and not fmt.any_bands:
        raise OutputError(
            f"{image.path} has {image.bands} bands ({image.kind}) and {fmt.name} holds only grey or "
            f"RGB: write {spec.path} as .tif instead."
        )
    if image.dtype == "uint16" and not fmt.sixteen_bit:
        raise OutputError(
            f"{image.path} has 16 bits a sample and {fmt.name} holds 8: write {spec.path} as "
            ".tif or .png instead."
        )
    if image.has_alpha and not fmt.alpha:
        raise OutputError(
            f"{image.path} has an alpha channel and {fmt.name} holds none: write {spec.path} as "
            ".tif or .png instead."
        )
    raw_bytes = size.pixels * image.bands * image.sample_bytes
    large = raw_bytes * max(1.0, spec.estimated_ratio) > _CLASSIC_TIFF_BYTES
    asked = any(option.split("=")[0].strip() == "bigtiff" for option in spec.options.split(","))
    if fmt.name == "TIFF" and large and not asked:
        options = f"{spec.options},bigtiff" if spec.options else "bigtiff"
        return OutputSpec(spec.path, fmt, options)
    return spec
