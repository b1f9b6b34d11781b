"""ncnn itself, where it is installed: what a converted model is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor


def has_ncnn() -> bool:
    """Whether the ``ncnn`` package can be imported."""
    try:
        import ncnn  # noqa: F401
    except ImportError:
        return False
    return True


def run_ncnn(param: Path, weights: Path, image: Tensor) -> Tensor:
    """The result for one (C, H, W) image, in float32 on the CPU.

    Raises:
        ModelError: ncnn cannot load the model or fails on the image.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ModelError(f"ncnn itself cannot load {param} with {weights}: get both anew.")
    extractor = net.create_extractor()
    # ncnn's matrix only borrows the array's memory: the copy is its own.
    extractor.input(net.input_names()[0], ncnn.Mat(np.ascontiguousarray(image)).clone())
    code, result = extractor.extract(net.output_names()[-1])
    if code:
        raise ModelError(f"ncnn itself fails on an image of {image.shape} with {param}.")
    return np.array(result)
