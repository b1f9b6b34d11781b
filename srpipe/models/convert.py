"""Turns a model of another kind, or one of fixed sizes, into one that srpipe runs at its best.

What is written is run beside its source before it gets its name: a conversion that changes the result
is an error, never a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srpipe.errors import ModelError, OutputError
from srpipe.io.binding import Tensor
from srpipe.io.model_probe import probe_model
from srpipe.models.graph import save_graph
from srpipe.models.half import to_half
from srpipe.models.sources import open_source
from srpipe.models.tlc import localise_pooling
from srpipe.models.verify import Runner, check_batch, largest_difference
from srpipe.plan.model_info import ModelInfo

# Shares of the result's own range that a conversion may change.
_MOST_CHANGE = 1e-3
_MOST_CHANGE_HALF = 3e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion did, and how well its result agrees with the source."""

    source: str
    target: str
    kind: str
    """Of the source: ONNX, ncnn or PyTorch."""
    done: tuple[str, ...]
    """A line for each thing that was done."""
    tile_shape: tuple[int, ...]
    """Of the tile that both were run on, in the model's own layout."""
    difference: float | None
    """The largest between their results, as a share of the source's range; None: not compared."""
    not_compared: str
    """Why not; empty if compared."""
    batch_difference: float
    """The largest between a batch of three and its tiles one by one, in the model's own numbers."""
    info: ModelInfo
    """What srpipe sees in the target."""
    file_bytes: int


def convert_model(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    tlc_px: int | None = None,
    fp16: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Convert a model to ONNX with a free batch, and height and width where its graph allows.

    Args:
        source: an .onnx file of any fixed size, ncnn's .param, or PyTorch's .pth, .pt, .safetensors.
        target: the .onnx file to write.
        weights: ncnn's .bin, if it is not called like the .param.
        tlc_px: make global pooling local: means over a window of so many input pixels.
        fp16: weights and inner arithmetic in float16; inputs and outputs stay float32.
        overwrite: replace ``target`` if it exists.

    Raises:
        ModelError: the source is missing, damaged or of no kind that can be converted (the message
            names the node or layer in the way), or the result does not do what the source does.
        OutputError: the target exists or cannot be written.
    """
    path = check_target(target, overwrite=overwrite)
    found = open_source(Path(source), None if weights is None else Path(weights))
    model, done = found.model, list(found.done)
    if tlc_px is not None:
        model = localise_pooling(model, tlc_px)
        done.append(f"global pooling made local, over {tlc_px} input pixels")
    if fp16:
        model = to_half(model)
        done.append("weights and arithmetic in float16, input and output in float32")
    unnamed = path.with_name(f".{path.stem}.unchecked.onnx")
    try:
        save_graph(model, unnamed)
        tile = found.tile()
        not_compared = found.why_not_run
        if tlc_px is not None and tlc_px < max(tile.shape):
            not_compared = not_compared or "its local means are over less than the tile"
        difference = None
        if not not_compared:
            most = _MOST_CHANGE_HALF if fp16 else _MOST_CHANGE
            difference = compare(found.run(tile), Runner(unnamed).run(tile), most)
        batch_difference = check_batch(unnamed)
        info = probe_model(unnamed)
        os.replace(unnamed, path)
    finally:
        unnamed.unlink(missing_ok=True)
    return Conversion(
        source=os.fspath(source),
        target=os.fspath(target),
        kind=found.kind,
        done=tuple(done),
        tile_shape=tile.shape,
        difference=difference,
        not_compared=not_compared,
        batch_difference=batch_difference,
        info=info,
        file_bytes=path.stat().st_size,
    )


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The path of a model to write.

    Raises:
        OutputError: no .onnx name, no folder, or it exists and ``overwrite`` is not given.
    """
    path = Path(target)
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"{path} must end in .onnx: that is what is written.")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: name another file, or replace it with --overwrite.")
    return path


def compare(expected: Tensor, result: Tensor, most: float) -> float:
    """The largest difference as a share of what is expected.

    Raises:
        ModelError: it is larger than ``most``, or the shapes differ.
    """
    difference = largest_difference(result, expected) / max(float(np.ptp(expected)), 1e-6)
    if not difference <= most:
        raise ModelError(
            "the converted model does not do what its source does: on a tile, results of "
            f"{list(result.shape)} and {list(expected.shape)} differ by {difference:.2g} of the "
            f"range, and {most:g} is the most: nothing was written."
        )
    return difference
