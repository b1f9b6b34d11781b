"""Models of several outputs, and of outputs that are smaller than their input says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import srpipe
from srpipe.errors import ModelError, SettingsError
from srpipe.io.model_probe import probe_model
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.stopwatch import Stopwatch
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.processes import run_srpipe


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    tensors: dict[str, np.ndarray],
    outputs: tuple[str, ...] = ("y",),
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
) -> Path:
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    weights = [numpy_helper.from_array(values, name) for name, values in tensors.items()]
    graph = helper.make_graph(nodes, "g", [port], results, weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def several(path: Path) -> Path:
    """Its input inverted, a mask, a mean, the image twice as large, and the same darkened."""
    repeat = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    nodes = [
        helper.make_node("Sub", ["one", "x"], ["preview"]),
        helper.make_node("ReduceMean", ["x"], ["mask"], axes=[1], keepdims=1),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Resize", ["x", "", "s"], ["y"], nearest_mode="floor", **repeat),
        helper.make_node("Mul", ["y", "half"], ["dark"]),
    ]
    numbers = {"one": 1, "half": 0.5, "s": [1, 1, 2, 2]}
    tensors = {name: np.array(value, np.float32) for name, value in numbers.items()}
    return save(path, nodes, tensors, ("preview", "mask", "mean", "y", "dark"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.png", photograph_pixels(70, 90))


def test_the_largest_image_is_taken_and_said(tmp_path: Path, picture: Path) -> None:
    model = several(tmp_path / "m.onnx")
    for _ in range(2):  # probed, and known
        done = run_srpipe("enhance", picture, tmp_path / "out.png", "-m", model, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert "gives several images (preview x1, y x2, dark x2): y is taken" in done.stderr
    expected = read_pixels(picture).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read_pixels(tmp_path / "out.png"), expected)


def test_an_output_is_chosen_by_name(tmp_path: Path, picture: Path) -> None:
    model = several(tmp_path / "m.onnx")
    done = run_srpipe(
        "enhance", picture, tmp_path / "o.png", "-m", model, "--output-name", "preview"
    )
    assert done.returncode == 0, done.stderr
    assert "several" not in done.stderr
    pixels = read_pixels(picture)
    np.testing.assert_array_equal(read_pixels(tmp_path / "o.png"), 255 - pixels)
    srpipe.enhance(picture, tmp_path / "d.png", model=model, output_name="dark")
    expected = np.floor(pixels.repeat(2, 0).repeat(2, 1) * 0.5 + 0.5)
    np.testing.assert_array_equal(read_pixels(tmp_path / "d.png"), expected)
    for name, message in (
        ("mask", "takes 3 channels and gives 1"),
        ("mean", "no image output named 'mean'"),
        ("z", "no image output named 'z'"),
    ):
        with pytest.raises(ModelError, match=message):
            probe_model(model, output_name=name)


def valid_model(
    path: Path,
    kernel: int,
    *,
    scale: int = 1,
    layers: int = 1,
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
) -> Path:
    """Convolutions without padding, then pixels shuffled to the scale."""
    rng = np.random.default_rng(kernel)
    nodes, tensors, x = [], {}, "x"
    nhwc = shape[3] == 3
    if nhwc:
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    for i in range(layers):
        depth = 3 * scale**2 if i == layers - 1 else 3
        weights = rng.random((depth, 3, kernel, kernel), np.float32)
        tensors[f"w{i}"] = weights / weights.sum((1, 2, 3), keepdims=True)
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"]))
        x = f"c{i}"
    result = "shuffled" if nhwc else "y"
    nodes.append(helper.make_node("DepthToSpace", [x], [result], blocksize=scale, mode="CRD"))
    if nhwc:
        nodes.append(helper.make_node("Transpose", [result], ["y"], perm=[0, 2, 3, 1]))
    return save(path, nodes, tensors, shape=shape)


def whole(model: Path, pixels: np.ndarray, before: int, after: int, mode: str) -> np.ndarray:
    """The whole picture, continued beyond its border, through bare ONNX Runtime."""
    padded = np.pad(pixels, ((before, after), (before, after), (0, 0)), mode=mode)  # type: ignore[call-overload]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    batch = padded.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
    result = session.run(None, {"x": np.ascontiguousarray(batch)})[0][0].transpose(1, 2, 0)
    return np.floor(np.clip(result, 0, 1) * 255 + 0.5)


@pytest.mark.parametrize(
    ("kernel", "scale", "layers"), [(5, 1, 1), (3, 2, 4), (3, 4, 2), (4, 1, 1), (9, 1, 4)]
)
def test_convolutions_without_padding(kernel: int, scale: int, layers: int, tmp_path: Path) -> None:
    model = valid_model(tmp_path / "m.onnx", kernel, scale=scale, layers=layers)
    info = probe_model(model)
    lost = layers * (kernel - 1)
    assert (info.scale, info.lost_px, info.border_px) == (scale, lost * scale, -(-lost // 2))
    pixels = photograph_pixels(150, 190)
    picture = write_pixels(tmp_path / "in.png", pixels)
    before = -(-lost // 2)
    for tile_size, blend, edges in (
        (None, "feather", "reflect"),
        (96, "feather", "replicate"),
        (96, "crop", "reflect"),
    ):
        mode = "edge" if edges == "replicate" else edges
        expected = whole(model, pixels, before, lost - before, mode)
        srpipe.enhance(
            picture, tmp_path / "out.png", model=model, tile_size=tile_size, overwrite=True,
            edges=edges, blend=blend,
        )  # fmt: skip
        result = read_pixels(tmp_path / "out.png")
        assert result.shape == (150 * scale, 190 * scale, 3)
        assert np.abs(result.astype(int) - expected).max() <= 1  # sums in another order
        assert (result != expected).mean() < 0.01


def test_without_padding_in_other_forms(tmp_path: Path) -> None:
    pixels = photograph_pixels(100, 120)
    picture = write_pixels(tmp_path / "in.png", pixels)
    free = valid_model(tmp_path / "free.onnx", 5)
    expected = whole(free, pixels, 2, 2, "reflect")
    shapes: tuple[tuple[int | str, ...], ...] = (("n", "h", "w", 3), (1, 3, 64, 64), (2, 3, 48, 80))
    for shape in shapes:
        model = valid_model(tmp_path / "m.onnx", 5, shape=shape)
        info = probe_model(model)
        assert (info.scale, info.lost_px) == (1, 4)
        srpipe.enhance(picture, tmp_path / "out.png", model=model, overwrite=True)
        result = read_pixels(tmp_path / "out.png")
        assert np.abs(result.astype(int) - expected).max() <= 1
    part = tmp_path / "part.png"
    srpipe.enhance(picture, part, model=free, region=(0, 30, 50, 70), tile_size=32)
    assert np.abs(read_pixels(part).astype(int) - expected[30:, :50]).max() <= 1


def test_pixels_that_no_tile_has_are_refused(tmp_path: Path, picture: Path) -> None:
    model = valid_model(tmp_path / "m.onnx", 5, layers=2)
    for changes, message in (
        ({"edges": "none"}, "edges cannot be none"),
        ({"blend": "mean"}, "the blend mean would show: use feather or crop"),
        ({"overlap": 7, "tile_size": 32}, "overlap 7 leaves gaps: it must be 8 at least"),
    ):
        with pytest.raises(SettingsError, match=message):
            srpipe.enhance(picture, tmp_path / "out.png", model=model, **changes)
    srpipe.enhance(picture, tmp_path / "out.png", model=model, overlap=8, tile_size=32)
    before = read_pixels(picture)
    expected = whole(model, before, 4, 4, "reflect")
    result = read_pixels(tmp_path / "out.png")
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_it_is_inspected_and_tuned(tmp_path: Path) -> None:
    model = valid_model(tmp_path / "m.onnx", 5, scale=2)
    done = run_srpipe("inspect", model)
    assert done.returncode == 0, done.stderr
    assert "8 output pixels less on each axis" in done.stdout
    assert "not measured:" not in done.stdout.partition("memory")[2].partition("\n")[0]
    with Stopwatch(probe_model(model), 2**62) as timer:
        assert (
            timer.load(Candidate(Arrangement("cpu", 1, 1, 1), srpipe.Size(64, 64), 1)).seconds > 0
        )


def test_what_follows_no_law_is_refused(tmp_path: Path) -> None:
    """Every third pixel is left out: two sizes alone would look like a scale."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[3, 3], strides=[3, 3]),
        helper.make_node("Resize", ["small", "", "s"], ["y"], mode="nearest"),
    ]
    model = save(tmp_path / "m.onnx", nodes, {"s": np.array([1, 1, 3, 3], np.float32)})
    info = probe_model(model)
    assert (info.scale, info.multiple_px, info.lost_px) == (1, 3, 0)


def test_converting_keeps_the_largest_image(tmp_path: Path) -> None:
    done = run_srpipe("convert", several(tmp_path / "m.onnx"), tmp_path / "converted.onnx")
    assert done.returncode == 0, done.stderr
    info = probe_model(tmp_path / "converted.onnx")
    assert (info.scale, info.output_name, info.outputs) == (2, "y", ())
