"""PyTorch weights to ONNX, with any batch, height and width.

Tracing records what one run did: a Python ``if`` or a size that became a constant is lost without a
word. So the graph is compared with the model at sizes and batches other than the traced, and the
multiple that sizes must have is what this comparison finds.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from srpipe.errors import ModelError
from srpipe.models.fold import fold_constants
from srpipe.models.graph import add_metadata
from srpipe.models.pytorch.load import load_torch
from srpipe.models.trial import Array, Trial
from srpipe.plan.geometry import round_up

_OPSET = 17
_TRACED_PX = 64
# Larger than the traced size, so that no check repeats it.
_CHECKED_PX = 72
_MULTIPLES = (1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# Largest difference between model and graph, as a share of the result's own range.
_TOLERANCE = 1e-4


def export_torch(source: Path) -> onnx.ModelProto:
    """Turn PyTorch weights into a graph of one input, NCHW float32 in [0, 1], free but for channels.

    The architecture is found by spandrel. The graph is the bare model: padding to the size
    multiple, which the metadata names, is srpipe's.

    Args:
        source: a .pth, .pt or .safetensors file.

    Raises:
        ModelError: as :func:`srpipe.models.pytorch.load.load_torch`; or the model cannot be exported,
            or the graph does not do what the model does.
    """
    descriptor = load_torch(source)
    with warnings.catch_warnings():
        # What tracing warns of is checked below.
        warnings.simplefilter("ignore")
        model = fold_constants(_trace(source, descriptor))
        _check_call(source, descriptor)
        multiple = _find_multiple(source, descriptor, model)
    add_metadata(model, _metadata(source, descriptor, multiple))
    return model


def _trace(source: Path, descriptor: Any) -> onnx.ModelProto:
    import torch

    height = _at_least(descriptor, _TRACED_PX)
    image = torch.from_numpy(_noise(descriptor, 2, height, 2 * height))
    free = {0: "batch", 2: "height", 3: "width"}
    free_out = {0: "batch", 2: "height_out", 3: "width_out"}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "traced.onnx"
        try:
            torch.onnx.export(
                descriptor.model,
                (image,),
                file,
                dynamo=False,
                opset_version=_OPSET,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": free, "output": free_out},
            )
        except Exception as error:  # torch's and the model's own
            raise ModelError(
                f"{source} ({descriptor.architecture.name}) cannot be exported to ONNX: "
                f"{' '.join(str(error).split())[:300]}"
            ) from None
        model = onnx.load(file)
    del model.graph.output[1:]  # some models tell more than the image
    return model


def _check_call(source: Path, descriptor: Any) -> None:
    """Refuse a model that spandrel does more for than to call and clamp it."""
    import torch

    size = _at_least(descriptor, _TRACED_PX)
    image = _noise(descriptor, 1, size, size)
    called = descriptor(torch.from_numpy(image)).numpy()
    if not np.allclose(_reference(descriptor, image).clip(0, 1), called, rtol=0, atol=_TOLERANCE):
        raise ModelError(
            f"{source} ({descriptor.architecture.name}) needs more than its own network to make an "
            "image (noise level, other value range): srpipe cannot export it."
        )


def _find_multiple(source: Path, descriptor: Any, model: onnx.ModelProto) -> int:
    """The size multiple at which the graph does what the model does, and keeps to its lattice."""
    trial = Trial(model)
    base = descriptor.size_requirements.multiple_of
    reason = ""
    for multiple in sorted({math.lcm(base, candidate) for candidate in _MULTIPLES}):
        least = round_up(_at_least(descriptor, _CHECKED_PX), multiple)
        try:
            _compare(descriptor, trial, 1, least, least + multiple)
            _compare(descriptor, trial, 3, least + multiple, least)
        except ModelError as error:
            reason = str(error)
            continue
        window = getattr(descriptor.model, "window_size", 1)
        steps = (multiple, window if isinstance(window, int) else 1, _deepest(descriptor, model))
        return math.lcm(*steps)
    raise ModelError(
        f"{source} ({descriptor.architecture.name}) was exported, but the graph does not do what the "
        f"model does: {reason}"
    )


def _compare(descriptor: Any, trial: Trial, batch: int, height: int, width: int) -> None:
    image = _noise(descriptor, batch, height, width)
    result = trial.run(image)[0]
    expected = _reference(descriptor, image)
    if result.shape != expected.shape:
        raise ModelError(f"on {image.shape} it gives {result.shape}, not {expected.shape}.")
    difference = float(np.abs(result - expected).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(f"on {image.shape} it differs by {difference:.2g}.")


def _deepest(descriptor: Any, model: onnx.ModelProto) -> int:
    """Input pixels per pixel of the coarsest feature map: the lattice of a model that pads itself."""
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    size = round_up(_CHECKED_PX, math.lcm(_TRACED_PX, descriptor.size_requirements.multiple_of))
    maps = Trial(model, names).run(_noise(descriptor, 1, size, size))
    # A map of one pixel is a mean over the whole image, whatever its size.
    return math.lcm(
        1, *(size // m.shape[2] for m in maps if m.ndim == 4 and 1 < m.shape[2] <= size)
    )


def _reference(descriptor: Any, image: Array) -> Array:
    import torch

    try:
        with torch.no_grad():
            result = descriptor.model(torch.from_numpy(image))
    except Exception as error:  # the model's own: it does not take this size
        raise ModelError(f"on {image.shape} PyTorch fails: {error}") from None
    array: Array = (result[0] if isinstance(result, tuple | list) else result).numpy()
    return array


def _noise(descriptor: Any, batch: int, height: int, width: int) -> Array:
    shape = (batch, descriptor.input_channels, height, width)
    return np.random.default_rng(0).random(shape, np.float32)


def _at_least(descriptor: Any, size: int) -> int:
    needs = descriptor.size_requirements
    return round_up(max(size, needs.minimum), needs.multiple_of)


def _metadata(source: Path, descriptor: Any, multiple: int) -> dict[str, str]:
    entries = {
        "name": source.stem,
        "architecture": descriptor.architecture.name,
        "purpose": descriptor.purpose,
        "tags": " ".join(descriptor.tags),
        "scale": str(descriptor.scale),
        "size_multiple": str(multiple),
        "value_range": "1",
        "color_order": "rgb",
        "input_channels": str(descriptor.input_channels),
        "output_channels": str(descriptor.output_channels),
    }
    return {key: value for key, value in entries.items() if value}
