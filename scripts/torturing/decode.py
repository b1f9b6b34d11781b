"""Images in every layout that formats allow: read to the last pixel, or refused, and never wrong.

Each file is decoded by tifffile with imagecodecs, or by Pillow, and compared with what a run's reader
gives, tile by tile. A damaged one must be an error; where gaps are filled, all that differs must be
told. Says nothing of models.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from srpipe.errors import InputError, ReadError
from srpipe.io.source import read_image_info
from srpipe.io.tile_reader import TileReader
from srpipe.plan.geometry import Rect

SIZE = (150, 203)
_TILE_PX, _OVERLAP_PX = 64, 8
_CODECS = ("none", "deflate", "lzw", "packbits", "jpeg", "webp", "zstd", "lzma", "lerc", "jpeg2000",
           "jpegxl", "png")  # fmt: skip
_DTYPES = ("uint8", "uint16", "int16", "float32", "float16", "int8", "uint32", "float64")
_LAYOUTS: tuple[dict[str, Any], ...] = (
    {"rowsperstrip": 7}, {"rowsperstrip": 150}, {"tile": (16, 48)}, {"tile": (64, 64)},
)  # fmt: skip
_PICTURES: dict[str, dict[str, Any]] = {
    ".png": {}, ".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}, ".gif": {},
    ".avif": {"quality": 100, "subsampling": "4:4:4"},
}  # fmt: skip

_NO_CHECKSUMS = (".jpg", ".webp", ".gif", ".avif", ".tif")


@dataclass(frozen=True)
class Case:
    """One file."""

    path: Path
    kind: str
    pixels: np.ndarray | None
    """What it holds, (height, width, bands); None: it cannot be known."""
    tolerance: int = 0
    damaged: bool = False


@dataclass
class Findings:
    """What came out."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def picture(bands: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Gradients, edges and noise, (height, width, bands)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = [
        0.5
        + 0.35 * np.sin(x / (9 + 3 * b)) * np.cos(y / (7 + 2 * b))
        + 0.1 * ((x // 32 + y // 24) % 2)
        for b in range(bands)
    ]
    noise = np.random.default_rng(seed).normal(0, 0.01, (*SIZE, bands))
    unit = np.clip(np.stack(waves, 2) + noise, 0, 1)
    if np.dtype(dtype).kind == "f":
        return unit.astype(dtype)
    limits = np.iinfo(dtype)
    return (unit * (limits.max - float(limits.min)) + limits.min).astype(dtype)


def tiff_cases(folder: Path, share: float, seed: int) -> Iterator[Case]:
    """TIFFs of all codecs, types, bands, layouts and byte orders, whole and damaged."""
    chance = random.Random(seed)
    axes = (_CODECS, _DTYPES, (1, 2, 3, 4, 5), _LAYOUTS, (False, True), ("<", ">"), (False, True))
    for number, choice in enumerate(itertools.product(*axes)):
        if chance.random() >= share:
            continue
        codec, dtype, bands, layout, separate, order, big = choice
        path = folder / f"{number}.tif"
        kind = f"{codec} {dtype} x{bands} {layout}{' separate' if separate else ''} {order}"
        options: dict[str, Any] = {
            **layout, "compression": codec, "byteorder": order, "bigtiff": big,
            "photometric": "rgb" if bands in (3, 4) else "minisblack",
        }  # fmt: skip
        if bands > 1:
            options["planarconfig"] = "separate" if separate else "contig"
        if bands in (2, 4, 5):
            options["extrasamples"] = [chance.choice([0, 2])] * (bands - (3 if bands == 4 else 1))
        predictors = {"uint8": [1, 2], "uint16": [1, 2], "float32": [1, 3], "float16": [1, 3]}
        if codec in ("deflate", "lzw", "zstd", "lzma"):
            options["predictor"] = chance.choice(predictors.get(dtype, [1]))
        orientation = chance.choice([1, 1, 3, 6, 8])
        options["extratags"] = [(274, "H", 1, orientation, True)] if orientation > 1 else []
        pixels = picture(bands, dtype)
        stored = pixels.transpose(2, 0, 1) if separate and bands > 1 else pixels
        try:
            tifffile.imwrite(path, stored if bands > 1 else pixels[..., 0], **options)
            told = _decode(path)
        except Exception:  # tifffile or imagecodecs cannot do that
            continue
        tolerance = {"jpeg": 3, "webp": 2}.get(codec, 0)
        yield Case(path, kind, told, tolerance)
        yield from _sparse(path, kind, told, tolerance, chance)
        yield from _damaged(path, kind, told, tolerance, chance)


def odd_tiffs(folder: Path) -> Iterator[Case]:
    """Palettes, few and unusual bits, white as zero, CMYK, subsampled colors."""
    rng = np.random.default_rng(1)
    for bits, tiled, photometric in itertools.product((1, 2, 4, 10, 12, 14), (False, True), (0, 1)):
        path = folder / f"bits{bits}{tiled}{photometric}.tif"
        values = (picture(1, "float32")[..., 0] * ((1 << bits) - 1)).astype(np.uint16)
        write_packed(path, values, bits, tiled=tiled, photometric=photometric)
        expected = values if photometric else (1 << bits) - 1 - values
        if bits < 8:
            expected = (expected * 255 // ((1 << bits) - 1)).astype(np.uint8)
        yield Case(path, f"{bits} bits, photometric {photometric}", expected[..., np.newaxis])
    for dtype, grey, tile in itertools.product(
        ("uint8", "uint16"), (False, True), (None, (32, 32))
    ):
        entries = 1 << 8 * np.dtype(dtype).itemsize
        colors = rng.integers(0, 65536, (1 if grey else 3, entries)).astype(np.uint16)
        colors = np.repeat(colors, 3, 0) if grey else colors
        indices = rng.integers(0, entries, SIZE).astype(dtype)
        path = folder / f"palette{dtype}{grey}{tile is None}.tif"
        tifffile.imwrite(path, indices, photometric="palette", colormap=colors, tile=tile)
        expected = colors[:, indices].transpose(1, 2, 0)[..., : 1 if grey else 3]
        expected = (expected >> 8).astype(np.uint8) if dtype == "uint8" else expected
        yield Case(path, f"palette of {dtype}", expected)
    for dtype, tile in itertools.product(("uint8", "uint16"), (None, (64, 64))):
        path = folder / f"miniswhite{dtype}{tile is None}.tif"
        pixels = picture(1, dtype)
        tifffile.imwrite(path, pixels[..., 0], photometric="miniswhite", tile=tile)
        yield Case(path, "white is zero", np.iinfo(dtype).max - pixels)
    for sampling, tile in itertools.product(((1, 1), (2, 1), (2, 2)), (None, (64, 64))):
        path = folder / f"ycbcr{sampling}{tile is None}.tif"
        tifffile.imwrite(path, picture(3, "uint8"), photometric="rgb", compression="jpeg",
                         subsampling=sampling, tile=tile)  # fmt: skip
        yield Case(
            path, f"JPEG subsampled {sampling}", _decode(path), 24 if sampling != (1, 1) else 3
        )


def write_packed(
    path: Path, values: np.ndarray, bits: int, *, tiled: bool = False, photometric: int = 1
) -> None:
    """Write grey samples of any number of bits, as no library does."""
    shifts = np.arange(bits - 1, -1, -1)

    def packed(block: np.ndarray) -> np.ndarray:
        rows = (block[..., np.newaxis] >> shifts & 1).astype(np.uint8).reshape(len(block), -1)
        return np.packbits(rows, axis=1)

    width = values.shape[1]
    if not tiled:
        tifffile.imwrite(path, packed(values), photometric="minisblack", compression="lzw")
        changes = {256: width, 258: bits, 262: photometric}
    else:
        side = 128  # whole tiles of bytes for any number of bits
        wide = np.pad(values, ((0, 0), (0, -width % side)))
        tifffile.imwrite(path, packed(wide), photometric="minisblack", compression="deflate",
                         tile=(32, side * bits // 8))  # fmt: skip
        changes = {256: width, 258: bits, 262: photometric, 322: side}
    with tifffile.TiffFile(path, mode="r+b") as file:
        for number, value in changes.items():
            file.pages[0].tags[number].overwrite(value)  # type: ignore[union-attr]


def picture_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Other formats, as Pillow writes and reads them, whole and damaged."""
    chance = random.Random(seed)
    for suffix, mode in itertools.product(_PICTURES, ("L", "RGB", "LA", "RGBA", "P")):
        bands = {"L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
        image = PIL.Image.fromarray(picture(bands, "uint8").squeeze())
        image = image.convert("P") if mode == "P" else image
        path = folder / f"{mode}{suffix}"
        try:
            image.save(path, **_PICTURES[suffix])
        except (OSError, KeyError, ValueError):
            continue  # the format has no such mode
        told = _decode_picture(path)
        tolerance = {".jpg": 2, ".avif": 4}.get(suffix, 0)
        yield Case(path, f"{suffix} {mode}", told, tolerance)
        data = path.read_bytes()
        for share in (0.3, 0.6, 0.95):
            cut = folder / f"{mode}cut{share}{suffix}"
            cut.write_bytes(data[: int(len(data) * share)])
            yield Case(cut, f"{suffix} cut off", told, tolerance, damaged=True)
        for number in range(3):
            place = chance.randrange(len(data) // 4, len(data) * 9 // 10)
            hit = folder / f"{mode}hit{number}{suffix}"
            hit.write_bytes(data[:place] + chance.randbytes(16) + data[place + 16 :])
            yield Case(hit, f"{suffix} corrupt", told, tolerance, damaged=True)


def _decode_picture(path: Path) -> np.ndarray:
    """A picture by Pillow, (height, width, bands)."""
    with PIL.Image.open(path) as opened:
        modes = {"P": "RGB", "1": "L"}
        pixels = np.asarray(opened.convert(modes.get(opened.mode, opened.mode)))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode(path: Path) -> np.ndarray:
    """The first page by tifffile, (height, width, bands)."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        pixels = page.asarray()
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels.astype(np.float32) if pixels.dtype == np.float16 else pixels


def _sparse(
    path: Path, kind: str, told: np.ndarray, tolerance: int, chance: random.Random
) -> Iterator[Case]:
    """Some pieces left out, as GDAL does."""
    copy = path.with_name(f"{path.stem}sparse.tif")
    copy.write_bytes(path.read_bytes())
    with tifffile.TiffFile(copy, mode="r+b") as file:
        page: Any = file.pages[0]
        if page.planarconfig == 2 or len(page.dataoffsets) < 4:
            return
        gone = chance.sample(range(len(page.dataoffsets)), len(page.dataoffsets) // 3)
        expected = told.copy()
        for numbers in ((273, 279), (324, 325)):
            for number in numbers:
                if number in page.tags:
                    tag = page.tags[number]
                    tag.overwrite([0 if i in gone else n for i, n in enumerate(tag.value)])
        for index in gone:
            expected[piece_at(page, index)] = 0
    yield Case(copy, f"{kind}, sparse", expected, tolerance)


def piece_at(page: Any, index: int) -> tuple[slice, slice]:
    """Where a strip or tile of a page with all bands together lies."""
    if not page.is_tiled:
        return slice(index * page.rowsperstrip, (index + 1) * page.rowsperstrip), slice(None)
    across = -(-page.imagewidth // page.tilewidth)
    row, column = divmod(index, across)
    return (slice(row * page.tilelength, (row + 1) * page.tilelength),
            slice(column * page.tilewidth, (column + 1) * page.tilewidth))  # fmt: skip


def _damaged(
    path: Path, kind: str, told: np.ndarray, tolerance: int, chance: random.Random
) -> Iterator[Case]:
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        index = chance.randrange(len(page.dataoffsets))
        offset, n_bytes = page.dataoffsets[index], page.databytecounts[index]
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if page.offset < page.dataoffsets[0]:
        cut = path.with_name(f"{path.stem}cut.tif")
        cut.write_bytes(data[: max(ends) - chance.randrange(1, n_bytes)])
        yield Case(cut, f"{kind}, cut off", told, tolerance, damaged=True)
    if kind.startswith(("deflate", "jpeg")):  # the others have no checksum
        hit = path.with_name(f"{path.stem}hit.tif")
        place = offset + n_bytes // 2
        length = min(16, n_bytes // 4)
        hit.write_bytes(data[:place] + chance.randbytes(length) + data[place + length :])
        yield Case(hit, f"{kind}, corrupt", told, tolerance, damaged=True)


def examine(case: Case) -> tuple[str, str]:
    """Read a file as a run does; returns what came of it, and what is wrong with that, or ""."""
    try:
        info = read_image_info(case.path, allow_untrusted=True)
    except InputError as error:
        return "refused", "" if case.path.name in str(error) else f"names no file: {error}"
    seen = np.zeros((info.size.height, info.size.width, info.bands), info.numpy_dtype)
    try:
        _read(TileReader(info), info, seen)
    except ReadError as error:
        if not case.damaged:
            return "failed", f"a whole file: {error}"
        return _examine_filled(case, info)
    return "read", _compare(case, seen, np.ones(seen.shape[:2], bool))


def _examine_filled(case: Case, info: Any) -> tuple[str, str]:
    seen = np.zeros((info.size.height, info.size.width, info.bands), info.numpy_dtype)
    whole = _read(TileReader(info, fill=True), info, seen)
    if whole.all():
        return "filled", "no gap was told"
    return "filled", _compare(case, seen, whole)


def _read(reader: TileReader, info: Any, seen: np.ndarray) -> np.ndarray:
    """Read all tiles; returns where they were whole."""
    whole = np.ones(seen.shape[:2], bool)
    step = _TILE_PX - _OVERLAP_PX
    for top in range(0, info.size.height, step):
        for left in range(0, info.size.width, step):
            height = min(_TILE_PX, info.size.height - top)
            width = min(_TILE_PX, info.size.width - left)
            out = np.empty((_TILE_PX, _TILE_PX, info.bands), info.numpy_dtype)
            good = reader.read(Rect(left, top, width, height), out)
            place = slice(top, top + height), slice(left, left + width)
            seen[place] = out[:height, :width]
            whole[place] &= good
    return whole


def _compare(case: Case, seen: np.ndarray, where: np.ndarray) -> str:
    if case.pixels is None:
        return ""
    wrong, wanted = _differs(seen, case.pixels, case.tolerance), case.pixels
    wrong &= where
    if wrong.any() and case.damaged and case.path.suffix in _NO_CHECKSUMS:
        # Nobody can know that it is damaged: it must be what others make of it.
        with suppress(Exception):
            decode = _decode if case.path.suffix == ".tif" else _decode_picture
            wrong &= _differs(seen, decode(case.path), case.tolerance)
    if not wrong.any():
        return ""
    y, x = np.argwhere(wrong)[0]
    return (
        f"{wrong.mean():.1%} of the pixels are wrong; ({x}, {y}): {seen[y, x]}, not {wanted[y, x]}"
    )


def _differs(seen: np.ndarray, wanted: np.ndarray, tolerance: int) -> np.ndarray:
    if seen.shape[2] == 3 and wanted.shape[2] == 1:
        wanted = np.repeat(wanted, 3, 2)  # grey is a kind of RGB
    if seen.shape != wanted.shape:
        return np.ones(seen.shape[:2], bool)
    return (np.abs(seen.astype(np.float64) - wanted) > tolerance).any(axis=2)


def run_cases(cases: Iterator[Case], *, keep: bool = False) -> Findings:
    """Examine all; files are removed behind the campaign's back unless ``keep``."""
    findings = Findings()
    for case in cases:
        outcome, wrong = examine(case)
        findings.outcomes[case.kind.split()[0], outcome] += 1
        if wrong:
            findings.bad.append(f"{case.path.name} ({case.kind}): {wrong}")
    return findings


def add_parser(campaigns: Any) -> None:
    """Add the campaign to the command line."""
    parser = campaigns.add_parser("decode", help="all layouts of image files, pixel by pixel")
    parser.add_argument("--share", type=float, default=0.2, help="of the TIFF layouts [0.2]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to keep the files in")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign; returns 1 if it found anything."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True, parents=True)
        findings = run_cases(
            itertools.chain(
                odd_tiffs(folder),
                picture_cases(folder, options.seed),
                tiff_cases(folder, options.share, options.seed),
            )
        )
    for (kind, outcome), count in sorted(findings.outcomes.items()):
        print(f"{kind:12} {outcome:8} {count}")
    for finding in findings.bad:
        print(f"WRONG: {finding}", file=sys.stderr)
    return 1 if findings.bad else 0
