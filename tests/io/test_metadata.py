from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srpipe import enhance
from srpipe.io.vips import pyvips
from tests.conftest import photograph_pixels, write_pixels

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
RESOLUTION_PER_MM = 300 / 25.4


@pytest.fixture
def tagged(tmp_path: Path) -> Any:
    """64x48 pixels with all that a camera and an editor add, 300 to the inch."""
    image = pyvips.Image.new_from_file(
        str(write_pixels(tmp_path / "p.tif", photograph_pixels(48, 64)))
    )
    image = image.icc_transform("srgb", input_profile="srgb")
    image = image.copy(xres=RESOLUTION_PER_MM, yres=RESOLUTION_PER_MM)
    text, number, blob = (getattr(pyvips.GValue, f"{t}_type") for t in ("gstr", "gint", "blob"))
    image.set_type(text, "exif-ifd0-Make", "ACME (ACME, ASCII, 5 components, 5 bytes)")
    image.set_type(text, "exif-ifd2-PixelXDimension", "64 (64, Long, 1 components, 4 bytes)")
    image.set_type(number, "orientation", 6)
    image.set_type(blob, "xmp-data", XMP)
    return image


@pytest.mark.parametrize("source", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("output", ["jpg", "tif", "png", "webp"])
def test_metadata_and_print_size_stay(
    tmp_path: Path, tagged: Any, x2_model: Path, source: str, output: str
) -> None:
    tagged.write_to_file(str(tmp_path / f"in.{source}"))
    before = pyvips.Image.new_from_file(str(tmp_path / f"in.{source}"))
    enhance(tmp_path / f"in.{source}", tmp_path / f"out.{output}", model=x2_model)
    after = pyvips.Image.new_from_file(str(tmp_path / f"out.{output}"))
    assert (after.width, after.height) == (128, 96)  # not turned, and the tag says how to
    assert after.get("orientation") == 6
    assert after.get("icc-profile-data") == before.get("icc-profile-data")
    assert after.get("xmp-data") == XMP
    if output != "webp":  # which has no place for it but EXIF
        assert after.xres == pytest.approx(2 * RESOLUTION_PER_MM, rel=1e-3)
    if output != "tif":  # EXIF does not get into a TIFF
        per_inch = after.get("exif-ifd0-XResolution").split(" ")[0].split("/")
        assert int(per_inch[0]) / int(per_inch[1]) == pytest.approx(600, rel=1e-3)
        assert after.get("exif-ifd2-PixelXDimension").split(" ")[0] == "128"
        if source != "tif":
            assert after.get("exif-ifd0-Make").startswith("ACME")
