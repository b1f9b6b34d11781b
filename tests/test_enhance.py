"""Whole runs on real files: parity of the engines, seams, any sane image and model."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import srpipe
from srpipe.models.zoo import bundled_models
from srpipe.plan.grid import Grid, plan_axis
from srpipe.settings import Blend
from tests import naive
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model, elementwise_model
from tests.processes import without_notes

PARITY: list[dict[str, Any]] = [
    {},
    {"blend": "mean"},
    {"blend": "crop", "batch_size": 3},
    {"batch_size": 8, "threads": 1},
    {"workers": 2, "threads": 1},
    {"workers": 2, "batch_size": 4, "threads": 2},
    {"tile_size": 40, "overlap": 19},
]


def enhanced(source: Path, folder: Path, model: Path | str, **options: Any) -> np.ndarray:
    output = folder / "out.v"
    options = {"tile_size": 64, "overlap": 12} | options
    srpipe.enhance(source, output, model=model, overwrite=True, **options)
    assert not Path(f"{output}.srpipe").exists()
    return read_pixels(output)


@pytest.mark.parametrize("options", PARITY, ids=str)
def test_engines_agree_byte_for_byte(
    tmp_path: Path, photograph: Path, x2_model: Path, options: dict[str, Any]
) -> None:
    serial_options = {k: v for k, v in options.items() if k not in ("workers", "threads")}
    serial = enhanced(photograph, tmp_path, x2_model, engine="serial", **serial_options)
    for engine in ("threads", "local"):
        result = enhanced(photograph, tmp_path, x2_model, engine=engine, **options)
        np.testing.assert_array_equal(result, serial)


def test_result_does_not_depend_on_batch_size_or_workers(tmp_path: Path, photograph: Path) -> None:
    reference = enhanced(photograph, tmp_path, "lite-x2", engine="serial", batch_size=1)
    for batch_size in range(2, 9):
        same = enhanced(photograph, tmp_path, "lite-x2", engine="serial", batch_size=batch_size)
        np.testing.assert_array_equal(same, reference)
    for workers in (1, 2):
        for engine in ("threads", "local"):
            same = enhanced(photograph, tmp_path, "lite-x2", workers=workers, engine=engine)
            np.testing.assert_array_equal(same, reference)


@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("blend", ["feather", "crop"])
def test_overlap_of_twice_the_radius_equals_the_whole_image(
    tmp_path: Path, photograph: Path, layers: int, blend: Blend
) -> None:
    model = conv_model(tmp_path / "m.onnx", layers=layers)
    tiled = enhanced(photograph, tmp_path, model, overlap=2 * layers, blend=blend)
    whole = naive.model_output(str(model), read_pixels(photograph))
    difference = np.abs(tiled.astype(int) - naive.to_integers(whole, tiled.dtype))
    assert difference.max() <= 1


def test_the_box_is_not_empty() -> None:
    assert "lite-x2" in bundled_models()


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_default_settings_leave_no_seams(tmp_path: Path, name: str) -> None:
    pixels = photograph_pixels(1100, 1300)
    source = write_pixels(tmp_path / "in.tif", pixels)
    report = srpipe.enhance(source, tmp_path / "out.v", model=name)
    assert report.tiles > 4
    tiled = read_pixels(tmp_path / "out.v")
    whole = naive.to_integers(naive.model_output(str(bundled_models()[name]), pixels), tiled.dtype)
    assert naive.psnr_db(tiled, whole) >= 60
    scale = report.output_size.width // report.input_size.width
    error = (tiled.astype(float) - whole) ** 2
    near = np.zeros(error.shape[:2], bool)
    for x in range(report.stride.width * scale, near.shape[1], report.stride.width * scale):
        near[:, x - 4 : x + 4 + report.tile.width - report.stride.width] = True
    assert error[near].mean() <= max(2 * error[~near].mean(), 1e-3)


def test_mean_is_a_plain_average_of_the_tiles(
    tmp_path: Path, photograph: Path, x2_model: Path
) -> None:
    tile, overlap, scale = 64, 24, 2
    pixels = read_pixels(photograph)
    axes = [plan_axis(n, tile, overlap, 1, least_px=1) for n in (300, 200)]
    grid = Grid(*axes)
    total, count = np.zeros((400, 600, 3)), np.zeros((400, 600, 1))
    for t in grid.tiles():
        r = t.source
        part = pixels[r.top : r.top + r.height, r.left : r.left + r.width]
        where = np.s_[
            r.top * scale : (r.top + r.height) * scale, r.left * scale : (r.left + r.width) * scale
        ]
        total[where] += naive.model_output(str(x2_model), part, edge_px=0)
        count[where] += 1
    expected = naive.to_integers(total / count, np.dtype(np.uint8))
    tiled = enhanced(photograph, tmp_path, x2_model, blend="mean", overlap=overlap, edges="none")
    assert np.abs(tiled.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_identity_keeps_every_depth_and_band(
    tmp_path: Path, dtype: str, bands: int, engine: Any
) -> None:
    pixels = photograph_pixels(150, 170, bands, dtype)
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = elementwise_model(tmp_path / "identity.onnx", "Identity")
    result = enhanced(source, tmp_path, model, engine=engine)
    assert result.dtype == pixels.dtype
    if bands in (2, 4):
        np.testing.assert_array_equal(result[..., -1], pixels[..., -1])
        seen = pixels[..., -1] > 0  # other colours bleed under what is transparent
        result, pixels = result[seen], pixels[seen]
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "dims", [{}, {"batch": 3}, {"height": 48, "width": 64}, {"multiple": 16}], ids=str
)
def test_every_kind_of_model_agrees_with_the_plain_one(
    tmp_path: Path, layout: str, dtype: str, channels: int, dims: dict[str, Any]
) -> None:
    """A kind of model changes how it is called, not what comes out of it."""
    bands = 1 if channels == 1 else 3
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(100, 130, bands))
    multiple = {k: v for k, v in dims.items() if k == "multiple"}
    plain = conv_model(tmp_path / "plain.onnx", channels=channels, **multiple)
    kind = conv_model(tmp_path / "kind.onnx", channels=channels, layout=layout, dtype=dtype, **dims)
    overlap = 32 if multiple else 12
    sizes = {"tile_size": 96, "overlap": overlap}
    reference = enhanced(source, tmp_path, plain, **sizes).astype(int)
    if "height" in dims:
        sizes = {"tile_size": None, "overlap": overlap}
    result = enhanced(source, tmp_path, kind, **sizes).astype(int)
    assert np.abs(result - reference).max() <= (1 if dtype == "float32" else 2)


def test_one_channel_model_on_rgb_changes_luma_only(tmp_path: Path) -> None:
    pixels = photograph_pixels(90, 120)
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = conv_model(tmp_path / "luma.onnx", channels=1, scale=1)
    change = enhanced(source, tmp_path, model).astype(int) - pixels
    inside = (pixels > 40).all(axis=2) & (pixels < 215).all(axis=2)
    assert np.abs(change[inside]).max() > 0
    assert np.ptp(change[inside], axis=1).max() <= 1


@pytest.mark.parametrize(("bands", "channels"), [(4, 3), (3, 1), (2, 1)])
def test_alpha_and_chroma_leave_no_seams_either(tmp_path: Path, bands: int, channels: int) -> None:
    """What is resized beside the model reaches farther than a small model does."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(150, 170, bands))
    model = conv_model(tmp_path / "m.onnx", channels=channels, layers=1)
    tiled = enhanced(source, tmp_path, model, overlap=4).astype(int)
    whole = enhanced(source, tmp_path, model, tile_size=512, overlap=0).astype(int)
    difference = np.abs(tiled - whole)
    if bands in (2, 4):
        assert difference[..., -1].max() <= 1
        difference = difference[whole[..., -1] > 0]  # what bleeds is seen by nobody
    assert difference.max() <= 1


def test_value_range_and_colour_order_are_obeyed(tmp_path: Path, photograph: Path) -> None:
    pixels = read_pixels(photograph)
    at_most = elementwise_model(tmp_path / "a.onnx", "Min", 128, metadata={"value_range": "255"})
    np.testing.assert_array_equal(enhanced(photograph, tmp_path, at_most), pixels.clip(0, 128))
    first = np.array([1, 0, 0]).reshape(1, 3, 1, 1)
    blue = elementwise_model(tmp_path / "b.onnx", "Mul", first, metadata={"color_order": "bgr"})
    np.testing.assert_array_equal(enhanced(photograph, tmp_path, blue), pixels * [[[0, 0, 1]]])


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (1, 50), (7, 3), (63, 65), (64, 64), (127, 131), (1000, 5), (5, 1000)],
)
@pytest.mark.parametrize("multiple", [1, 8])
def test_any_size(tmp_path: Path, width: int, height: int, multiple: int) -> None:
    pixels = photograph_pixels(height, width)
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = conv_model(tmp_path / "m.onnx", multiple=multiple)
    result = enhanced(source, tmp_path, model, overlap=31 if multiple == 1 else 24)
    assert result.shape == (2 * height, 2 * width, 3)
    whole = naive.to_integers(naive.model_output(str(model), pixels), result.dtype)
    assert np.abs(result.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(60_000, 40), (40, 60_000)])
def test_very_long_images(tmp_path: Path, x2_model: Path, width: int, height: int) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(40, 40).repeat(1500, axis=1))
    if height > width:
        source = write_pixels(source, read_pixels(source).transpose(1, 0, 2).copy())
    report = srpipe.enhance(source, tmp_path / "out.tif", model=x2_model, engine="local")
    assert str(report.output_size) == f"{2 * width}x{2 * height}"
    assert read_pixels(tmp_path / "out.tif").shape == (2 * height, 2 * width, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif[compression=jpeg,tile,pyramid]"])
def test_output_formats(tmp_path: Path, photograph: Path, x2_model: Path, suffix: str) -> None:
    srpipe.enhance(photograph, f"{tmp_path}/out{suffix}", model=x2_model)
    result = read_pixels(tmp_path / f"out{suffix.split('[')[0]}")
    reference = enhanced(photograph, tmp_path, x2_model, tile_size=None, overlap=None)
    assert naive.psnr_db(result, reference) > 30


def test_report_and_progress(tmp_path: Path, photograph: Path, x2_model: Path) -> None:
    events: list[srpipe.ProgressEvent] = []
    report = srpipe.enhance(
        photograph, tmp_path / "o.tif", model=x2_model, tile_size=64, progress=events.append,
        engine="local",
    )  # fmt: skip
    assert [e.state for e in events][:: len(events) - 1] == ["started", "finished"]
    done = [e.tiles_done for e in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].tiles_total == report.tiles
    assert events[-1].output_mp_total == pytest.approx(0.24)
    assert set(report.stage_s) == {"reader", "batcher", "worker", "accumulator", "writer"}
    assert all(seconds > 0 for seconds in report.stage_s.values())
    assert report.output_mp_per_s > report.input_mp_per_s > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.seconds = 0.0  # type: ignore[misc]


def test_runs_from_threads_and_again_in_one_process(
    tmp_path: Path, photograph: Path, x2_model: Path
) -> None:
    outputs = [tmp_path / f"out{i}.v" for i in range(3)]

    def run(output: Path) -> None:
        srpipe.enhance(photograph, output, model=x2_model, tile_size=64, engine="local")

    threads = [threading.Thread(target=run, args=(output,)) for output in outputs[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(outputs[2])
    first, second, third = (read_pixels(output) for output in outputs)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_a_script_without_a_main_guard_works(
    tmp_path: Path, photograph: Path, x2_model: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import srpipe\n"
        "print('imported')\n"
        f"r = srpipe.enhance({str(photograph)!r}, 'out.tif', model={str(x2_model)!r}, "
        "workers=2, tile_size=64)\n"
        "print(r.engine)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["imported", "local"]
    assert without_notes(done.stderr) == ""
    assert (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("blend", get_args(Blend))
def test_nan_is_an_error_that_names_the_tile(tmp_path: Path, blend: Blend) -> None:
    pixels = photograph_pixels(150, 150)
    pixels[pixels == 0] = 1
    pixels[100, 100] = 0
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = elementwise_model(tmp_path / "log.onnx", "Log")
    for engine in ("serial", "threads", "local"):
        with pytest.raises(
            srpipe.InferenceError, match=r"NaN or infinity in 3 values of tile 8 \("
        ):
            enhanced(source, tmp_path, model, overlap=0, tile_size=50, blend=blend, engine=engine)
    assert not (tmp_path / "out.v").exists()
    assert (tmp_path / "out.v.srpipe").is_dir()  # eight tiles are good


def test_job_folder_elsewhere(tmp_path: Path, photograph: Path, x2_model: Path) -> None:
    other = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    job_dir = other / f"srpipe-test-{os.getpid()}"
    result = enhanced(photograph, tmp_path, x2_model, job_dir=job_dir, engine="local")
    assert result.shape == (400, 600, 3)
    assert not job_dir.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.v", "photograph.tif"]
