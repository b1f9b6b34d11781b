"""Arrays through the pipeline: by way of uncompressed files, which nobody sees."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from srpipe.api import enhance
from srpipe.errors import InputError, SettingsError, SrpipeError
from srpipe.forks import note_work
from srpipe.plan.nodata import converted_value
from srpipe.plan.pixels import PixelDtype

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_TYPES = ("uint8", "uint16", "int16", "float32")
_OWN_SETTINGS = ("job_dir", "overwrite", "fresh")
_ALPHA = 2  # of TIFF's ExtraSamples: not premultiplied
_KEPT = r" \d+ of \d+ tiles are kept in [^:]*: repeat the command to go on\."


def enhance_array(
    array: npt.ArrayLike, *, mask: npt.ArrayLike | None = None, **settings: Any
) -> Array:
    """Enhance an array of pixels.

    A run that is interrupted leaves nothing to go on from: use files for what takes long.

    Args:
        array: (height, width) or (height, width, bands), of uint8, uint16, int16 or float32, in any
            byte order and layout; other floats are computed as float32. Two bands are grey and alpha,
            four are RGB and alpha; other numbers than 1 to 4 are data, for a model of as many channels.
            What is masked in a :class:`numpy.ma.MaskedArray` means no data.
        mask: as for :func:`srpipe.enhance`, or an array.
        settings: as :func:`srpipe.enhance` takes them.

    Returns:
        An array of the same kind, its height and width times the model's scale.

    Raises:
        InputError: it is no such array.
        RequestError, RunError, Interrupted: as :func:`srpipe.enhance`.
    """
    return through_files(array, enhance, settings | ({} if mask is None else {"mask": mask}))


def through_files(
    array: npt.ArrayLike, enhance_files: Callable[..., Any], settings: dict[str, Any]
) -> Array:
    """Write an array to a file, enhance that, and read the result.

    Args:
        array: as :func:`enhance_array` takes it.
        enhance_files: called with two paths and the settings.
        settings: of the caller's.
    """
    for name in _OWN_SETTINGS:
        if name in settings:
            raise SettingsError(f"{name} is for files: leave it out for an array.")
    note_work()
    pixels, nodata = _as_pixels(array, settings)
    with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
        names = {name: os.path.join(folder, f"{name}.tif") for name in ("input", "output", "mask")}
        with _unnamed(folder, names):
            _write(pixels, names["input"])
            mask = settings.get("mask")
            if mask is not None and not isinstance(mask, str | os.PathLike):
                _write(_as_mask(mask), names["mask"])
                settings = settings | {"mask": names["mask"]}
            if nodata is not None:
                settings = settings | {"nodata": nodata}
            enhance_files(names["input"], f"{names['output']}[compression=none]", **settings)
            result = _read(names["output"])
    if isinstance(array, np.ma.MaskedArray):
        if nodata is not None:
            before, after = (cast(PixelDtype, a.dtype.name) for a in (pixels, result))
            nodata = converted_value(nodata, before, after)
        result = _masked(result, nodata, array.fill_value)
    return result[..., 0] if np.ndim(array) == 2 else result


def _as_pixels(array: npt.ArrayLike, settings: dict[str, Any]) -> tuple[Array, Any]:
    """(height, width, bands) of a type that is worked on, and the value that means no data."""
    pixels: Array = np.ma.getdata(array)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(
            f"the array has the shape {pixels.shape}: it must be (height, width) or (height, width, "
            "bands)."
        )
    masked = None
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        masked = np.ma.getmaskarray(array)
    dtype = pixels.dtype.newbyteorder("=")
    if dtype in (np.float16, np.float64):
        logger.warning("The array is of %s: it is computed, and returned, as float32.", dtype)
        valid = pixels[np.isfinite(pixels) if masked is None else np.isfinite(pixels) & ~masked]
        if np.abs(valid).max(initial=0) > np.finfo(np.float32).max:
            raise InputError("the array holds numbers that float32 does not: scale them.")
        dtype = np.dtype(np.float32)
    if dtype.name not in _TYPES:
        how = (
            "array.astype(np.uint8) * 255" if dtype.kind == "b" else "astype(), scaled to its range"
        )
        raise InputError(
            f"the array is of {dtype}: it must be of {', '.join(_TYPES[:-1])} or {_TYPES[-1]} ({how})."
        )
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1), dtype=dtype)
    if masked is None:
        return pixels, None
    bands = pixels.shape[2]
    colors = {2: 1, 4: 3}.get(bands, bands)
    masked = masked.reshape(pixels.shape)[..., :colors]
    if colors in (1, 3):  # a picture's pixel is whole, or empty
        masked = np.broadcast_to(masked.any(axis=-1, keepdims=True), masked.shape)
    value = settings.get("nodata")
    if value is None or value == "none":
        if dtype != np.float32:
            value = _unused(pixels[..., :colors], masked, together=colors == 3)
        else:  # NaN, unless it becomes integers
            value = None if settings.get("depth") is None else float(np.finfo(dtype).min)
    pixels = pixels.copy()
    pixels[..., :colors][masked] = np.nan if value is None else value
    return pixels, value


def _unused(colors: Array, masked: Array, *, together: bool) -> int:
    """A value of integers that no valid sample has, or where three make a color, no valid pixel."""
    limits = np.iinfo(colors.dtype)
    if together:
        grey = (colors == colors[..., :1]).all(axis=-1) & ~masked[..., 0]
        valid = colors[grey][:, 0]
    else:
        valid = colors[~masked]
    used = np.zeros(limits.max - limits.min + 1, bool)
    used[valid.astype(np.int64) - limits.min] = True
    for value in (limits.min, limits.max):
        if not used[value - limits.min]:
            return int(value)
    if used.all():
        raise InputError(
            f"the masked array uses all values of {colors.dtype}, and none is left that could mean no "
            "data: give it as a larger type, such as float32."
        )
    return int(np.flatnonzero(~used)[0]) + int(limits.min)


def _masked(result: Array, nodata: Any, fill_value: Any) -> Array:
    """A result with what means no data masked."""
    colors = result[..., : {2: 1, 4: 3}.get(result.shape[2], result.shape[2])]
    holes = np.zeros(result.shape, bool)
    if nodata is not None:
        found = colors == nodata
        if colors.shape[2] == 3:
            found = np.broadcast_to(found.all(axis=-1, keepdims=True), found.shape)
        holes[..., : colors.shape[2]] = found
    elif result.dtype.kind == "f":
        holes = ~np.isfinite(result)
    masked = np.ma.MaskedArray(result, holes if holes.any() else np.ma.nomask)
    if result.dtype == np.asarray(fill_value).dtype.newbyteorder("="):
        masked.fill_value = fill_value
    return masked


def _as_mask(mask: npt.ArrayLike) -> Array:
    """A mask as a type that files hold; what is masked in it is black."""
    values = np.ma.filled(mask, 0)
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "buif":
        raise InputError(
            f"the mask has the shape {values.shape} and is of {values.dtype}: it must be (height, "
            "width), of booleans or numbers."
        )
    dtype = values.dtype.newbyteorder("=")
    if dtype.kind == "b":
        return values * np.uint8(255)
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif dtype.itemsize > 2:
        values, dtype = np.clip(values, 0, 2**31 - 1), np.dtype(np.int32)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=dtype)


def _write(pixels: Array, path: str) -> None:
    import tifffile  # only TIFFs need it

    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    extra = [_ALPHA] if bands in (2, 4) else [0] * (bands - 1) if bands > 4 else None
    tifffile.imwrite(
        path, pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels, bigtiff=True, metadata=None,
        photometric="rgb" if bands in (3, 4) else "minisblack", planarconfig="contig",
        extrasamples=extra,
    )  # fmt: skip


def _read(path: str) -> Array:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.asarray().reshape(page.imagelength, page.imagewidth, -1)


@contextlib.contextmanager
def _unnamed(folder: str, names: dict[str, str]) -> Iterator[None]:
    """Keep the files' names out of errors and of what is logged."""

    def speak(text: str) -> str:
        text = re.sub(_KEPT, "", text)
        text = text.replace(f"the mask {names['mask']}", "the mask")
        text = text.replace(names["input"], "the array").replace(names["output"], "the result")
        return text.replace(folder, os.path.dirname(folder))

    def rewrite(record: logging.LogRecord) -> bool:
        if folder in (said := record.getMessage()):
            record.msg, record.args = speak(said), ()
        return True

    loggers = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name[:6] == "srpipe"
    ]
    for one in loggers:
        one.addFilter(rewrite)
    try:
        yield
    except SrpipeError as error:
        error.args = (speak(str(error)),)
        raise
    finally:
        for one in loggers:
            one.removeFilter(rewrite)
