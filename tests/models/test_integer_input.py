"""Batches that travel as integers give the bytes that float batches give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import srpipe
from srpipe.api import prepare
from srpipe.errors import SettingsError
from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session
from srpipe.models.integer_input import take_integers
from srpipe.plan.colour import ColourPath
from srpipe.settings import Settings
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model, elementwise_model, save


def enhanced(source: Path, folder: Path, model: Path, **options: Any) -> np.ndarray:
    output = folder / "out.v"
    options = {"tile_size": 48, "overlap": 12, "engine": "serial"} | options
    srpipe.enhance(source, output, model=model, overwrite=True, **options)
    return read_pixels(output)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("model", "bands"),
    [
        ({}, 3),
        ({}, 4),
        ({}, 1),
        ({"layout": "NHWC"}, 3),
        ({"dtype": "float16"}, 3),
        ({"channels": 1}, 2),
        ({"batch": 3}, 3),
        ({"metadata": {"color_order": "bgr", "value_range": "255"}}, 3),
        ({"layout": "NHWC", "dtype": "float16", "metadata": {"color_order": "bgr"}}, 4),
    ],
    ids=str,
)
def test_integers_give_the_same_bytes(
    tmp_path: Path, dtype: str, model: dict[str, Any], bands: int
) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(70, 90, bands, dtype))
    path = conv_model(tmp_path / "m.onnx", **model)
    as_float = enhanced(source, tmp_path, path, transfer="float")
    as_integer = enhanced(source, tmp_path, path, transfer="integer")
    np.testing.assert_array_equal(as_integer, as_float)


def test_processes_take_integers_too(tmp_path: Path, picture: Path, x2_model: Path) -> None:
    results = [
        enhanced(
            picture,
            tmp_path,
            x2_model,
            transfer=transfer,
            engine="local",
            batch_size=4,
            workers=2,
        )
        for transfer in ("float", "integer")
    ]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("value_range", ["1", "255", "-1,1"])
def test_every_value_arrives_to_the_last_bit(tmp_path: Path, dtype: str, value_range: str) -> None:
    """What the model sees of each integer, where an image would round it again."""
    path = elementwise_model(tmp_path / "m.onnx", "Identity", metadata={"value_range": value_range})
    info = probe_model(path)
    most = np.iinfo(dtype).max
    pixels = np.arange(3 * 256 * 256).reshape(1, 3, 256, 256).astype(dtype)
    colour = ColourPath(
        bands=3, colours=3, channels=3, bgr=False, value_range=info.value_range, white=most,
        highest=most, layout="NCHW", scale=1,
    )  # fmt: skip
    content = take_integers(info, colour.table(dtype, "float32"))
    session = Session(str(path), "cpu", 1, content)
    result = np.empty(pixels.shape, np.float32)
    session.run(session.inputs[0].name, "output", pixels, result)
    low, high = info.value_range
    expected = np.divide(pixels, np.float32(most / (high - low)), dtype=np.float32)
    np.testing.assert_array_equal(result, expected + np.float32(low))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """90x70 RGB TIFF."""
    return write_pixels(tmp_path / "in.tif", photograph_pixels(70, 90))


def test_weights_in_other_files_are_found(tmp_path: Path, picture: Path) -> None:
    inside = conv_model(tmp_path / "m.onnx", features=16)
    outside = tmp_path / "far" / "m.onnx"
    outside.parent.mkdir()
    onnx.save(
        onnx.load(inside),
        outside,
        save_as_external_data=True,
        location="m.data",
        size_threshold=1000,
    )
    np.testing.assert_array_equal(
        enhanced(picture, tmp_path, outside, transfer="integer"),
        enhanced(picture, tmp_path, inside, transfer="float"),
    )


def test_subgraphs_see_the_converted_input(tmp_path: Path, picture: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Mul", ["input", "half"], ["halved"])],
        "branch",
        [],
        [helper.make_tensor_value_info("halved", onnx.TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch)
    weights = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]
    model = save(tmp_path / "m.onnx", [node], weights, ["n", 3, "h", "w"])
    result = enhanced(picture, tmp_path, model, transfer="integer")
    np.testing.assert_array_equal(result, enhanced(picture, tmp_path, model, transfer="float"))
    assert abs(result.mean() - read_pixels(picture).mean() / 2) < 1


def test_batches_are_a_quarter_as_large(tmp_path: Path, picture: Path, x2_model: Path) -> None:
    plans = [
        prepare(
            str(picture),
            str(tmp_path / "out.tif"),
            Settings(model=str(x2_model), transfer=transfer, batch_size=2),
        )
        for transfer in ("float", "integer", "auto")
    ]
    as_float, as_integer, auto = plans
    values = np.prod(as_float.slot_shapes.batch) * as_float.slot_counts.batch
    assert as_float.slot_bytes - as_integer.slot_bytes == 3 * values
    assert auto.integer_input == (auto.device != "cpu")


def test_luma_is_no_integer(tmp_path: Path, picture: Path) -> None:
    model = conv_model(tmp_path / "luma.onnx", channels=1)
    with pytest.raises(SettingsError, match="sees the luma"):
        enhanced(picture, tmp_path, model, transfer="integer")
    with pytest.raises(SettingsError, match="transfer is 'bytes'"):
        enhanced(picture, tmp_path, model, transfer="bytes")
