"""Joins OME-Zarrs that hold bands of rows of one image, by moving their chunks.

A chunk is a file, and a row of chunks a folder: where each part's rows are whole rows of chunks, of the
largest levels at least, these folders are those of the whole under other numbers. The levels below are
made of the smallest that the parts have. Whatever ends it, it may be done again: a row that is no more
in its part is in its place, or was never written, as chunks are that hold nothing but zeros.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import WriteError
from srpipe.io import disk
from srpipe.io.zarr_saver import (
    Level,
    ZarrOptions,
    chain,
    codecs,
    create_arrays,
    halve,
    has_alpha,
    level_sizes,
    zarr_package,
)
from srpipe.plan.geometry import Size
from srpipe.plan.nodata import NoData
from srpipe.plan.output import OutputSpec
from srpipe.plan.pixels import PixelDtype

_METADATA = "zarr.json"
# In a part: rows of it may have been moved.
_MOVED = "moved"


def join_zarrs(
    parts: Sequence[str],
    path: str,
    spec: OutputSpec,
    *,
    no_data: NoData | None = None,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Join Zarrs, from top to bottom; their chunks are moved, not copied.

    Args:
        parts: made by :func:`srpipe.io.zarr_saver.save_zarr`, of one width and as many levels each, on
            the file system of ``path``. The height of all but the last is a multiple of a chunk of
            their smallest level.
        path: the folder to make, or to go on with.
        spec: of the whole, with its options.
        no_data: what is empty in the image; None: nothing is.
        beat: called now and then.

    Raises:
        WriteError: a part does not fit to the others, or ``path`` is gone after rows were moved there.
        OSError: a file cannot be moved or written.
    """
    opened = [_open(part) for part in parts]
    options, first = ZarrOptions.parse(spec), opened[0]
    heights = [levels[0].shape[1] for levels in opened]
    for part, levels in zip(parts, opened, strict=True):
        _check(part, levels, first, options, last=part == parts[-1])
    bands, _, width = first[0].shape
    size, dtype = Size(width, sum(heights)), first[0].dtype.name
    if len(first) > len(level_sizes(size, options)):
        raise WriteError(
            f"{parts[0]} has {len(first)} levels, more than the whole: remove it, and compute it again."
        )
    arrays = _create(path, size, bands, dtype, options, parts, no_data)
    top = 0
    for part, levels in zip(parts, opened, strict=True):
        disk.write_file(Path(part, _MOVED), b"")
        for level, array in enumerate(levels):
            row = (top >> level) // options.chunk_px
            rows = -(-array.shape[1] // options.chunk_px)
            _move(Path(part, str(level), "c", "0"), Path(path, str(level), "c", "0"), rows, row)
        top += levels[0].shape[1]
        beat()
    alpha = has_alpha(bands, _colours(path))
    _make_levels(arrays, len(first), options.chunk_px, alpha, no_data, beat)


def _open(part: str, mode: str = "r") -> list[Any]:
    """The arrays of a Zarr, the largest first."""
    try:
        group = zarr_package().open_group(part, mode=mode)
        n_levels = len(group.attrs["ome"]["multiscales"][0]["datasets"])
        return [group[str(level)] for level in range(n_levels)]
    except (FileNotFoundError, KeyError, ValueError):
        raise WriteError(
            f"{part} is no whole Zarr of srpipe's: remove it, and compute it again."
        ) from None


def _check(
    part: str, levels: list[Any], first: list[Any], options: ZarrOptions, *, last: bool
) -> None:
    array, like = levels[0], first[0]
    chunk_px = options.chunk_px
    alike = (
        (len(levels), array.dtype, array.shape[0], array.shape[2])
        == (len(first), like.dtype, like.shape[0], like.shape[2])
        and array.chunks == (array.shape[0], chunk_px, chunk_px)
        and [*map(type, array.compressors)] == [*map(type, codecs(options))]
    )  # fmt: skip
    if not alike or (not last and array.shape[1] % (chunk_px << (len(levels) - 1))):
        raise WriteError(
            f"{part} does not fit to the other parts, or its rows are no whole rows of chunks: remove "
            "it, and compute it again."
        )


def _create(
    path: str,
    size: Size,
    bands: int,
    dtype: PixelDtype,
    options: ZarrOptions,
    parts: Sequence[str],
    no_data: NoData | None,
) -> list[Any]:
    """The arrays of the whole; its metadata are written before the first row is moved."""
    try:
        begun = "ome" in json.loads(Path(path, _METADATA).read_bytes())["attributes"]
    except (OSError, ValueError, KeyError):
        begun = False
    if begun:
        arrays = _open(path, "r+")
        shapes = [(bands, level.height, level.width) for level in level_sizes(size, options)]
        if [array.shape for array in arrays] == shapes:
            return arrays
    # What is missing in them would be taken for black.
    if any(Path(part, _MOVED).exists() for part in parts):
        raise WriteError(
            f"{path} is gone or damaged, and rows of the parts had been moved there: start over with "
            "--fresh."
        )
    nodata = no_data.value if no_data is not None else None
    arrays = create_arrays(path, size, bands, dtype, options, _colours(parts[0]), nodata)
    # After a power cut, a Zarr without metadata would be made anew, and rows that it has be lost.
    disk.sync_file(Path(path))
    return arrays


def _colours(path: str) -> int:
    """How many colours a Zarr says that it has."""
    ome = zarr_package().open_group(path, mode="r").attrs["ome"]
    channels = ome.get("omero", {}).get("channels", [])
    return sum(channel["label"] != "alpha" for channel in channels)


def _move(source: Path, target: Path, rows: int, first: int) -> None:
    """Move rows of chunks that are still in a part."""
    target.mkdir(parents=True, exist_ok=True)
    for row in range(rows):
        place = source / str(row)
        if place.exists():
            disk.remove(target / str(first + row))
            os.rename(place, target / str(first + row))


def _make_levels(
    arrays: list[Any],
    there: int,
    chunk_px: int,
    alpha: bool,
    no_data: NoData | None,
    beat: Callable[[], None],
) -> None:
    """Make the levels that parts do not have, of the last that they have."""
    if there == len(arrays):
        return
    above = arrays[there - 1]
    levels = [Level(array, chunk_px, alpha=alpha, no_data=no_data) for array in arrays[there:]]
    below = chain(levels)[0]
    for top in range(0, above.shape[1], chunk_px):
        halves = []
        for left in range(0, above.shape[2], chunk_px):
            chunk = above[:, top : top + chunk_px, left : left + chunk_px]
            halves.append(halve(chunk.transpose(1, 2, 0), alpha=alpha, no_data=no_data))
        below.add(np.concatenate(halves, axis=1))
        beat()
