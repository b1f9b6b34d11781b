"""Arrays through the pipeline: by way of uncompressed files, which nobody sees."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.api import PathLike, enhance
from srpipe.errors import InputError, SettingsError
from srpipe.forks import note_work
from srpipe.io.vips import pyvips

_SPACES = {
    ("uint8", False): "b-w",
    ("uint8", True): "srgb",
    ("uint16", False): "grey16",
    ("uint16", True): "rgb16",
}
_OWN_SETTINGS = ("job_dir", "overwrite", "fresh")


def enhance_array(array: npt.ArrayLike, **settings: Any) -> npt.NDArray[Any]:
    """Enhance an array of pixels.

    A run that is interrupted leaves nothing to go on from: use files for what takes long.

    Args:
        array: (height, width) or (height, width, bands), uint8 or uint16. Two bands are grey and alpha,
            four are RGB and alpha; other numbers than 1 to 4 are data, for a model of as many channels.
        settings: as :func:`srpipe.enhance` takes them.

    Returns:
        An array of the same kind, its height and width times the model's scale.

    Raises:
        InputError: it is no such array.
        RequestError, RunError, Interrupted: as :func:`srpipe.enhance`.
    """
    return through_files(array, enhance, settings)


def through_files(
    array: npt.ArrayLike, enhance_files: Callable[..., Any], settings: dict[str, Any]
) -> npt.NDArray[Any]:
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
    pixels = _as_pixels(array)
    with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
        source, target = Path(folder, "in.tif"), Path(folder, "out.tif")
        _write(pixels, source)
        enhance_files(source, f"{target}[compression=none]", **settings)
        result = _read(target)
    return result[..., 0] if np.ndim(array) == 2 else result


def _as_pixels(array: npt.ArrayLike) -> npt.NDArray[Any]:
    pixels = np.asarray(array)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(
            f"the array has the shape {pixels.shape}: it must be (height, width) or (height, width, "
            "bands)."
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"the array is of {pixels.dtype}: it must be of uint8 or uint16.")
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))


def _write(pixels: npt.NDArray[Any], path: Path) -> None:
    height, width, bands = pixels.shape
    image = pyvips.Image.new_from_memory(
        pixels.data, width, height, bands,
        "uchar" if pixels.dtype == np.uint8 else "ushort",
    )  # fmt: skip
    space = _SPACES[pixels.dtype.name, bands in (3, 4)] if bands <= 4 else "multiband"
    image.copy(interpretation=space).tiffsave(str(path), bigtiff=True)


def _read(path: PathLike) -> npt.NDArray[Any]:
    image = pyvips.Image.new_from_file(str(path))
    result: npt.NDArray[Any] = image.numpy()
    return result.reshape(image.height, image.width, image.bands)
