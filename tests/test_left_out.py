"""What a mask or an even tile leaves out is resized plainly, and costs the model nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import srpipe
from srpipe.plan.colour import resize_plain
from srpipe.progress import summary
from srpipe.settings import Engine
from tests import naive
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.nets_of_companions import companion_model
from tests.onnx_models import conv_model
from tests.test_resume import StopAt
from tests.test_reuse import page


def enhanced(source: Path, output: Path, **options: Any) -> tuple[srpipe.Report, np.ndarray]:
    options = {"tile_size": 48, "overlap": 12, "engine": "threads"} | options
    report = srpipe.enhance(source, output, overwrite=True, **options)
    return report, read_pixels(output)


def plainly(pixels: np.ndarray, scale: int) -> np.ndarray:
    padded = np.pad(pixels, [(4, 4), (4, 4), (0, 0)], mode="reflect")
    planes = resize_plain(padded, scale, 0, np.iinfo(pixels.dtype).max)
    resized = naive.to_integers(planes.transpose(1, 2, 0), pixels.dtype)
    return resized[4 * scale : -4 * scale, 4 * scale : -4 * scale]


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White in the middle third, black to the left, a slope to the right."""
    values = np.zeros((100, 150, 1), np.uint8)
    values[:, 50:100] = 255
    values[:, 100:] = np.linspace(255, 0, 50)[:, np.newaxis]
    return write_pixels(tmp_path / "mask.png", values)


def test_black_is_plain_and_white_the_model_s(
    tmp_path: Path, photograph: Path, x2_model: Path, mask: Path
) -> None:
    _, model = enhanced(photograph, tmp_path / "model.v", model=x2_model)
    report, found = enhanced(photograph, tmp_path / "out.v", model=x2_model, mask=mask)
    plain = plainly(read_pixels(photograph), 2)
    np.testing.assert_array_equal(found[:, 220:380], model[:, 220:380])
    assert np.abs(found[:, :180].astype(int) - plain[:, :180]).max() <= 1
    assert 0 < report.skipped_tiles < report.tiles // 2
    assert f"{report.skipped_tiles} of them left out" in summary(report)
    # On the slope both are mixed; half way down by halves.
    halves = (model[:, 498:502].astype(float) + plain[:, 498:502]) / 2
    assert np.abs(found[:, 498:502] - halves).max() <= 4
    assert np.abs(model[:, 498:502].astype(float) - plain[:, 498:502]).max() > 20


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_a_part_all_of_one_kind(tmp_path: Path, x2_model: Path, bands: int) -> None:
    pixels = photograph_pixels(100, 150, bands, "uint16")
    source = write_pixels(tmp_path / "in.tif", pixels)
    values = np.zeros((100, 150, 1), np.uint8)
    values[:, 90:] = 255
    mask = write_pixels(tmp_path / "mask.png", values)
    options = {"model": x2_model, "mask": mask}
    report, found = enhanced(source, tmp_path / "out.v", region=(0, 0, 60, 100), **options)
    assert (report.skipped_tiles, report.mask_share) == (report.tiles, 0)
    assert np.abs(found.astype(int) - plainly(pixels, 2)[:, :120]).max() <= 1
    report, found = enhanced(source, tmp_path / "out.v", region=(110, 0, 40, 100), **options)
    assert (report.skipped_tiles, report.mask_share) == (0, 1)
    _, model = enhanced(source, tmp_path / "model.v", model=x2_model)
    np.testing.assert_array_equal(found, model[:, 220:])


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_masks_of_0_and_1(tmp_path: Path, photograph: Path, x2_model: Path, dtype: str) -> None:
    white = np.zeros((200, 300), dtype)
    white[:, 150:] = 1
    tifffile.imwrite(tmp_path / "mask.tif", white)
    report, found = enhanced(
        photograph, tmp_path / "out.v", model=x2_model, mask=tmp_path / "mask.tif"
    )
    assert report.mask_share == 0.5
    _, model = enhanced(photograph, tmp_path / "model.v", model=x2_model)
    np.testing.assert_array_equal(found[:, 320:], model[:, 320:])
    plain = plainly(read_pixels(photograph), 2)
    assert np.abs(found[:, :280].astype(int) - plain[:, :280]).max() <= 1


def test_background_is_plain_and_all_else_the_model_s(tmp_path: Path, x2_model: Path) -> None:
    pixels = page(400, 500)
    pixels[300, 450] = 240  # one grey point: more than eight levels from white
    source = write_pixels(tmp_path / "page.tif", pixels)
    _, model = enhanced(source, tmp_path / "model.v", model=x2_model)
    options = {"model": x2_model, "skip_background": True}
    report, found = enhanced(source, tmp_path / "out.v", **options)
    assert report.skipped_tiles > 0.4 * report.tiles
    np.testing.assert_array_equal(found[140:380, 180:500], model[140:380, 180:500])
    np.testing.assert_array_equal(found[590:612, 890:912], model[590:612, 890:912])
    assert (found[:60] == 255).all()  # white stays white, whatever the model makes of it
    tolerant, _ = enhanced(source, tmp_path / "t.v", background_levels=20, **options)
    assert tolerant.skipped_tiles > report.skipped_tiles


OPTIONS: list[dict[str, Any]] = [
    {"engine": "threads", "batch_size": 3}, {"engine": "local", "batch_size": 4},
    {"engine": "serial", "batch_size": 8, "reuse": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_engines_and_batches_agree(
    tmp_path: Path, x2_model: Path, mask: Path, options: dict[str, Any]
) -> None:
    source = write_pixels(tmp_path / "page.tif", page(300, 450, 4))
    common = {"model": x2_model, "mask": mask, "skip_background": True}
    serial, expected = enhanced(source, tmp_path / "serial.v", engine="serial", **common)
    report, found = enhanced(source, tmp_path / "out.v", **(common | options))
    np.testing.assert_array_equal(found, expected)
    assert report.skipped_tiles == serial.skipped_tiles > 0


@pytest.mark.parametrize(("engine", "batch_size", "exact"), [
    ("serial", 3, True), ("serial", 3, False), ("local", 2, False),
])  # fmt: skip
def test_resuming_gives_the_same_file(
    tmp_path: Path, x2_model: Path, mask: Path, engine: Engine, batch_size: int, exact: bool
) -> None:
    source = write_pixels(tmp_path / "page.tif", page(300, 450))
    model = x2_model if exact else companion_model(tmp_path / "companions.onnx")
    common = {"model": model, "mask": mask, "skip_background": True, "batch_size": batch_size}
    whole, expected = enhanced(source, tmp_path / "whole.v", engine="serial", **common)
    output = tmp_path / "out.v"
    for at in (20, 50) if engine == "serial" else (35,):
        watch = StopAt(at)
        with pytest.raises(srpipe.Interrupted):
            enhanced(
                source, output, engine=engine, checkpoint_every_s=0, progress=watch,
                stop=watch.stop, **common,
            )  # fmt: skip
    with pytest.raises(
        srpipe.JobError, match="background: tiles within 8 levels, now tiles within 9"
    ):
        enhanced(source, output, background_levels=9, **common)
    report, found = enhanced(source, output, engine=engine, **common)
    assert report.resumed_tiles >= 20
    assert report.skipped_tiles <= whole.skipped_tiles
    np.testing.assert_array_equal(found, expected)


def test_another_mask_is_another_job(
    tmp_path: Path, photograph: Path, x2_model: Path, mask: Path
) -> None:
    watch = StopAt(5)
    options = {"model": x2_model, "mask": mask, "engine": "serial", "checkpoint_every_s": 0}
    with pytest.raises(srpipe.Interrupted):
        enhanced(photograph, tmp_path / "o.v", progress=watch, stop=watch.stop, **options)
    write_pixels(mask, photograph_pixels(100, 150, 1))
    with pytest.raises(srpipe.JobError, match="mask: "):
        enhanced(photograph, tmp_path / "o.v", **options)


def test_a_region_of_a_masked_image_that_is_continued(
    tmp_path: Path, photograph: Path, mask: Path
) -> None:
    model = conv_model(tmp_path / "x3.onnx", scale=3)
    options = {"model": model, "mask": mask, "edges": "reflect"}
    _, whole = enhanced(photograph, tmp_path / "whole.v", **options)
    _, found = enhanced(photograph, tmp_path / "p.v", region=(80, 0, 99, 200), **options)
    np.testing.assert_array_equal(found, whole[:, 240:537])


def test_the_command(tmp_path: Path, photograph: Path, mask: Path) -> None:
    from srpipe.cli.main import main

    out = tmp_path / "out.png"
    command = [
        "enhance", str(photograph), str(out), "--mask", str(mask), "--skip-background",
        "--background-levels", "4", "--edges", "wrap", "--region", "10,20,30,40", "-q",
    ]  # fmt: skip
    assert main(command) == 0
    assert read_pixels(out).shape == (80, 60, 3)
    assert main([*command[:-2], "10,20,30", "--overwrite"]) == 2
