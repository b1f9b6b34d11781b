from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srpipe.errors import WriteError
from srpipe.io.canvas_files import CanvasFiles, reserve_canvas
from srpipe.io.save_options import check_options
from srpipe.io.source import read_image_info
from srpipe.io.vips import pyvips
from srpipe.io.writer import ImageWriter
from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.factories import make_test_plan
from tests.processes import wait_until


def plan_with_pixels(
    tmp_path: Path, bands: int = 3, dtype: str = "uint8", output: str = "out.tif"
) -> tuple[Plan, np.ndarray]:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(100, 150, bands, dtype))
    plan = make_test_plan(
        tmp_path,
        image={"path": str(source), "size": Size(150, 100), "bands": bands, "dtype": dtype},
        output=output,
    )
    reserve_canvas(plan)
    pixels = photograph_pixels(200, 300, bands, dtype)
    CanvasFiles(plan, writable=True).pixels[...] = pixels
    return plan, pixels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("output", ["o.tif", "o.tif[pyramid,tile]", "o.png", "o.v"])
def test_every_depth_and_band_count(tmp_path: Path, dtype: str, bands: int, output: str) -> None:
    plan, pixels = plan_with_pixels(tmp_path, bands, dtype, output)
    path = tmp_path / f"part{Path(plan.output.path).suffix}"
    writer = ImageWriter(plan, str(path))
    for stop in (0, 1, 90, 90, 200):
        writer.write_rows(stop)
    writer.finish()
    np.testing.assert_array_equal(read_pixels(path), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("interpretation", ["multiband", "grey16"])
@pytest.mark.parametrize("bands", [2, 4, 5, 12])
@pytest.mark.parametrize("output", ["o.tif", "o.tif[pyramid,tile]", "o.v"])
def test_bands_of_data_stay_data(
    tmp_path: Path, dtype: str, interpretation: str, bands: int, output: str
) -> None:
    if interpretation == "grey16":
        bands = max(bands, 4)  # two would be grey and alpha
    pixels = (
        np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 50, bands)).astype(dtype)
    )
    source = write_pixels(tmp_path / "in.tif", pixels)
    plan = make_test_plan(
        tmp_path,
        image={
            "path": str(source), "size": Size(50, 40), "bands": bands, "dtype": dtype,
            "interpretation": interpretation,
        },
        model={"channels": bands, "scale": 1},
        output=output,
    )  # fmt: skip
    check_options(plan.output, plan.written)
    reserve_canvas(plan)
    CanvasFiles(plan, writable=True).pixels[...] = pixels
    path = tmp_path / f"part{Path(plan.output.path).suffix}"
    ImageWriter(plan, str(path)).finish()
    written = read_image_info(path, allow_untrusted=True)
    assert (written.bands, written.dtype) == (bands, dtype)
    assert not written.is_picture
    np.testing.assert_array_equal(read_pixels(path), pixels)


@pytest.mark.parametrize(("output", "loader"), [("o.jpg", "jpegload"), ("o.webp", "webpload")])
def test_lossy_formats(tmp_path: Path, output: str, loader: str) -> None:
    plan, pixels = plan_with_pixels(tmp_path, output=output)
    path = tmp_path / output
    writer = ImageWriter(plan, str(path))
    writer.finish()
    assert pyvips.Image.new_from_file(str(path)).get("vips-loader") == loader
    assert np.abs(read_pixels(path).astype(int) - pixels).mean() < 3


def test_rows_are_encoded_before_the_last_is_known(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(100, 150))
    plan = make_test_plan(
        tmp_path,
        image={"path": str(source), "size": Size(1000, 1000)},
        output="o.tif[compression=none]",
    )
    reserve_canvas(plan)
    path = tmp_path / "part.tif"
    writer = ImageWriter(plan, str(path))
    writer.write_rows(1900)
    wait_until(lambda: path.stat().st_size >= 1_000_000, "a megabyte of the output")
    writer.finish()


def test_no_row_is_read_before_it_is_final(tmp_path: Path) -> None:
    plan, pixels = plan_with_pixels(tmp_path, output="o.v")
    canvas = CanvasFiles(plan, writable=True).pixels
    canvas[...] = 255 - pixels
    writer = ImageWriter(plan, str(tmp_path / "part.v"))
    for stop in range(20, 201, 20):
        time.sleep(0.05)  # the saver would have read ahead by now
        canvas[stop - 20 : stop] = pixels[stop - 20 : stop]
        writer.write_rows(stop)
    writer.finish()
    np.testing.assert_array_equal(read_pixels(tmp_path / "part.v"), pixels)


def test_unknown_option_and_missing_folder_are_errors(tmp_path: Path) -> None:
    plan, _ = plan_with_pixels(tmp_path, output="o.tif[colour=blue]")
    with pytest.raises(WriteError, match=r"o\.tif cannot be written .*colour"):
        ImageWriter(plan, str(tmp_path / "part.tif")).finish()
    plan, _ = plan_with_pixels(tmp_path)
    with pytest.raises(WriteError, match="cannot be written"):
        ImageWriter(plan, str(tmp_path / "nowhere" / "part.tif")).finish()


def test_full_disk_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    plan, _ = plan_with_pixels(tmp_path, output="o.tif[compression=none]")
    with pytest.raises(WriteError, match="cannot be written"):
        ImageWriter(plan, "/dev/full").finish()


def test_abort_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    plan, _ = plan_with_pixels(tmp_path)
    before = threading.active_count()
    writer = ImageWriter(plan, str(tmp_path / "part.tif"))
    writer.write_rows(50)
    writer.abort()
    assert not (tmp_path / "part.tif").exists()
    assert threading.active_count() == before


def test_profile_resolution_and_exif_are_carried(tmp_path: Path) -> None:
    plan, _ = plan_with_pixels(tmp_path)
    image = pyvips.Image.new_from_file(plan.image.path).copy(xres=10.0, yres=12.0)
    profile = pyvips.Operation.call("profile_load", "srgb")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.copy_memory().write_to_file(str(tmp_path / "tagged.tif"))
    (tmp_path / "tagged.tif").rename(plan.image.path)
    plan = replace(plan, image=replace(plan.image, orientation=6, icc_bytes=len(profile)))
    writer = ImageWriter(plan, str(tmp_path / "part.tif"))
    writer.finish()
    written = pyvips.Image.new_from_file(str(tmp_path / "part.tif"))
    assert written.get("icc-profile-data") == profile
    assert written.get("orientation") == 6
    assert written.xres == pytest.approx(20, rel=1e-4)
    assert written.yres == pytest.approx(24, rel=1e-4)
