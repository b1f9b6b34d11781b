"""Measures on this machine what a node takes."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyvips
from benchmarks.pictures import default_pictures, picture_of
from benchmarks.weights import model_file

import srpipe
from srpipe.io.zarr_saver import save_zarr
from srpipe.plan.output import parse_output

from .facts import Node

_PICTURE_MP = 64.0


def measure(name: str, model: str) -> Node:
    """Run a model on a photograph, and save the result in the ways that count.

    Args:
        name: of the node.
        model: in the box, or a file.
    """
    with TemporaryDirectory(prefix="srpipe-simulate-") as place:
        folder = Path(place)
        source = picture_of(default_pictures(), _PICTURE_MP, _PICTURE_MP, folder)
        file, output = model_file(model, folder), folder / "out.tif"
        srpipe.enhance(source, output, model=file, engine="local")  # what is measured once is kept
        seen: list[tuple[float, int]] = []
        begin_s = time.monotonic()
        report = srpipe.enhance(
            source, output, model=file, engine="local", overwrite=True,
            progress=lambda event: seen.append((time.monotonic() - begin_s, event.tiles_done)),
        )  # fmt: skip
        blended = [(at_s, tiles) for at_s, tiles in seen if tiles]
        columns = -(-report.input_size.width // report.stride.width)
        per_row = blended[::columns]
        tile_s = [
            (b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(per_row) if b[1] > a[1]
        ]
        image: Any = pyvips.Image.new_from_file(str(output)).copy_memory()
        megapixels = image.width * image.height / 1e6
        strips = f"{folder}/strips.tif"
        image.write_to_file(strips, compression="deflate", predictor="horizontal", level=1)
        return Node(
            name=name,
            tile_s=tuple(round(seconds, 5) for seconds in tile_s),
            start_s=round(blended[0][0], 2),
            tile_px=report.tile.width,
            overlap_px=report.tile.width - report.stride.width,
            scale=report.output_size.width // report.input_size.width,
            encode_mp_s=round(megapixels / _seconds(image.write_to_file, str(folder / "a.png")), 1),
            halve_mp_s=round(megapixels / _halving_s(image, folder), 1),
            input_bytes_px=round(os.path.getsize(output) / megapixels / 1e6, 2),
            output_bytes_px=round(os.path.getsize(output) / megapixels / 1e6, 2),
            decode_mp_s=round(megapixels / _seconds(_decode, strips), 1),
        )


def _seconds(function: Any, *arguments: Any) -> float:
    begin_s = time.monotonic()
    function(*arguments)
    return time.monotonic() - begin_s


def _halving_s(image: Any, folder: Path) -> float:
    """What a level of a Zarr takes that is made of another."""
    seconds = []
    for levels in (1, 2):
        spec = parse_output(f"{folder}/{levels}.zarr[levels={levels}]")
        seconds.append(_seconds(save_zarr, image, spec, spec.path))
    return max(seconds[1] - seconds[0], 1e-3)


def _decode(path: str) -> None:
    pyvips.Image.new_from_file(path, access="sequential").avg()
