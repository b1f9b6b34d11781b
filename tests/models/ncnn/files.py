"""Small ncnn models made for tests, the real ones in the test packages, and ncnn itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from srpipe.models.ncnn import engine
from srpipe.models.ncnn.convert import plain_graph
from srpipe.models.ncnn.format import Weights, read_param

FLOAT16_FLAG = (0x01306B47).to_bytes(4, "little")
Array = np.ndarray


def flagged(values: Array) -> bytes:
    """Weights of a layer as float32."""
    return bytes(4) + raw(values)


def flagged_float16(values: Array) -> bytes:
    """Weights of a layer as float16, padded to whole words."""
    data = values.astype("<f2").tobytes()
    return FLOAT16_FLAG + data + bytes(-len(data) % 4)


def raw(values: Array) -> bytes:
    """Biases, slopes and the like."""
    return values.astype("<f4").tobytes()


def write_model(folder: Path, lines: Sequence[str], data: bytes = b"", end: str = "\n") -> Path:
    """A .param of these layers and its .bin; returns the .param."""
    param = folder / "made.param"
    text = end.join(["7767517", f"{len(lines)} {len(lines) + 9}", *lines, ""])
    param.write_bytes(text.encode())
    param.with_suffix(".bin").write_bytes(data)
    return param


def packaged_model(package: str, name: str) -> Path:
    """The .param of a model inside a test dependency, which is not imported (it may need Vulkan)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / "models" / f"{name}.param"


def run_ncnn(param: Path, image: Array) -> Array:
    """What ncnn itself makes of a (C, H, W) image, in float32 on the CPU."""
    pytest.importorskip("ncnn")
    return engine.run_ncnn(param, param.with_suffix(".bin"), image)


def run_onnx(model: bytes, batch: Array) -> Array:
    """What ONNX Runtime makes of an (N, C, H, W) batch."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": batch})[0]


def run_plain(param: Path, image: Array) -> Array:
    """What the converted layers make of a (C, H, W) image, without any fitting of sizes."""
    model = plain_graph(read_param(param), Weights(param.with_suffix(".bin")))
    return run_onnx(model.SerializeToString(), image[np.newaxis])[0]
