from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srpipe.errors import DeviceError, InferenceError, ModelError
from srpipe.io.devices import available_devices, resolve_device
from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session
from srpipe.models.zoo import bundled_models, find_model
from tests.ecosystem_models import channel_attention_model, in_other_numbers, window_attention_model
from tests.onnx_models import classifier_model, conv_model, elementwise_model, save


@pytest.mark.parametrize("scale", range(1, 9))
def test_scale(tmp_path: Path, scale: int) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", scale=scale))
    assert (info.scale, info.multiple_px, info.batch) == (scale, 1, None)


@pytest.mark.parametrize("multiple", [2, 4, 8, 16, 64, 3, 7, 12])
def test_multiple_is_found_by_trying(tmp_path: Path, multiple: int) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", multiple=multiple, scale=1, layers=1))
    assert (info.multiple_px, info.least_px, info.scale) == (multiple, multiple, 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("free", [True, False])
def test_layout_dtype_channels(
    tmp_path: Path, layout: str, dtype: str, channels: int, free: bool
) -> None:
    sizes: dict[str, Any] = {} if free else {"batch": 2, "height": 32, "width": 48}
    path = conv_model(tmp_path / "m.onnx", layout=layout, dtype=dtype, channels=channels, **sizes)
    info = probe_model(path)
    assert (info.layout, info.dtype, info.channels, info.scale) == (layout, dtype, channels, 2)
    expected = (None, None, None) if free else (2, 32, 48)
    assert (info.batch, info.height_px, info.width_px) == expected
    assert info.batch_exact


@pytest.mark.parametrize(("layers", "multiple"), [(1, 1), (2, 1), (5, 1), (2, 4)])
def test_radius_is_measured(tmp_path: Path, layers: int, multiple: int) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", layers=layers, multiple=multiple))
    assert info.radius_px is not None
    assert 0 < info.radius_px <= layers + (2 * multiple if multiple > 1 else 0)


def test_unbounded_reach_is_unknown(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Sub", ["input", "mean"], ["output"]),
    ]
    info = probe_model(save(tmp_path / "m.onnx", nodes, [], ["n", 3, "h", "w"]))
    assert info.radius_px is None


def test_attention(tmp_path: Path) -> None:
    windows = probe_model(window_attention_model(tmp_path / "windows.onnx"))
    assert (windows.multiple_px, windows.least_px, windows.scale) == (64, 64, 1)
    assert windows.radius_px is None  # a window is as wide as the probe can see
    channels = probe_model(channel_attention_model(tmp_path / "channels.onnx"))
    assert (channels.multiple_px, channels.radius_px) == (1, None)


def test_baked_in_batch_counts_as_fixed(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 3, -1, 40], np.int64), "shape")
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["output"])]
    info = probe_model(save(tmp_path / "m.onnx", nodes, [shape], ["n", 3, "h", 40]))
    assert (info.batch, info.width_px, info.height_px) == (1, 40, None)


def test_metadata_tells_what_cannot_be_measured(tmp_path: Path) -> None:
    told = {"value_range": "255", "color_order": "bgr", "name": "mine", "size_multiple": "8"}
    info = probe_model(conv_model(tmp_path / "m.onnx", metadata=told))
    assert (info.value_range, info.bgr, info.name) == ((0.0, 255.0), True, "mine")
    assert (info.multiple_px, info.white) == (8, None)
    told = {
        "value_range": "-1,1",
        "color_order": "RGB",
        "pixel_white": "10000",
        "pixel_black": "-3.5",
    }
    info = probe_model(conv_model(tmp_path / "m.onnx", metadata=told))
    assert (info.value_range, info.bgr, info.black, info.white) == ((-1, 1), False, -3.5, 10_000)
    asked = probe_model(tmp_path / "m.onnx", value_range=(0.0, 2.0))
    assert asked.value_range == (0.0, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("value_range", "white", "value range 'white'"),
        ("value_range", "1,0", "the lower first"),
        ("value_range", "0,1,2", "value range '0,1,2'"),
        ("color_order", "rbg", "color_order='rbg'"),
        ("pixel_white", "inf", "pixel_white='inf'"),
        ("pixel_black", "none", "pixel_black='none'"),
    ],
)
def test_unusable_metadata_is_an_error(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        probe_model(conv_model(tmp_path / "bad.onnx", metadata={key: value}))
    assert "bad.onnx" in str(caught.value)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_any_few_channels(tmp_path: Path, layout: str, channels: int) -> None:
    model = conv_model(tmp_path / "m.onnx", channels=channels, layout=layout, height=40, width=48)
    info = probe_model(model)
    assert (info.layout, info.channels, info.scale) == (layout, channels, 2)
    assert (info.height_px, info.width_px, info.bgr) == (40, 48, False)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("channels", "side"), [(48, 32), (24, 32)])
def test_more_channels_than_pixels(tmp_path: Path, layout: str, channels: int, side: int) -> None:
    """At scale 1 both readings run: the square image is the likelier."""
    model = conv_model(
        tmp_path / "m.onnx", channels=channels, layout=layout, height=side, width=side, scale=1
    )
    info = probe_model(model)
    assert (info.layout, info.channels, info.scale) == (layout, channels, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [1, 2])
def test_free_sizes_before_the_channels(tmp_path: Path, channels: int, scale: int) -> None:
    """At scale 1 rows of three pixels would do as planes."""
    model = conv_model(tmp_path / "m.onnx", channels=channels, scale=scale, layout="NHWC")
    info = probe_model(model)
    assert (info.layout, info.channels, info.scale) == ("NHWC", channels, scale)
    assert (info.height_px, info.width_px) == (None, None)


@pytest.mark.parametrize("channels", [3, 1, 4])
def test_channels_that_the_file_leaves_open_are_tried(tmp_path: Path, channels: int) -> None:
    model = onnx.load(conv_model(tmp_path / "m.onnx", channels=channels))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    onnx.save(model, tmp_path / "open.onnx")
    assert probe_model(tmp_path / "open.onnx").channels == channels


@pytest.mark.parametrize("value_range", [(0.0, 255.0), (-1.0, 1.0)])
def test_radius_and_batch_do_not_depend_on_the_range(
    tmp_path: Path, value_range: tuple[float, float]
) -> None:
    model = conv_model(tmp_path / "plain.onnx", layers=3)
    plain = probe_model(model)
    model = in_other_numbers(model, tmp_path / "other.onnx", value_range)
    other = probe_model(model, value_range=value_range)
    assert other.radius_px is not None
    assert other.radius_px == plain.radius_px
    assert (other.batch, other.multiple_px, other.scale) == (None, 1, 2)


def test_what_is_no_image_model_is_described(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no image-to-image model \(input tensor\(float\)"):
        probe_model(classifier_model(tmp_path / "classifier.onnx"))
    with pytest.raises(ModelError, match="no image of 1 to 64 channels"):
        probe_model(save(tmp_path / "many.onnx", _identity(), [], ["n", 65, "h", "w"]))
    mean = [helper.make_node("ReduceMean", ["input"], ["output"], axes=[1], keepdims=1)]
    with pytest.raises(ModelError, match="takes 3 channels and gives 1"):
        probe_model(save(tmp_path / "grey.onnx", mean, [], ["n", 3, "h", "w"]))
    with pytest.raises(ModelError, match="four dimensions"):
        probe_model(save(tmp_path / "flat.onnx", _identity(), [], ["n", 3], output_rank=2))
    turned = [helper.make_node("Transpose", ["input"], ["output"], perm=[0, 1, 3, 2])]
    with pytest.raises(ModelError, match="no input size gave"):
        probe_model(save(tmp_path / "turned.onnx", turned, [], ["n", 3, "h", "w"]))


def _identity() -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", ["input"], ["output"])]


def test_corrupt_and_missing_models(tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x08\x07not a model")
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        probe_model(corrupt)
    whole = conv_model(tmp_path / "whole.onnx").read_bytes()
    corrupt.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        probe_model(corrupt)
    with pytest.raises(ModelError, match="does not exist"):
        probe_model(tmp_path / "nowhere.onnx")


def test_zoo_suggests_the_nearest_name(tmp_path: Path) -> None:
    assert find_model("lite-x2") == bundled_models()["lite-x2"]
    with pytest.raises(ModelError, match="did you mean 'lite-x2'"):
        find_model("litex2")
    with pytest.raises(ModelError, match="does not exist"):
        find_model("models/nothing.onnx")
    other = conv_model(tmp_path / "model.bin")
    assert find_model(other) == other


def test_bundled_models_are_what_they_say() -> None:
    for name, path in bundled_models().items():
        info = probe_model(path)
        assert info.name == name
        assert info.metadata["scale"] == str(info.scale)
        assert {"architecture", "licence", "training_data", "psnr_luma_db"} <= set(info.metadata)
        assert (info.batch, info.height_px, info.width_px) == (None, None, None)
        weights = onnx.load(path).graph.initializer
        parameters = sum(int(np.prod(w.dims)) for w in weights if w.data_type == 1)
        assert parameters <= (60_000 if name.startswith("lite") else 700_000)
        assert path.stat().st_size < 3_000_000


def test_devices() -> None:
    assert resolve_device("auto") in available_devices()
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match="unknown"):
        resolve_device("quantum")
    absent = "coreml" if "coreml" not in available_devices() else "directml"
    with pytest.raises(DeviceError, match="is not there"):
        resolve_device(absent)


def test_run_writes_straight_into_the_result(x2_model: Path) -> None:
    session = Session(str(x2_model), "cpu", 1)
    batch = np.random.default_rng(0).random((2, 3, 20, 24), np.float32)
    result = np.full((2, 3, 40, 48), np.nan, np.float32)
    session.run("input", "output", batch, result)
    np.testing.assert_array_equal(result, session.run_free("input", "output", batch))
    with pytest.raises(InferenceError, match="failed on a batch"):
        session.run("input", "output", batch[:, :1].copy(), result)


def test_elementwise_model_is_an_image_model(tmp_path: Path) -> None:
    info = probe_model(elementwise_model(tmp_path / "m.onnx", "Identity"))
    assert (info.scale, info.radius_px) == (1, 0)
