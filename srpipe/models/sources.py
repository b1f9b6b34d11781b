"""The kinds of model that can be converted: each becomes a graph, and can be run as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.model_sidecar import complete_metadata
from srpipe.models.dynamic_shapes import make_dynamic
from srpipe.models.graph import add_metadata, load_graph, metadata_of
from srpipe.models.ncnn.convert import convert_ncnn
from srpipe.models.ncnn.engine import has_ncnn, run_ncnn
from srpipe.models.pytorch.export import export_torch
from srpipe.models.pytorch.load import TORCH_SUFFIXES, load_torch
from srpipe.models.verify import Runner, noise
from srpipe.plan.geometry import round_up

_TILE_PX = 64
_SUFFIXES = ", ".join((".onnx", ".param (with its .bin)", *TORCH_SUFFIXES))


class Source(Protocol):
    """A model as its author published it."""

    kind: str
    """What it is, for people."""
    model: onnx.ModelProto
    """The same as a graph, with a free batch."""
    done: tuple[str, ...]
    """What was done to get there, a line each."""
    why_not_run: str
    """Why :meth:`run` cannot be called; empty if it can."""

    def tile(self) -> Tensor:
        """A batch of noise that source and graph both take, in the model's own layout."""

    def run(self, tile: Tensor) -> Tensor:
        """What the source itself makes of it.

        Raises:
            ModelError: it fails.
        """


def open_source(path: Path, weights: Path | None = None) -> Source:
    """Read a model of any kind.

    Args:
        path: .onnx, ncnn's .param, .pth, .pt or .safetensors.
        weights: ncnn's .bin, if it is not called like the .param.

    Raises:
        ModelError: unknown kind, damaged, or it cannot be converted.
    """
    suffix = path.suffix.lower()
    if weights is not None and suffix != ".param":
        raise ModelError(f"{weights} goes with an ncnn .param file, not with {path}: leave it out.")
    if suffix == ".onnx":
        return OnnxSource(path)
    if suffix == ".param":
        return NcnnSource(path, weights or path.with_suffix(".bin"))
    if suffix == ".bin" and path.with_suffix(".param").is_file():
        return NcnnSource(path.with_suffix(".param"), path)
    if suffix in TORCH_SUFFIXES:
        return TorchSource(path)
    raise ModelError(f"{path} is of no kind that srpipe converts: use one of {_SUFFIXES}.")


class OnnxSource:
    """An .onnx file whose batch, height or width may be fixed."""

    kind = "ONNX"
    why_not_run = ""

    def __init__(self, path: Path) -> None:
        self._runner = Runner(path)  # ONNX Runtime refuses what is damaged
        self._range = self._runner.value_range()
        graph = load_graph(path)
        keep_output(graph, self._runner.image_output())
        try:
            freed = make_dynamic(graph)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        self.model = freed.model
        told = complete_metadata(str(path), metadata_of(graph))
        add_metadata(self.model, {k: v for k, v in told.items() if k != "scale_hint"})
        done = [f"batch{', height and width' if freed.size else ''} free"]
        if freed.rewritten:
            done.append(f"rewritten: {', '.join(freed.rewritten)}")
        if freed.reason:
            done.append(f"height and width stay fixed: {freed.reason}")
        self.done = tuple(done)

    def tile(self) -> Tensor:
        """Noise of the size that the file declares."""
        given = self.model.graph.input[0].type.tensor_type.shape.dim
        # Channels that the file leaves open are found while it is freed.
        shape = [
            size or dim.dim_value or None
            for size, dim in zip(self._runner.shape, given, strict=True)
        ]
        for multiple in (1, 2, 3, 4):
            tile = noise(shape, shape[0] or 1, multiple * _TILE_PX, self._range)
            if self._runner.try_run(tile) is not None:
                return tile
        raise ModelError(f"{self._runner.name} runs at no size up to {4 * _TILE_PX} pixels.")

    def run(self, tile: Tensor) -> Tensor:
        """What ONNX Runtime makes of it."""
        return self._runner.run(tile)


def keep_output(model: onnx.ModelProto, name: str) -> None:
    """Take away all outputs but one: masks and scores are nothing to srpipe."""
    kept = [output for output in model.graph.output if output.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


class NcnnSource:
    """A model of ncnn: .param and .bin."""

    kind = "ncnn"

    def __init__(self, param: Path, weights: Path) -> None:
        self._param, self._weights = param, weights
        self.model, rule = convert_ncnn(param, weights)
        self._rule = rule
        self._channels = self.model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self.why_not_run = "" if has_ncnn() else "ncnn is not installed (pip install ncnn)"
        done = [f"layers turned into {len(self.model.graph.node)} nodes"]
        if rule.margin_px:
            done.append(
                f"{rule.margin_px} pixels of padding in front, which its convolutions take away"
            )
        self.done = tuple(done)

    def tile(self) -> Tensor:
        """Noise of a size that needs no filling up."""
        rule, size = self._rule, _TILE_PX
        while (size + 2 * rule.margin_px - rule.rest_px) % rule.multiple_px:
            size += 1
        return np.random.default_rng(0).random((1, self._channels, size, size), np.float32)

    def run(self, tile: Tensor) -> Tensor:
        """What ncnn makes of it, padded and cropped as the graph does by itself."""
        rule = self._rule
        around = [(rule.margin_px, rule.margin_px)] * 2
        padded = np.pad(tile[0], [(0, 0), *around], mode="edge")
        result = run_ncnn(self._param, self._weights, padded)
        height, width = (side * rule.scale for side in tile.shape[2:])
        crop = rule.crop_px
        return result[np.newaxis, :, crop : crop + height, crop : crop + width]


class TorchSource:
    """Weights of PyTorch."""

    kind = "PyTorch"
    why_not_run = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.model = export_torch(path)
        facts = metadata_of(self.model)
        self._multiple = int(facts.get("size_multiple", "1"))
        self._channels = int(facts["input_channels"])
        self.done: tuple[str, ...] = (
            f"{facts['architecture']} exported as {len(self.model.graph.node)} nodes",
            "batch, height and width free",
        )

    def tile(self) -> Tensor:
        """Noise of a size on the model's lattice."""
        size = round_up(_TILE_PX, self._multiple)
        return np.random.default_rng(0).random((1, self._channels, size, size), np.float32)

    def run(self, tile: Tensor) -> Tensor:
        """What PyTorch makes of it."""
        import torch

        network = load_torch(self._path).model
        with torch.no_grad():
            result = network(torch.from_numpy(tile))
        array: Tensor = (result[0] if isinstance(result, tuple | list) else result).numpy()
        return array
