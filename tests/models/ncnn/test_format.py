from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srpipe.errors import ModelError
from srpipe.models.ncnn.format import Layer, Weights, read_param
from tests.models.ncnn.files import FLOAT16_FLAG, flagged, flagged_float16, raw, write_model

LINES = [
    "Input            data  0 1 data 0=8 1=8 2=3",
    "Convolution      conv  1 1 data a 0=4 1=3 5=1 6=108 9=2 -23310=1,2.000000e-01",
    "Eltwise          sum   2 1 a a out 0=1 -23301=2,1.0,-1",
]

in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "  \r\n"])
def test_layers_are_read(tmp_path: Path, end: str) -> None:
    layers = read_param(write_model(tmp_path, LINES, end=end))
    assert layers == [
        Layer("Input", "data", (), ("data",), {0: 8, 1: 8, 2: 3}),
        Layer(
            "Convolution", "conv", ("data",), ("a",), {0: 4, 1: 3, 5: 1, 6: 108, 9: 2, 10: (0.2,)}
        ),
        Layer("Eltwise", "sum", ("a", "a"), ("out",), {0: 1, 1: (1.0, -1)}),
    ]
    assert str(layers[1]) == "Convolution layer 'conv'"


def test_parameters_by_type() -> None:
    layer = Layer("Any", "n", (), (), {0: 3, 1: 0.5, 2: (1, 2.5), 3: 1e30})
    assert (layer.integer(0), layer.number(1), layer.array(2)) == (3, 0.5, (1, 2.5))
    assert (layer.integer(7, 4), layer.number(7), layer.array(7)) == (4, 0.0, ())
    wrongs = (
        lambda: layer.integer(1),
        lambda: layer.integer(3),
        lambda: layer.number(2),
        lambda: layer.array(0),
    )
    for wrong in wrongs:
        with pytest.raises(ModelError, match="Any layer 'n' has"):
            wrong()


names = st.sampled_from(["a", "Conv_0", "12", "input.1/x=0", "-23300=1,2"])
numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
params = st.dictionaries(
    st.integers(0, 31), numbers | st.lists(numbers, max_size=3).map(tuple), max_size=3
)
layers_of_any_kind = st.builds(
    Layer,
    names,
    names,
    st.lists(names, max_size=2).map(tuple),
    st.lists(names, max_size=2).map(tuple),
    params,
)


def _written(layer: Layer) -> str:
    words = [layer.kind, layer.name, str(len(layer.inputs)), str(len(layer.outputs))]
    words += [*layer.inputs, *layer.outputs]
    for key, value in layer.params.items():
        if isinstance(value, tuple):
            words.append(",".join([f"{-23300 - key}={len(value)}", *map(str, value)]))
        else:
            words.append(f"{key}={value}")
    return " ".join(words)


@in_a_folder
@given(layers=st.lists(layers_of_any_kind, min_size=1, max_size=3))
def test_any_layers_are_read_as_written(tmp_path: Path, layers: list[Layer]) -> None:
    assert read_param(write_model(tmp_path, [_written(layer) for layer in layers])) == layers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with 7767517"),
        (b"1 1\nInput data 0 1 data\n", "must begin with 7767517"),
        (bytes.fromhex("dd857600") + bytes(40), "binary .param file"),
        (b"\xff\xfe\x00\x01", "it is not text"),
        (b"7767517\n", "tells of no layers"),
        (b"7767517\n2 2\nInput data 0 1 data\n", "tells of 2 layers, 1 follow"),
        (b"7767517\n1 1\nInput data 0\n", "line 3 is 'Input data 0'"),
        (b"7767517\n1 1\nInput data 0 2 data\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 -1 data\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data 0\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data 0=x\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data 0=nan\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data 0=1e39\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data 0=3000000000\n", "line 3"),
        (b"7767517\n1 1\nInput data 0 1 data -23300=2,1\n", "line 3"),
    ],
)
def test_damaged_param_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.param"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_param(path)


@in_a_folder
@given(content=st.binary(max_size=60), keep_magic=st.booleans())
def test_any_bytes_are_a_model_error_or_layers(
    tmp_path: Path, content: bytes, keep_magic: bool
) -> None:
    path = tmp_path / "any.param"
    path.write_bytes(b"7767517\n1 1\n" * keep_magic + content)
    try:
        layers = read_param(path)
    except ModelError:
        return
    assert layers


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_param(tmp_path / "none.param")
    with pytest.raises(ModelError, match="cannot be read"):
        Weights(tmp_path / "none.bin")


def _weights(tmp_path: Path, data: bytes) -> Weights:
    path = tmp_path / "made.bin"
    path.write_bytes(data)
    return Weights(path)


@in_a_folder
@given(blocks=st.lists(st.tuples(st.sampled_from(["32", "16", "raw"]), st.integers(1, 9))))
def test_weights_of_every_kind(tmp_path: Path, blocks: list[tuple[str, int]]) -> None:
    rng = np.random.default_rng(len(blocks))
    writers = {"32": flagged, "16": flagged_float16, "raw": raw}
    values = [rng.standard_normal(count).astype(np.float16) for _, count in blocks]
    data = b"".join(writers[kind](v) for (kind, _), v in zip(blocks, values, strict=True))
    weights = _weights(tmp_path, data)
    for (kind, count), expected in zip(blocks, values, strict=True):
        found = weights.raw(count) if kind == "raw" else weights.flagged(count)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    weights.finish()


@pytest.mark.parametrize("write", [flagged, flagged_float16])
def test_every_truncation_is_told(tmp_path: Path, write: object) -> None:
    assert callable(write)
    data = write(np.arange(3.0)) + raw(np.arange(2.0))
    for length in range(len(data)):
        weights = _weights(tmp_path, data[:length])
        with pytest.raises(ModelError, match="too short"):
            _ = (weights.flagged(3), weights.raw(2))
    weights = _weights(tmp_path, data + b"\0")
    _ = (weights.flagged(3), weights.raw(2))
    with pytest.raises(ModelError, match="1 bytes more"):
        weights.finish()


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="int8 weights"):
        _weights(tmp_path, (0x000D4B38).to_bytes(4, "little") + bytes(80)).flagged(8)
    with pytest.raises(ModelError, match=r"quantised weights \(flag 0x00000001"):
        _weights(tmp_path, bytes([1, 0, 0, 0]) + bytes(2000)).flagged(8)
    assert _weights(tmp_path, FLOAT16_FLAG + bytes(4)).flagged(1).tolist() == [0.0]
