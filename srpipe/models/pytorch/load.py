"""PyTorch weights as models: which architecture they belong to is spandrel's to find out.

A pickle can run any code while it is loaded. It has to pass two restricted readers: PyTorch's
``weights_only``, which also refuses TorchScript and tar archives, and spandrel's own.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from srpipe.errors import ModelError

TORCH_SUFFIXES = (".pth", ".pt", ".safetensors")
_EXTRA = "pip install 'srpipe[torch]'"


def load_torch(source: Path) -> Any:
    """Load weights into the model they belong to, in float32 and ready to run.

    Args:
        source: a .pth, .pt or .safetensors file.

    Returns:
        spandrel's ``ImageModelDescriptor``.

    Raises:
        ModelError: PyTorch or spandrel is not installed; the file is missing, damaged, no plain
            weights, or of an unknown architecture; or the model is not one from image to image.
    """
    if source.suffix.lower() not in TORCH_SUFFIXES:
        raise ModelError(
            f"{source} is no file of PyTorch weights: its name must end in "
            f"{', '.join(TORCH_SUFFIXES)}."
        )
    if not source.is_file():
        raise ModelError(f"model file {source} does not exist: check the path.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and spandrel
        try:
            import spandrel
            import torch
        except ImportError as error:
            raise ModelError(
                f"{source} needs PyTorch and spandrel ({error}): install them with {_EXTRA}."
            ) from None
        if source.suffix.lower() != ".safetensors":
            _refuse_code(torch, source)
        descriptor = _descriptor(spandrel, source)
    _check_kind(spandrel, source, descriptor)
    descriptor.float().eval()
    return descriptor


def _refuse_code(torch: Any, source: Path) -> None:
    try:
        torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile raise many kinds
        raise ModelError(
            f"{source} is refused: it holds more than weights, or is damaged, and loading it could "
            f"run code ({_first_line(error)}). Ask for the weights alone, best as .safetensors."
        ) from None


def _descriptor(spandrel: Any, source: Path) -> Any:
    try:
        return spandrel.ModelLoader("cpu").load_from_file(source)
    except spandrel.UnsupportedModelError:
        raise ModelError(
            f"{source} holds weights of an architecture that spandrel {spandrel.__version__} does "
            "not know: export it to ONNX with its own code."
        ) from None
    except Exception as error:  # each architecture fails in its own way on weights that do not fit
        raise ModelError(
            f"{source} cannot be loaded as a PyTorch model: {_first_line(error)}"
        ) from None


def _check_kind(spandrel: Any, source: Path, descriptor: Any) -> None:
    architecture = descriptor.architecture.name
    plain = isinstance(descriptor, spandrel.ImageModelDescriptor)
    if not plain or descriptor.purpose not in ("SR", "Restoration"):
        raise ModelError(
            f"{source} ({architecture}) is a model for {descriptor.purpose}: srpipe takes models "
            "from one image to one image."
        )
    if descriptor.input_channels != descriptor.output_channels:
        raise ModelError(
            f"{source} ({architecture}) takes {descriptor.input_channels} channels and gives "
            f"{descriptor.output_channels}: srpipe needs as many out as in."
        )
    if descriptor.size_requirements.square:
        raise ModelError(
            f"{source} ({architecture}) takes square images only: srpipe cannot use it."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
