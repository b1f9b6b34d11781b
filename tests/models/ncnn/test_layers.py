"""Every layer, with every parameter that is converted, against ncnn itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srpipe.errors import ModelError
from tests.models.ncnn.files import flagged, raw, run_ncnn, run_plain, write_model

_RNG = np.random.default_rng(3)
_HEIGHT, _WIDTH = 11, 13


def _numbers(count: int) -> np.ndarray:
    return _RNG.normal(0, 0.3, count).astype(np.float32)


def _input(channels: int = 4) -> str:
    return f"Input image 0 1 x 0={_WIDTH} 1={_HEIGHT} 2={channels}"


def _check(
    folder: Path, lines: list[str], data: bytes = b"", channels: int = 4, least: float = -3.0
) -> None:
    param = write_model(folder, [_input(channels), *lines], data)
    image = _RNG.normal(0, 1, (channels, _HEIGHT, _WIDTH)).astype(np.float32).clip(least, 3)
    expected = run_ncnn(param, image)
    if expected.ndim == 1:
        expected = expected[:, np.newaxis, np.newaxis]
    found = run_plain(param, image)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "params", "outputs", "weights_per_output"),
    [
        ("Convolution", "1=3", 6, 36),
        ("Convolution", "1=3 4=1", 6, 36),
        ("Convolution", "1=3 3=2 4=1", 6, 36),
        ("Convolution", "1=3 2=2 4=2", 6, 36),
        ("Convolution", "1=3 4=1 13=2 12=2", 6, 36),
        ("Convolution", "1=3 4=-233 3=2", 6, 36),
        ("Convolution", "1=3 4=-234 3=2", 6, 36),
        ("Convolution", "1=3 4=1 18=0.5", 6, 36),
        ("Convolution", "1=3 4=1 14=2 15=0 16=3", 6, 36),
        ("Convolution", "1=3 11=1", 6, 12),
        ("Convolution", "1=1 11=5 14=2", 6, 20),
        ("Convolution", "1=3 9=1", 6, 36),
        ("Convolution", "1=3 9=2 -23310=1,0.2", 6, 36),
        ("Convolution", "1=3 9=3 -23310=2,-0.5,0.7", 6, 36),
        ("Convolution", "1=3 9=4", 6, 36),
        ("Convolution", "1=3 9=5", 6, 36),
        ("Convolution", "1=3 9=6 -23310=2,0.16666667,0.5", 6, 36),
        ("ConvolutionDepthWise", "1=3 4=1 7=4", 4, 9),
        ("ConvolutionDepthWise", "1=3 4=1 7=2", 6, 18),
        ("Deconvolution", "1=4 3=2 4=1", 6, 64),
        ("Deconvolution", "1=4 3=2 4=3", 6, 64),
        ("Deconvolution", "1=2 3=2", 6, 16),
        ("Deconvolution", "1=3 2=2 4=1", 6, 36),
        ("Deconvolution", "1=3 3=3 4=1 18=1 19=2", 6, 36),
        ("Deconvolution", "1=4 3=2 4=1 14=0 15=2 16=1 9=2 -23310=1,0.1", 6, 64),
        ("DeconvolutionDepthWise", "1=4 3=2 4=1 7=4", 4, 16),
        ("DeconvolutionDepthWise", "1=4 3=2 4=1 7=2", 6, 32),
    ],
)
@pytest.mark.parametrize("bias", [0, 1])
def test_convolutions(
    tmp_path: Path, kind: str, params: str, outputs: int, weights_per_output: int, bias: int
) -> None:
    size = outputs * weights_per_output
    data = flagged(_numbers(size)) + raw(_numbers(outputs)) * bias
    _check(tmp_path, [f"{kind} c 1 1 x y 0={outputs} 5={bias} 6={size} {params}"], data)


@pytest.mark.parametrize(
    "layer",
    [
        "AbsVal",
        "Clip 0=-0.3 1=0.4",
        "Clip 0=0",
        "Dropout 0=0.5",
        "ELU",
        "ELU 0=0.7",
        "GELU",
        "GELU 0=1",
        "HardSigmoid",
        "HardSwish",
        "HardSwish 0=0.16666667 1=0.5",
        "Mish",
        "ReLU",
        "ReLU 0=0.1",
        "Sigmoid",
        "Swish",
        "TanH",
    ],
)
def test_activations(tmp_path: Path, layer: str) -> None:
    kind, *params = layer.split(" ", 1)
    _check(tmp_path, [f"{kind} a 1 1 x y {''.join(params)}"])


@pytest.mark.parametrize("slopes", [1, 4])
def test_prelu(tmp_path: Path, slopes: int) -> None:
    _check(tmp_path, [f"PReLU p 1 1 x y 0={slopes}"], raw(_numbers(slopes)))


@pytest.mark.parametrize("operation", range(20))
def test_unary(tmp_path: Path, operation: int) -> None:
    lines = ["Clip c 1 1 x z 0=-1 1=1", f"UnaryOp u 1 1 z y 0={operation}"]
    needs_positive = operation in (5, 6, 8, 15, 17)
    _check(tmp_path, lines, least=0.1 if needs_positive else -3.0)


@pytest.mark.parametrize("operation", range(10))
def test_binary(tmp_path: Path, operation: int) -> None:
    _check(tmp_path, [f"BinaryOp b 1 1 x y 0={operation} 1=1 2=0.7"], least=0.1)
    two = ["Split s 1 2 x x0 x1", "Sigmoid q 1 1 x1 z", f"BinaryOp b 2 1 x0 z y 0={operation}"]
    _check(tmp_path, two, least=0.1)


@pytest.mark.parametrize(
    "params", ["", "0=1", "0=2", "0=1 -23301=3,0.2,1.0,-3.0", "0=0 -23301=3,2.0,2.0,2.0"]
)
def test_eltwise(tmp_path: Path, params: str) -> None:
    lines = ["Split s 1 3 x x0 x1 x2", "Sigmoid q 1 1 x1 z", "TanH t 1 1 x2 t"]
    _check(tmp_path, [*lines, f"Eltwise e 3 1 x0 z t y {params}"])


@pytest.mark.parametrize("axis", range(-3, 3))
def test_concat(tmp_path: Path, axis: int) -> None:
    lines = ["Split s 1 2 x x0 x1", "Sigmoid q 1 1 x1 z", f"Concat e 2 1 x0 z y 0={axis}"]
    _check(tmp_path, lines)


@pytest.mark.parametrize(
    "params", ["-23300=2,1,-233", "-23300=2,-233,-233", "-23300=2,3,1", "-23300=2,5,-233 1=-1"]
)
def test_slice(tmp_path: Path, params: str) -> None:
    axis = 2 if "1=-1" in params else 0
    lines = [f"Slice s 1 2 x a b {params}", "AbsVal q 1 1 a c", f"Concat j 2 1 b c y 0={axis}"]
    _check(tmp_path, lines)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize(
    "params", ["1=2.0 2=2.0", "1=4.0 2=3.0", "1=0.5 2=0.5", "1=0.75 2=1.3", "1=2.0 2=3.0 6=1"]
)
def test_interp(tmp_path: Path, kind: int, params: str) -> None:
    _check(tmp_path, [f"Interp i 1 1 x y 0={kind} {params}"])


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_interp_to_the_size_of_another(tmp_path: Path, kind: int) -> None:
    half = "Convolution c 1 1 x1 z 0=4 1=1 3=2 6=16"
    lines = ["Split s 1 2 x x0 x1", half, f"Interp i 2 1 z x0 y 0={kind} 5=1"]
    _check(tmp_path, lines, flagged(_numbers(16)))


@pytest.mark.parametrize("mode", [0, 1])
def test_pixel_shuffle(tmp_path: Path, mode: int) -> None:
    _check(tmp_path, [f"PixelShuffle p 1 1 x y 0=2 1={mode}"], channels=12)


@pytest.mark.parametrize(
    "params",
    [
        "0=2 1=3 3=-233 4=-233 5=-233",
        "0=2 1=3 2=1 3=-233 4=-233 5=-233",
        "0=2 1=3 3=5 4=4 5=3",
        "0=2 1=3 3=-233 4=-233 5=-233 6=1 7=2",
        "0=2 1=3 3=50 4=4 5=3",
        "-23309=2,2,3 -23310=2,-2,-233 -23311=2,1,2",
        "-23309=1,-5 -23310=1,-1 -23311=1,-1",
        "-23309=1,1 -23310=1,3 -23311=1,0",
        "-23309=3,0,2,3 -23310=3,4,-2,1000",
        "-23309=1,-233 -23310=1,4 -23311=1,2",
    ],
)
def test_crop(tmp_path: Path, params: str) -> None:
    _check(tmp_path, [f"Crop c 1 1 x y {params}"])


@pytest.mark.parametrize(("params", "channels"), [("0=2 1=1", 4), ("0=3 2=1", 3)])
def test_crop_to_the_size_of_another(tmp_path: Path, params: str, channels: int) -> None:
    smaller = f"Convolution c 1 1 x1 z 0={channels} 1=5 6={channels * 100}"
    lines = ["Split s 1 2 x x0 x1", smaller, f"Crop k 2 1 x0 z y {params}"]
    _check(tmp_path, lines, flagged(_numbers(channels * 100)))


@pytest.mark.parametrize("kind", ["4=0", "4=0 5=0.7", "4=1", "4=2", "7=1 8=2"])
def test_padding(tmp_path: Path, kind: str) -> None:
    _check(tmp_path, [f"Padding p 1 1 x y 0=1 1=2 2=3 3=4 {kind}"])


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    "params",
    [
        "4=1",
        "7=1 8=1",
        "1=2 2=2",
        "1=3 2=2 3=1",
        "1=3 2=2 3=1 6=1",
        "1=3 2=2 5=1",
        "1=3 3=1 5=1 6=1",
        "1=5 2=3 3=2 13=1 14=1 15=2 5=1",
    ],
)
def test_pooling(tmp_path: Path, kind: int, params: str) -> None:
    _check(tmp_path, [f"Pooling p 1 1 x y 0={kind} {params}"])


@pytest.mark.parametrize(
    ("lines", "data"),
    [
        (["Scale s 1 1 x y 0=4"], raw(_numbers(4))),
        (["Scale s 1 1 x y 0=4 1=1"], raw(_numbers(8))),
        (["Bias b 1 1 x y 0=4"], raw(_numbers(4))),
        (["BatchNorm n 1 1 x y 0=4 1=0.001"], raw(np.abs(_numbers(16)))),
        (["Noop n 1 1 x z", "Dropout d 1 1 z a", "AbsVal a 1 1 a y"], b""),
        (["MemoryData m 0 1 m 0=1 1=1 2=4", "BinaryOp z 2 1 x m y 0=2"], raw(_numbers(4))),
        (["MemoryData m 0 1 m 0=4", "BinaryOp z 2 1 m x y 0=1"], raw(_numbers(4))),
        (["MemoryData m 0 1 m 0=13 1=11 2=1", "BinaryOp z 2 1 m x y 0=1"], raw(_numbers(143))),
        (["MemoryData m 0 1 m 0=1 21=0", "BinaryOp z 2 1 x m y 0=2"], flagged(_numbers(1))),
    ],
)
def test_small_weights(tmp_path: Path, lines: list[str], data: bytes) -> None:
    _check(tmp_path, lines, data)


@pytest.mark.parametrize("params", ["", "0=2.0 1=0.5 2=0.3"])
def test_power(tmp_path: Path, params: str) -> None:
    _check(tmp_path, [f"Power p 1 1 x y {params}"], least=0.0)


@pytest.mark.parametrize(
    "vector",
    [
        ["Pooling p 1 1 x0 b 0=1 4=1", "InnerProduct i 1 1 b v 0=4 1=1 2=16 9=4"],
        ["Pooling p 1 1 x0 b 0=1 7=1 8=1", "InnerProduct i 1 1 b v 0=4 1=1 2=16 9=1"],
        [
            "Pooling p 1 1 x0 a 0=1 4=1",
            "Reshape r 1 1 a b 0=1 1=1 2=-1",
            "Convolution i 1 1 b v 0=4 1=1 5=1 6=16",
        ],
        [
            "Pooling p 1 1 x0 a 4=1",
            "Flatten f 1 1 a b",
            "InnerProduct i 1 1 b c 0=4 1=1 2=16",
            "Reshape r 1 1 c v 0=1 1=1 2=4",
        ],
    ],
)
@pytest.mark.parametrize("last", ["Scale m 2 1 x1 v y 0=-233", "BinaryOp m 2 1 v x1 y 0=1"])
def test_squeeze_and_excitation(tmp_path: Path, vector: list[str], last: str) -> None:
    data = flagged(_numbers(16)) + raw(_numbers(4))
    _check(tmp_path, ["Split s 1 2 x x0 x1", *vector, last], data)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Convolution c 1 1 x y 0=4 1=3 6=144 8=1"], "has int8 weights"),
        (["Convolution c 1 1 x y 0=4 1=3 6=144 19=1"], "has weights that are computed"),
        (["Convolution c 1 1 x y 0=4 1=3 6=145"], "has 145 weights, which do not fit"),
        (["Convolution c 1 1 x y 0=4 1=3 6=-144"], "has -144 weights, which do not fit"),
        (["Convolution c 1 1 x y 0=4 1=3 4=-7 6=144"], "has padding"),
        (["Convolution c 1 1 x y 0=4 1=3 6=144 9=9"], "activation type 9, which is unknown"),
        (["Convolution c 1 1 x y 0=4 1=3 6=144 9=2"], "activation type 2 without its 1"),
        (["Deconvolution c 1 1 x y 0=4 1=3 6=144 20=8"], "has a fixed output size"),
        (["InnerProduct c 1 1 x y 0=4 2=16"], "images of one size only"),
        (["Reshape c 1 1 x y 0=2 1=-1"], "images of one size only"),
        (["Interp c 1 1 x y 0=1 3=64 4=64"], "one size only"),
        (["Interp c 1 1 x y 0=7"], "resize type 7"),
        (["Interp c 1 1 x y 0=1 1=-2.0 2=2.0"], "no enlargement"),
        (["UnaryOp c 1 1 x y 0=44"], "operation 44"),
        (["BinaryOp c 1 1 x y 0=44 1=1"], "operation 44"),
        (["BinaryOp c 1 1 x y 0=0"], "has 1 inputs, where 2 belong"),
        (["Eltwise c 1 1 x y 0=3"], "operation 3"),
        (["Eltwise c 1 1 x y 0=1 -23301=2,1.0,1.0"], "2 coefficients for 1 inputs"),
        (["Concat c 1 1 x y 0=3"], "works on axis 3"),
        (["Slice c 1 2 x y z -23300=2,-233,1"], "has sizes"),
        (["Crop c 1 1 x y 0=2 1=3"], "second offset 0, which srpipe does not convert"),
        (["Padding c 1 1 x y 0=1 4=9"], "padding type"),
        (["Padding c 1 1 x y 0=1 6=4"], "its own number"),
        (["Pooling c 1 1 x y 1=3 5=2"], "pools in a way"),
        (["MemoryData c 0 1 y 0=3 1=3"], "has a shape"),
        (["MemoryData m 0 1 m 0=1 1=1 2=4", "Concat c 2 1 x m y"], "joins a constant"),
        (["Scale c 1 1 x y 0=-233 1=1"], "bias without a size"),
        (["Scale c 1 1 x y 0=-1"], "too short"),
        (["PReLU c 1 1 x y 0=2000000000"], "too short"),
        (["ReLU c 1 1 nothing y"], "reads nothing, which no layer before it makes"),
        (["ReLU c 1 2 x y z"], "has outputs y, z, which do not fit"),
        (["ReLU c 1 1 x x"], "has outputs x, which do not fit"),
        (["Split c 1 2 x y z"], "0 outputs"),
        (["ReLU c 1 1 x y", "Split s 1 2 y z w", "ReLU a 1 1 z a", "ReLU b 1 1 w b"], "2 outputs"),
        (["Input again 0 1 i"], "has 2 input layers"),
    ],
)
def test_what_cannot_be_converted_is_told(tmp_path: Path, lines: list[str], message: str) -> None:
    data = b"" if "too short" in message else flagged(_numbers(144))
    param = write_model(tmp_path, [_input(), *lines], data)
    with pytest.raises(ModelError, match=message):
        run_plain(param, np.zeros((4, _HEIGHT, _WIDTH), np.float32))
