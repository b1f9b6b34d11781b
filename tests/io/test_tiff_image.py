"""TIFFs that libvips reads as black, or not at all: right to the pixel, or an error that says why."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import srpipe
from srpipe.errors import InputError, ReadError
from srpipe.io.source import read_image_info
from srpipe.io.tile_reader import TileReader
from srpipe.plan.geometry import Rect
from tests.conftest import photograph_pixels
from tests.onnx_models import elementwise_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from torturing.decode import write_packed

RGB = photograph_pixels(150, 203)


def read(path: Path, *, fill: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """All pixels, read in tiles, and where they were whole."""
    info = read_image_info(path)
    reader = TileReader(info, fill=fill)
    size = info.size
    pixels = np.zeros((size.height, size.width, info.bands), info.numpy_dtype)
    whole = np.ones((size.height, size.width), bool)
    for top in range(0, size.height, 40):
        for left in range(0, size.width, 60):
            rect = Rect(left, top, min(70, size.width - left), min(50, size.height - top))
            out = np.empty((50, 70, info.bands), info.numpy_dtype)
            good = reader.read(rect, out)
            place = slice(top, top + rect.height), slice(left, left + rect.width)
            pixels[place] = out[: rect.height, : rect.width]
            whole[place] &= good
    return pixels, whole


def damage_piece(path: Path, index: int, *, keep: int = 20) -> None:
    """Overwrite the middle of a strip or tile."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        offset, n_bytes = page.dataoffsets[index], page.databytecounts[index]
    data = bytearray(path.read_bytes())
    data[offset + keep : offset + n_bytes - keep] = bytes(n_bytes - 2 * keep)
    path.write_bytes(data)


def leave_out(path: Path, indices: list[int]) -> None:
    """Make pieces sparse, as GDAL does."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        for number in (273, 279, 324, 325):
            if number in tags:
                values = [0 if i in indices else n for i, n in enumerate(tags[number].value)]
                tags[number].overwrite(values)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("zstd", "Zstandard"), ("lzma", "LZMA"), ("lerc", "LERC"), ("jpeg2000", "JPEG 2000"),
     ("jpegxl", "JPEG XL"), ("jpegxr", "JPEG XR"), ("png", "PNG")],
)  # fmt: skip
@pytest.mark.parametrize("tile", [(64, 64), None])
def test_codecs_that_cannot_be_decoded_are_named(
    tmp_path: Path, codec: str, name: str, tile: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression=codec, tile=tile)
    with pytest.raises(InputError, match=rf"a.tif is compressed with {name}.*COMPRESS=DEFLATE"):
        read_image_info(path)


@pytest.mark.parametrize("codec", ["deflate", "lzw", "jpeg", "packbits", "none", "webp"])
@pytest.mark.parametrize("tile", [(64, 64), None])
def test_a_file_that_is_cut_off(
    tmp_path: Path, x2_model: Path, codec: str, tile: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, Any] = {"tile": tile} if tile else {"rowsperstrip": 16}
    tifffile.imwrite(path, RGB, photometric="rgb", compression=codec, **options)
    whole, _ = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"ends before \d+ of its 1[0-9] (tiles|strips)"):
        srpipe.enhance(path, tmp_path / "out.tif", model=x2_model)
    with pytest.raises(ReadError, match="ends beyond the file's end"):
        read(path)
    seen, good = read(path, fill=True)
    assert 0.2 < good.mean() < 0.8
    np.testing.assert_array_equal(seen[good], whole[good])


@pytest.mark.parametrize("codec", ["deflate", "jpeg"])
@pytest.mark.parametrize("tile", [(64, 64), None])
def test_a_corrupt_piece(tmp_path: Path, codec: str, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, Any] = {"tile": tile} if tile else {"rowsperstrip": 16}
    tifffile.imwrite(path, RGB, photometric="rgb", compression=codec, **options)
    whole, _ = read(path)
    damage_piece(path, 5, keep=200 if codec == "jpeg" else 20)
    with pytest.raises(ReadError, match="cannot be read at rows"):
        read(path)
    seen, good = read(path, fill=True)
    assert 0.2 < good.mean() < 0.98
    np.testing.assert_array_equal(seen[good], whole[good])
    if tile:  # of which each stands for itself
        assert good[:40].all()
        assert good[:, 190:].all()


def test_a_changed_byte_that_deflate_decodes_all_the_same(tmp_path: Path) -> None:
    """The checksum lies behind what libtiff reads."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression="deflate", tile=(64, 64))
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]  # type: ignore[union-attr]
        n_bytes = file.pages[0].databytecounts[0]  # type: ignore[union-attr]
    stored = bytearray(zlib.compress(zlib.decompress(path.read_bytes()[offset:][:n_bytes]), 0))
    stored[100] ^= 0xFF
    data = path.read_bytes() + stored
    path.write_bytes(data)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        tags[324].overwrite([len(data) - len(stored), *tags[324].value[1:]])
        tags[325].overwrite([len(stored), *tags[325].value[1:]])
    with pytest.raises(ReadError, match=r"rows 0 to 63.*incorrect data check"):
        read(path)


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("codec", ["deflate", "lzw", "packbits", "none"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pieces_that_were_left_out_are_no_data_or_0(
    tmp_path: Path, nodata: int | None, codec: str, layout: dict[str, Any], order: Any
) -> None:
    path = tmp_path / "a.tif"
    pixels = RGB.astype(np.uint16) * 100
    tags = [(42113, "s", 0, str(nodata), True)] if nodata else []
    predictor = {"predictor": 2} if codec in ("deflate", "lzw") else {}
    tifffile.imwrite(path, pixels, photometric="rgb", compression=codec, byteorder=order,
                     extratags=tags, **predictor, **layout)  # fmt: skip
    leave_out(path, [0, 2, 9])
    seen, good = read(path)
    expected = pixels.copy()
    if "tile" in layout:
        expected[:64, :64] = expected[:64, 128:192] = expected[128:, 64:128] = nodata or 0
    else:
        expected[:16] = expected[32:48] = expected[144:] = nodata or 0
    assert good.all()
    np.testing.assert_array_equal(seen, expected)


def test_tiles_that_jpeg_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression="jpeg", tile=(64, 64))
    expected, _ = read(path)
    leave_out(path, [5])
    expected[64:128, 64:128] = 0
    np.testing.assert_array_equal(read(path)[0], expected)


def test_a_huge_strip_of_lzw(tmp_path: Path) -> None:
    """The limit of libtiff is 50 MB unless it is lifted."""
    noise = np.random.default_rng(0).integers(0, 256, (6000, 8000), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, photometric="minisblack", compression="lzw", rowsperstrip=6000)
    info = read_image_info(path)
    reader = TileReader(info)
    for top in (0, 3000, 5900):
        out = np.empty((100, 8000, 1), np.uint8)
        assert reader.read(Rect(0, top, 8000, 100), out)
        np.testing.assert_array_equal(out[..., 0], noise[top : top + 100])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("int8", "int8"), ("uint32", "uint32"), ("int32", "int32"), ("uint64", "uint64"),
     ("float64", "float64"), ("complex64", "complex64"), ("complex128", "complex128")],
)  # fmt: skip
def test_types_that_are_not_taken_are_named(tmp_path: Path, dtype: str, name: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 30), dtype))
    with pytest.raises(InputError, match=f"a.tif holds {name} samples"):
        read_image_info(path)


@pytest.mark.parametrize("value", [0, 9])
def test_tags_without_a_meaning_do_no_harm(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.tif"
    tags = [(274, "H", 1, value, True), (65000, "s", 0, "mine", True)]
    tifffile.imwrite(path, RGB, photometric="rgb", extratags=tags)
    np.testing.assert_array_equal(read(path)[0], RGB)


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_only_the_first_page_counts(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb", tile=tile)
        file.write(RGB[..., 0] > 90, photometric=4, subfiletype=4, compression="zstd")
        file.write(np.zeros((20, 30)), compression="lerc")
    info = read_image_info(path)
    assert info.pages == 2
    (remark,) = info.remarks
    assert remark.startswith("has a mask (page 2), which is left out")
    np.testing.assert_array_equal(read(path)[0], RGB)


def test_a_thumbnail_in_front_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(RGB, photometric="rgb")
    (remark,) = read_image_info(path).remarks
    assert "calls its first page a reduced version" in remark
    assert "page 2 has 203x150" in remark


def test_ycbcr_that_is_no_jpeg(tmp_path: Path) -> None:
    import cv2

    ycbcr = cv2.cvtColor(RGB, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ycbcr, photometric="ycbcr", subsampling=(1, 1), tile=(64, 64))
    assert np.abs(read(path)[0].astype(int) - RGB).max() <= 2


def test_filled_pieces_are_all_listed(tmp_path: Path) -> None:
    model = elementwise_model(tmp_path / "same.onnx", "Identity")
    source = tmp_path / "in.tif"
    pixels = photograph_pixels(300, 400)
    tifffile.imwrite(source, pixels, photometric="rgb", compression="deflate", tile=(64, 64))
    damage_piece(source, 0)
    damage_piece(source, 17)
    arguments: dict[str, Any] = {"model": model, "tile_size": 64, "overlap": 0}
    with pytest.raises(ReadError, match="rows 0 to 63"):
        srpipe.enhance(source, tmp_path / "out.tif", **arguments)
    report = srpipe.enhance(
        source, tmp_path / "out.tif", on_error="fill", overwrite=True, fresh=True, **arguments
    )
    told = np.zeros((300, 400), bool)
    for rect in report.filled:
        told[rect.top : rect.top + rect.height, rect.left : rect.left + rect.width] = True
    assert told[:64, :64].all()
    assert told[128:192, 192:256].all()
    assert told.mean() < 0.3
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif")[~told], pixels[~told])


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_of_few_bits_keep_their_numbers_and_their_white(tmp_path: Path, bits: int) -> None:
    """A model sees the largest as 1; so does a depth of 8."""
    highest = (1 << bits) - 1
    values = (RGB[..., 0].astype(np.uint16) << (bits - 8)) | 3
    values[:20, :20] = highest
    path = tmp_path / "a.tif"
    write_packed(path, values, bits)
    model = elementwise_model(tmp_path / "half.onnx", "Mul", 0.5)
    srpipe.enhance(path, tmp_path / "out.tif", model=model)
    expected = np.floor(values / 2 + 0.5)
    assert np.abs(tifffile.imread(tmp_path / "out.tif") - expected).max() <= 1
    same = elementwise_model(tmp_path / "same.onnx", "Identity")
    srpipe.enhance(path, tmp_path / "8.tif", model=same, depth=8)
    shown = tifffile.imread(tmp_path / "8.tif").astype(float)
    assert np.abs(shown - values * (255 / highest)).max() <= 1


@pytest.mark.parametrize("tile", [(32, 32), None])
def test_no_data_where_white_is_zero(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    """The value that means no data is turned over as all others are."""
    grey = RGB[..., 0].copy()
    grey[:40, :40] = 7
    path = tmp_path / "a.tif"
    layout: dict[str, Any] = {"tile": tile} if tile else {"rowsperstrip": 20}
    tifffile.imwrite(path, grey, photometric="miniswhite", compression="lzw",
                     extratags=[(42113, "s", 0, "7", True)], **layout)  # fmt: skip
    leave_out(path, [3])
    assert read_image_info(path).nodata == 248
    seen, _ = read(path)
    assert (seen[:20, :32] == 248).all()
    assert (seen[:20, 100:120] if tile else seen[60:80] == 248).all()


def test_an_index_of_a_palette_is_no_value_of_its_colors(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    colors = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    tags = [(42113, "s", 0, "7", True)]
    tifffile.imwrite(path, RGB[..., 0], photometric="palette", colormap=colors, extratags=tags)
    assert read_image_info(path).nodata is None


@pytest.mark.parametrize("rows", [40, 50, 150])
def test_a_raw_strip_with_too_few_bytes_is_damaged(tmp_path: Path, rows: int) -> None:
    """Where they are too few, libtiff takes the next strip's bytes for the rest."""
    path = tmp_path / "short.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", rowsperstrip=rows)
    assert (read(path)[0] == RGB).all()
    with tifffile.TiffFile(path, mode="r+b") as file:
        page: Any = file.pages[0]
        counts = list(page.databytecounts)
        counts[-1] -= 1000
        page.tags[279].overwrite(counts)
    with pytest.raises(ReadError, match=r"it has \d+ of \d+ bytes"):
        read(path)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (RGB[..., :2], {"photometric": "minisblack", "planarconfig": "contig", "tile": (64, 64),
                        "compression": "jpeg"}, "JPEG tiles of 2 bands"),
        (RGB.astype(np.float16).transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"},
         "INTERLEAVE=PIXEL"),
    ],
)  # fmt: skip
def test_layouts_that_libvips_jumbles(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(InputError, match=message):
        read_image_info(path)
