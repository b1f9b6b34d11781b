"""Turns a model of another kind, or one of fixed sizes, into one that srpipe runs at its best.

What is written is run beside its source before it gets its name: a conversion that changes the result
is an error, never a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from srpipe.errors import ModelError, OutputError
from srpipe.forks import note_work
from srpipe.io.binding import Tensor
from srpipe.io.model_probe import probe_model
from srpipe.models.graph import check_target, save_graph
from srpipe.models.half import check_half_range, to_half
from srpipe.models.sources import open_source
from srpipe.models.tlc import localise_pooling
from srpipe.models.verify import Runner, check_batch, largest_difference, span_of
from srpipe.plan.model_info import ModelInfo

# Shares of the result's own range that a conversion may change.
_MOST_CHANGE = 1e-3
_MOST_CHANGE_HALF = 1e-2


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
    """The largest between a batch of three and its tiles one by one, as a share of the range."""
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
    note_work()
    path = check_target(target, overwrite=overwrite)
    found = open_source(Path(source), None if weights is None else Path(weights))
    tile, done = found.tile(), list(found.done)
    check = _Check(found.run(tile) if not found.why_not_run else None, tile)
    model = found.model
    check.same(model, _MOST_CHANGE)
    if tlc_px is not None:
        model = localise_pooling(model, tlc_px)
        done.append(f"global pooling made local, over {tlc_px} input pixels")
        if tlc_px < max(tile.shape):  # it does something else now, on this tile
            check = check.anew(model)
    if fp16:
        check_half_range(model, tile)
        model = to_half(model)
        done.append("weights and arithmetic in float16, input and output in float32")
    with _folder_beside(path) as folder:
        unnamed = folder / path.name
        save_graph(model, unnamed)
        check.same(unnamed, _MOST_CHANGE_HALF if fp16 else _MOST_CHANGE)
        batch_difference = check_batch(unnamed)
        info = replace(probe_model(unnamed), path=os.fspath(target))
        if info.batch is not None or not batch_difference <= _MOST_CHANGE:
            raise ModelError(
                "the converted model does not treat the tiles of a batch alike: they differ by "
                f"{batch_difference:.2g} of the range from the same tiles one by one; nothing was "
                "written."
            )
        _move(unnamed, path)
    return Conversion(
        source=os.fspath(source),
        target=os.fspath(target),
        kind=found.kind,
        done=tuple(done),
        tile_shape=tile.shape,
        difference=None if found.why_not_run else check.difference,
        not_compared=found.why_not_run,
        batch_difference=batch_difference,
        info=info,
        file_bytes=path.stat().st_size,
    )


class _Check:
    """What a model has to give on a tile."""

    def __init__(self, expected: Tensor | None, tile: Tensor) -> None:
        """``expected`` None: whatever is checked first gives it."""
        self._expected, self._tile = expected, tile
        self.difference = 0.0
        """The largest so far."""

    def same(self, model: onnx.ModelProto | Path, most: float) -> None:
        """Run a model.

        Raises:
            ModelError: it gives something else.
        """
        runner = Runner(model if isinstance(model, Path) else model.SerializeToString())
        result = runner.run(self._tile)
        if self._expected is None:
            self._expected = result
        self.difference = max(self.difference, compare(self._expected, result, most))

    def anew(self, model: onnx.ModelProto) -> _Check:
        """From here on another function is expected."""
        check = _Check(Runner(model.SerializeToString()).run(self._tile), self._tile)
        check.difference = self.difference
        return check


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk, gone at the end, so that the file in it can have its own name."""
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=".srpipe-", dir=path.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise _not_written(path, error) from None
    with folder as name:
        yield Path(name)


def _move(source: Path, target: Path) -> None:
    try:
        if target.exists():
            shutil.copymode(target, source)
        os.replace(source, target)
    except OSError as error:
        raise _not_written(target, error) from None


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written ({error.strerror}): check the folder and its permissions."
    )


def compare(expected: Tensor, result: Tensor, most: float) -> float:
    """The largest difference as a share of the range of what is expected.

    Raises:
        ModelError: it is larger than ``most``, or the shapes differ.
    """
    difference = largest_difference(result, expected) / span_of(expected)
    if not difference <= most:
        raise ModelError(
            "the converted model does not do what its source does: on a tile, results of "
            f"{list(result.shape)} and {list(expected.shape)} differ by {difference:.2g} of the "
            f"range, and {most:g} is the most: nothing was written."
        )
    return difference
