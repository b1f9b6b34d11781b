from __future__ import annotations

import logging
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from srpipe.errors import InputError
from srpipe.io.tiff_header import TiffHeader, read_tiff_header
from srpipe.plan.geometry import Size
from tests.tiff_files import write_band_tiff

RGB = np.zeros((100, 130, 3), np.uint8)


def header(path: Path, pixels: np.ndarray = RGB, **options: object) -> TiffHeader:
    tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]
    return read_tiff_header(path)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_of_the_first_page(tmp_path: Path, big: bool, order: str) -> None:
    pixels = np.zeros((3, 4, 5), np.uint16)
    for separate in (False, True):
        path = write_band_tiff(tmp_path / "a.tif", pixels, separate=separate, big=big, order=order)
        read = read_tiff_header(path)
        assert (read.size, read.bits, read.samples) == (Size(4, 3), 16, 5)
        assert (read.separate, read.codec, read.photometric) == (separate, "none", 1)
        assert read.extra_samples == (0, 0, 0, 0)
        assert len(read.offsets) == (5 if separate else 1)


def test_codec_predictor_resolution_and_gdals_tags(tmp_path: Path) -> None:
    nodata = (42113, "s", 0, "-9999 ", True)
    read = header(
        tmp_path / "a.tif", np.zeros((50, 60), np.float32), compression="deflate", predictor=3,
        tile=(16, 32), resolution=(300, 150), resolutionunit=2, extratags=[nodata],
    )  # fmt: skip
    assert (read.codec, read.predictor, read.sample_format, read.bits) == ("Deflate", 3, 3, 32)
    assert (read.tiled, read.piece, read.across, read.down) == (True, Size(32, 16), 2, 4)
    assert (read.resolution, read.resolution_unit) == ((300.0, 150.0), 2)
    assert (read.nodata, read.nodata_text) == (-9999.0, "-9999")


def test_pieces_that_are_sparse_or_lie_beyond_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    read = header(path, tile=(64, 64), compression="deflate")
    assert not read.sparse.any()
    assert not read.cut_off.any()
    with tifffile.TiffFile(path, mode="r+b") as file:
        for number in (324, 325):
            tag = file.pages[0].tags[number]  # type: ignore[union-attr]
            tag.overwrite([0, *tag.value[1:]])
    assert list(read_tiff_header(path).sparse) == [True] + [False] * 5
    last = int(read.offsets[-1])
    with path.open("r+b") as file:
        file.truncate(last + 3)
    if last > struct.unpack_from("<I", path.read_bytes(), 4)[0]:  # the directory is still there
        assert list(read_tiff_header(path).cut_off) == [False] * 5 + [True]


def test_masks_levels_and_further_pages_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[..., 0] > 0, photometric=4, subfiletype=4)
        file.write(RGB[::2, ::2], photometric="rgb")  # as old pyramids have it
        file.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(RGB[:90, :90], photometric="rgb")
    read = read_tiff_header(path)
    assert read.pages == 2
    assert read.mask is not None
    assert read.mask.name == "page 2"
    assert [p.is_level for p in read.others] == [False, True, True, False]
    assert read.larger is None


def test_a_thumbnail_in_front(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB[::4, ::4], photometric="rgb", subfiletype=1, subifds=1)
        file.write(RGB, photometric="rgb")
    read = read_tiff_header(path)
    assert read.is_reduced
    assert read.larger is not None
    assert (read.larger.name, read.larger.size) == ("SubIFD 0", Size(130, 100))


def test_a_chain_that_loops_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB, photometric="rgb")
    with tifffile.TiffFile(path) as file:
        first, second = (page.offset for page in file.pages)
    data = bytearray(path.read_bytes())
    n_tags = struct.unpack_from("<H", data, second)[0]
    for target in (first, second):
        struct.pack_into("<I", data, second + 2 + 12 * n_tags, target)
        path.write_bytes(data)
        assert read_tiff_header(path).pages == 2


def test_claims_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    block = 1 << 20
    data_at = 8 + 2 + 12 * 1000 + 4
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (273, 4, 1, data_at), (279, 4, 1, 64)]
    tags += [(270, 2, block, data_at)] * 996
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + bytes(block)
    )
    with pytest.raises(InputError, match=r"a.tif has a damaged TIFF header"):
        read_tiff_header(path)


@pytest.mark.parametrize("big", [False, True])
def test_damage_is_an_error_and_leaves_the_log_alone(
    tmp_path: Path, big: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pixels = np.zeros((3, 4, 5), np.uint8)
    whole = write_band_tiff(tmp_path / "a.tif", pixels, separate=True, big=big).read_bytes()
    broken = tmp_path / "broken.tif"
    chance = random.Random(0)
    damaged = [whole[:length] for length in range(0, len(whole) - 50, 7)]
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
        damaged.append(bytes(data))
    for content in damaged:
        broken.write_bytes(content)
        try:
            read_tiff_header(broken)
        except InputError as error:
            assert "damaged TIFF header" in str(error)  # noqa: PT017 (or it is read)
    assert not [record for record in caplog.records if record.name == "tifffile"]
