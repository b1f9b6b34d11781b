"""Lets a model's inner tensors be seen while it runs on tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.models.graph import save_graph

# Tensors looked at together: some tens of megabytes at usual tile sizes.
_TOGETHER = 32


def look_inside(
    model: onnx.ModelProto,
    names: Sequence[str],
    tiles: Sequence[Tensor],
    threads: int,
    see: Callable[[str, Tensor], None],
) -> None:
    """Run ``model`` on each tile, and show what some of its tensors hold.

    Args:
        model: with one input.
        names: float tensors of four dimensions, the input among them or not.
        tiles: batches for the input.
        threads: cores to use.
        see: called with a name and the first entry of its batch, (channels, height, width).

    Raises:
        InferenceError: the model failed.
    """
    source = model.graph.input[0].name
    inner = [name for name in names if name != source]
    if source in names:
        for tile in tiles:
            see(source, tile[0])
    with TemporaryDirectory(prefix="srpipe-") as folder:
        for first in range(0, len(inner), _TOGETHER):
            some = inner[first : first + _TOGETHER]
            session = Session(str(_open(model, some, Path(folder))), "cpu", threads)
            for tile in tiles:
                for name, values in zip(some, session.run_several(source, some, tile), strict=True):
                    see(name, values[0])


def _open(model: onnx.ModelProto, names: list[str], folder: Path) -> Path:
    """Save ``model`` with other outputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    path = folder / "opened.onnx"
    save_graph(opened, path)
    return path
