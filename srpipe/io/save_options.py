"""Options of libvips' savers: which there are, what they take, and what they make of the samples.

libvips sets an option out of range to its default, with a word on stderr, and a saver stores what it
can: 8 bits of 16, three bands of four. Both are found out before any work, from what libvips says of
its savers, and from a few pixels that are saved and read again.
"""

from __future__ import annotations

import ctypes
import difflib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import OutputError
from srpipe.io.finishing import interpretation
from srpipe.io.savers import save_image
from srpipe.io.vips import DTYPES, FORMATS, VIPS_ERRORS, ffi, find_saver, first_line, pyvips
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.output import OutputSpec, parse_output
from srpipe.plan.pixels import limits

_SIDE_PX = 64
_MAX_TILE_BYTES = 2**29
_MAX_DEFLATE = 9
_BOOLEANS = ("", "true", "false", "yes", "no", "1", "0")
_NOT_OPTIONS = ("in", "target", "filename")
# A saver that stores this much else, on a slope from black to white, stores something else.
_MAX_ERROR = 0.2


# GObject's GParamSpec (gparamspec.h), which the range follows.
_SPEC = (
    ("type", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("value_type", ctypes.c_size_t),
    ("owner_type", ctypes.c_size_t),
    ("nick", ctypes.c_void_p),
    ("blurb", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
    ("references", ctypes.c_uint),
    ("id", ctypes.c_uint),
)


class _IntSpec(ctypes.Structure):
    _fields_ = (*_SPEC, ("lowest", ctypes.c_int), ("highest", ctypes.c_int))


class _DoubleSpec(ctypes.Structure):
    _fields_ = (*_SPEC, ("lowest", ctypes.c_double), ("highest", ctypes.c_double))


def check_options(spec: OutputSpec, image: ImageInfo) -> None:
    """Check the options of an output, and save a few pixels to see what becomes of them.

    Args:
        spec: the output.
        image: as it is written.

    Raises:
        OutputError: an option is unknown or out of range, or the samples would not be stored as they
            are.
    """
    if spec.format.name != "Zarr":
        _check_values(spec)
        _check_data(spec, image)
    pixels = _slope(image)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"a{Path(spec.path).suffix.lower()}")
            save_image(pixels, spec, path)
            if spec.format.name == "DeepZoom":
                path = os.path.join(folder, "tile")
                suffix = spec.parsed.get("suffix", ".jpeg")
                pixels.write_to_target(pyvips.Target.new_to_file(path), suffix)
            if spec.format.name not in ("Zarr", "raw", "libvips"):
                _check_stored(spec, image, pixels, pyvips.Image.new_from_file(path))
    except VIPS_ERRORS as error:
        raise OutputError(
            f"{spec.path} cannot be written with the options [{spec.options}] "
            f"({first_line(error)}): check them in libvips' documentation of its {spec.format.name} "
            "saver."
        ) from None


def _check_data(spec: OutputSpec, image: ImageInfo) -> None:
    """Refuse what is made for pictures where there are other bands too."""
    options = dict(_pairs(spec))
    for option in ("compression=jpeg", "compression=webp", "compression=jp2k", "miniswhite"):
        name, _, value = option.partition("=")
        asked = name in options and options[name] not in ("false", "no", "0")
        if asked and value in ("", options[name]) and (image.others or not image.is_picture):
            raise OutputError(
                f"{spec.path} has {image.bands} bands ({image.kind}), and {option} is for grey or RGB: "
                "leave it out."
            )


def _slope(image: ImageInfo) -> Any:
    """From black at the left to white at the right, half transparent where there is alpha."""
    dtype = np.dtype(image.numpy_dtype)
    line = np.linspace(*limits(image.dtype), _SIDE_PX).astype(dtype)
    pixels = np.repeat(line[:, np.newaxis], image.bands, axis=1)
    if image.alpha_band is not None:
        pixels[:, image.alpha_band] = line[_SIDE_PX // 2]
    data = np.repeat(pixels[np.newaxis], _SIDE_PX, axis=0).tobytes()
    format_ = FORMATS[image.dtype]
    slope = pyvips.Image.new_from_memory(data, _SIDE_PX, _SIDE_PX, image.bands, format_)
    return slope.copy(interpretation=interpretation(image))


def _check_stored(spec: OutputSpec, image: ImageInfo, saved: Any, stored: Any) -> None:
    """Refuse what is not stored as it is."""
    if stored.format != saved.format:
        found = DTYPES.get(stored.format, stored.format)
        depth = {"uint8": "; for these, say --depth 8", "uint16": "; for these, say --depth 16"}
        raise OutputError(
            f"{spec.path} would have {found} samples with the options [{spec.options}], and not "
            f"{image.dtype} as they are: use other options{depth.get(found, '')}."
        )
    # WebP has no grey.
    as_color = stored.bands == saved.bands + 2 and image.content == "grey"
    if stored.bands != saved.bands and not as_color:
        lost = "without alpha: " if image.has_alpha else ""
        raise OutputError(
            f"{spec.path} would have {stored.bands} of {saved.bands} bands with the options "
            f"[{spec.options}], {lost}use other options."
        )
    if (stored.width, stored.height) != (saved.width, saved.height):
        raise OutputError(
            f"{spec.path} would be cut into pages with the options [{spec.options}]: use others."
        )
    asked = {"bitdepth", "palette"} & {name for name, _ in _pairs(spec)}
    if as_color or asked:
        return
    size = _SIDE_PX, _SIDE_PX, saved.bands
    before, after = (i.numpy().reshape(size).astype(np.float64) for i in (saved, stored))
    if np.abs(after - before).mean() > _MAX_ERROR * np.ptp(before):
        raise OutputError(
            f"{spec.path} would hold other values with the options [{spec.options}]: use others."
        )


def _pairs(spec: OutputSpec) -> list[tuple[str, str]]:
    """The options as they stand there, by libvips' names."""
    split = (option.partition("=") for option in re.split(r",(?![^\[]*\])", spec.options))
    return [
        (name.strip().replace("-", "_"), value.strip()) for name, _, value in split if name.strip()
    ]


def _check_values(spec: OutputSpec) -> None:
    """Refuse options that a saver does not have, and values that it does not take."""
    pairs = _pairs(spec)
    saver = find_saver(spec.vips_format.partition("[")[0])
    known = [name for name in saver_arguments(saver) if name not in _NOT_OPTIONS]
    for number, (name, value) in enumerate(pairs):
        if name not in known:
            near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], 1)
            meant = [k for k in known if k.lower() in near]
            hint = f"did you mean {meant[0]}?" if meant else f"it takes {', '.join(known)}."
            raise OutputError(
                f"{spec.path} cannot be written with the option {name!r}, which libvips' {saver} "
                f"does not have: {hint}"
            )
        if name in dict(pairs[:number]):
            raise OutputError(f"{spec.path} has the option {name} twice: say it once.")
        wanted = _fault(saver, name, value)
        if wanted is not None:
            raise OutputError(
                f"{spec.path} cannot be written with {name}={value}: it must be {wanted}."
            )
    options = dict(pairs)
    if options.get("compression") == "deflate" and int(options.get("level", 0)) > _MAX_DEFLATE:
        raise OutputError(
            f"{spec.path} cannot be written with level={options['level']}: with deflate, it must be a "
            f"whole number from 0 to {_MAX_DEFLATE}."
        )
    width = int(options.get("tile_width", 0))
    height = int(options.get("tile_height", 0))
    if width * height * 4 > _MAX_TILE_BYTES:
        raise OutputError(f"{spec.path} cannot have tiles of {width}x{height}: use smaller ones.")
    if spec.format.name == "DeepZoom" and "suffix" in options:
        _check_values(parse_output(f"{spec.path}{options['suffix']}"))


def saver_arguments(saver: str) -> dict[str, Any]:
    """All arguments of a saver, by name, those that are no longer advised too."""
    arguments: dict[str, Any] = pyvips.Introspect.get(saver).details
    return arguments


def _fault(saver: str, name: str, value: str) -> str | None:
    """What a value must be that it is not; None: it is all right, or libvips tells."""
    kind = saver_arguments(saver)[name]["type"]
    if kind == pyvips.GValue.gbool_type:
        return None if value.lower() in _BOOLEANS else "true or false"
    if kind not in (pyvips.GValue.gint_type, pyvips.GValue.gdouble_type):
        return None
    whole = kind == pyvips.GValue.gint_type
    lowest, highest = value_range(saver, name, whole=whole)
    wanted = f"a {'whole ' if whole else ''}number from {lowest:g} to {highest:g}"
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        return wanted
    return None if lowest <= number <= highest else wanted


def value_range(saver: str, name: str, *, whole: bool) -> tuple[float, float]:
    """The smallest and largest number that a saver takes for an argument."""
    operation = pyvips.Operation.new_from_name(saver)
    address = int(ffi.cast("uintptr_t", operation._get_pspec(name)))
    spec = (_IntSpec if whole else _DoubleSpec).from_address(address)
    return spec.lowest, spec.highest
