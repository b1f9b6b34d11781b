"""What a TIFF says of its first page, and which other pages it has, read before any pixel.

tifffile reads the first page; of the others no more is looked at than their size and kind. Everything
that it loads is bounded first: a file's counts and links are not to be trusted. TIFF Revision 6.0
(Adobe 1992); sparse pieces, masks and no-data as GDAL's GTiff driver documents them.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from srpipe.errors import InputError
from srpipe.io.tiff_directory import TYPE_BYTES, Entry, Form
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import Content

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_JPEG = 6
# FillOrder, Orientation, PlanarConfiguration, ResolutionUnit: 1 to so many.
_CHOICES = {266: 2, 274: 8, 284: 2, 296: 3}
_ALPHAS = (1, 2)
# By PhotometricInterpretation; of CMYK and inks only the usual four.
_COLORS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32845: 3, 34892: 3}
_NODATA, _GDAL_METADATA = 42113, 42112
# Profile, XMP, Photoshop's and IPTC: tifffile loads them only when asked.
_NOT_LOADED = (700, 33723, 34377, 34675, 37724)
_MAX_LOADED_BYTES = 64_000_000
_MAX_PAGES = 4096
_MAX_DIRECTORY_BYTES = 16_000_000
_MAX_TEXT_BYTES = 1_000_000

_DAMAGED = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)
Numbers = npt.NDArray[np.uint64]
Entries = dict[int, int]
_WANTED = (254, 255, 256, 257)

_here = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Another page of a file, or one of the first page's SubIFDs."""

    name: str
    """"page 2", "SubIFD 1"."""
    size: Size
    is_level: bool
    """The first page once more, smaller."""
    is_mask: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiffHeader:
    """The first page of a TIFF file, as its tags describe it."""

    size: Size
    compression: int
    codec: str
    """The compression as people call it."""
    bits: int
    """Of a sample; 0: not the same in all bands."""
    sample_format: int
    """1 unsigned, 2 signed, 3 float, 4 undefined, 5 complex integer, 6 complex float; 0: not the same
    in all bands."""
    samples: int
    separate: bool
    """Each band is stored on its own."""
    photometric: int
    """0 white is zero, 1 black is zero, 2 RGB, 3 palette, 4 mask, 5 CMYK, 6 YCbCr, 8 CIELAB."""
    extra_samples: tuple[int, ...]
    """Of the bands beyond the colors: 0 unspecified, 1 premultiplied alpha, 2 alpha; as written."""
    tiled: bool
    piece: Size
    """Of a tile, or a strip."""
    offsets: Numbers
    byte_counts: Numbers
    """Of the pieces, band after band where these are separate."""
    file_bytes: int
    predictor: int
    fill_order: int
    little_endian: bool
    jpeg_tables: bytes
    color_map: tuple[int, ...]
    nodata: float | None
    """By GDAL's tag; None: there is none, or it is no number."""
    nodata_text: str
    gdal_metadata: str
    """XML, as written."""
    has_reference: bool
    """It says of YCbCr that black, white or the way to compute it are others than usual."""
    orientation: int
    """1 to 8; 1 where it is none of them."""
    resolution: tuple[float, float] | None
    """Pixels per unit, across and down."""
    resolution_unit: int
    """1 none, 2 inch, 3 centimeter; as written, 2 where it is not."""
    odd_tags: tuple[int, ...]
    """Tags whose values have no meaning, which libtiff takes for an error and does without."""
    subfile_type: int
    software: str
    others: tuple[Page, ...]
    """The pages after the first, and SubIFDs; a chain that loops or is damaged ends there."""

    @property
    def is_reduced(self) -> bool:
        """Whether it says that it is a smaller version of another page: a thumbnail."""
        return bool(self.subfile_type & _REDUCED)

    @property
    def pages(self) -> int:
        """How many there are that are neither levels of a pyramid nor masks."""
        others = (p for p in self.others if p.name.startswith("page"))
        return 1 + sum(not (p.is_level or p.is_mask) for p in others)

    @property
    def mask(self) -> Page | None:
        """GDAL's internal mask of the first page."""
        return next((p for p in self.others if p.is_mask and p.size == self.size), None)

    @property
    def larger(self) -> Page | None:
        """The largest page or SubIFD, if it is larger than the first page."""
        largest = max(self.others, key=lambda p: p.size.pixels, default=None)
        return largest if largest and largest.size.pixels > self.size.pixels else None

    @property
    def colors(self) -> int:
        """Samples that the photometric interpretation speaks of; those after them are extra."""
        return min(_COLORS.get(self.photometric, 1), self.samples)

    def tell_bands(self, bands: int) -> tuple[Content, int | None]:
        """What the bands are of the image that libvips makes of it, and which of them is alpha.

        GDAL's color interpretation comes before ExtraSamples, which TIFF has.

        Args:
            bands: of the image: a palette has become RGB, CMYK may have.
        """
        roles = dict(enumerate(self.extra_samples, self.samples - len(self.extra_samples)))
        alphas = [i for i, kind in roles.items() if kind in _ALPHAS and i >= self.colors]
        told = _color_roles(self.gdal_metadata)
        alphas = [i for i in alphas if told.get(i, "alpha") == "alpha"]
        alphas += [i for i, role in told.items() if role == "alpha" and i not in alphas]
        alpha = bands - self.samples + min(alphas) if alphas else None
        extra = self.samples - self.colors
        rgb = [told.get(i) for i in range(3)] == ["red", "green", "blue"]
        other = any(told.get(i, color) != color for i, color in enumerate(("red", "green", "blue")))
        if bands - extra == 3 and not (self.photometric in (2, 6) and other):
            return "RGB", alpha
        if rgb and bands == self.samples:
            return "RGB", alpha
        if bands - extra == 1 and extra == len(alphas) <= 1:
            return "grey", alpha
        # Who knows no other word for a band calls all of them alpha.
        return "data", alpha if alphas == [self.samples - 1] else None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is left out of the file when its first page is read, each a clause."""
        said = []
        if 8 < self.bits < 16:
            most = (1 << self.bits) - 1
            said.append(f"has {self.bits}-bit samples: they stay from 0 to {most}, in 16 bits")
        if self.is_reduced or self.larger:
            what = (
                "calls its first page a reduced version" if self.is_reduced else "has larger pages"
            )
            larger = f"; {self.larger.name} has {self.larger.size}" if self.larger else ""
            said.append(f"{what}: only that page, of {self.size} pixels, is enhanced{larger}")
        return tuple(said)

    @property
    def across(self) -> int:
        """Pieces side by side."""
        return math.ceil(self.size.width / self.piece.width)

    @property
    def down(self) -> int:
        """Rows of pieces."""
        return math.ceil(self.size.height / self.piece.height)

    @property
    def sparse(self) -> npt.NDArray[np.bool_]:
        """Which pieces GDAL left out: they are no-data, or 0."""
        return np.asarray((self.offsets == 0) & (self.byte_counts == 0))

    @property
    def cut_off(self) -> npt.NDArray[np.bool_]:
        """Which pieces end beyond the file's end."""
        if self.compression == _OLD_JPEG:  # its pieces lie in one JPEG file
            return np.zeros(len(self.offsets), bool)
        end = np.uint64(self.file_bytes)
        beyond = (self.offsets > end) | (self.byte_counts > end - np.minimum(self.offsets, end))
        return np.asarray(beyond)


def read_tiff_header(path: str | os.PathLike[str]) -> TiffHeader:
    """Read the header of a TIFF file.

    Args:
        path: a file that libvips takes for a TIFF.

    Raises:
        InputError: it cannot be read, is damaged, or claims more than any sane file has.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, _check_chain(file))
    except (*_DAMAGED, OSError, struct.error) as error:
        reason = str(error) or "it ends early"
        raise InputError(
            f"{os.fspath(path)} has a damaged TIFF header ({reason}): get a whole copy, or save "
            "it again."
        ) from None


def _is_wanted(_: logging.LogRecord) -> bool:
    return not getattr(_here, "quiet", False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what tifffile says of damage out of the caller's log, in this thread."""
    logging.getLogger("tifffile").addFilter(_is_wanted)  # once: it is the same function
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = False


def _read(file: BinaryIO, others: list[tuple[str, Entries]]) -> TiffHeader:
    import tifffile  # only TIFFs need it

    file_bytes = os.fstat(file.fileno()).st_size
    file.seek(0)
    with _quiet(), tifffile.TiffFile(file, is_lsm=False, is_ndpi=False, is_scanimage=False) as tiff:
        page = tiff.pages.first
        size = Size(page.imagewidth, page.imagelength)
        tiled = page.is_tiled
        piece = (
            Size(page.tilewidth, page.tilelength) if tiled else Size(size.width, page.rowsperstrip)
        )
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        if min(size.width, size.height, piece.width, piece.height, page.samplesperpixel) < 1:
            raise ValueError("it has no pixels")
        pieces = math.ceil(size.width / piece.width) * math.ceil(size.height / piece.height)
        pieces *= page.samplesperpixel if separate else 1
        offsets = np.asarray(page.dataoffsets, np.uint64)
        counts = np.asarray(page.databytecounts, np.uint64)
        if page.compression != _OLD_JPEG:
            if len(offsets) < pieces:
                raise ValueError(
                    f"it has {pieces} pieces and says where {len(offsets)} of them are"
                )
            offsets, counts = offsets[:pieces], counts[:pieces]
            if len(counts) < pieces:  # libtiff works them out
                counts = np.zeros(pieces, np.uint64)
        nodata_text = str(page.tags.valueof(_NODATA) or "").strip(" \0")
        orientation = int(page.tags.valueof(274) or 1)
        bits = page.bitspersample
        unit = page.tags.valueof(296)  # tifffile's NONE is false
        return TiffHeader(
            size=size,
            compression=int(page.compression),
            codec=_codec(int(page.compression), tifffile),
            bits=bits if isinstance(bits, int) else 0,
            sample_format=_alike(page.tags.valueof(339), 1),
            samples=page.samplesperpixel,
            separate=separate,
            photometric=int(page.photometric),
            extra_samples=tuple(int(kind) for kind in page.extrasamples),
            tiled=tiled,
            piece=piece,
            offsets=offsets,
            byte_counts=counts,
            file_bytes=file_bytes,
            predictor=int(page.predictor),
            fill_order=int(page.fillorder),
            little_endian=tiff.byteorder == "<",
            jpeg_tables=page.jpegtables or b"",
            color_map=_color_map(page),
            nodata=_number(nodata_text),
            nodata_text=nodata_text,
            gdal_metadata=_text(page, _GDAL_METADATA),
            has_reference=_has_reference(page),
            orientation=orientation if 1 <= orientation <= 8 else 1,
            resolution=_resolution(page),
            resolution_unit=2 if unit is None else int(unit),
            odd_tags=tuple(
                n for n, most in _CHOICES.items() if _is_odd(page.tags.valueof(n), most)
            ),
            subfile_type=int(page.subfiletype),
            software=_text(page, 305),
            others=tuple(_describe(name, entries, size) for name, entries in others),
        )


def _check_chain(file: BinaryIO) -> list[tuple[str, Entries]]:
    """What is wanted of all directories but the first, all of them bounded."""
    form = Form(file)
    offset = form.first_place(file)
    first, following = form.directory(file, offset)
    loaded = sum(
        TYPE_BYTES.get(entry.kind, 1) * entry.count
        for entry in first
        if entry.number not in _NOT_LOADED
    )
    if loaded > _MAX_LOADED_BYTES:
        raise ValueError(f"its tags claim {loaded} bytes")
    places = [(f"SubIFD {i}", at) for i, at in enumerate(_sub_directories(form, first, file))]
    found: list[tuple[str, Entries]] = []
    seen, read = {offset}, 0
    while places or following:
        name, offset = places.pop(0) if places else (f"page {len(seen) + 1}", following)
        pages = name.startswith("page")
        if offset in seen or len(found) == _MAX_PAGES or read > _MAX_DIRECTORY_BYTES:
            break
        if pages:
            seen.add(offset)
        try:
            entries, after = form.directory(file, offset)
        except (*_DAMAGED, struct.error, OSError):
            if pages:
                break
            continue
        following = after if pages else following
        read += len(entries) * struct.calcsize(form.entry)
        found.append((name, _entries(form, entries, file)))
    return found


def _entries(form: Form, entries: list[Entry], file: BinaryIO) -> Entries:
    found: Entries = {}
    for entry in entries:
        if entry.number in _WANTED and entry.count == 1:
            found[entry.number] = int.from_bytes(form.data(entry, file), "little")
    return found


def _sub_directories(form: Form, entries: list[Entry], file: BinaryIO) -> list[int]:
    for entry in entries:
        if entry.number == 330 and entry.count <= _MAX_PAGES:
            data, width = form.data(entry, file), TYPE_BYTES[entry.kind]
            return [
                int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)
            ]
    return []


def _describe(name: str, entries: Entries, first: Size) -> Page:
    kind = entries.get(254, {2: _REDUCED}.get(entries.get(255, 0), 0))
    size = Size(entries.get(256, 0), entries.get(257, 0))
    # Old pyramids do not say that their levels are such: they have the shape of the first page.
    smaller = size.width <= first.width // 2 + 1 and size.height <= first.height // 2 + 1
    slack = first.width + first.height
    alike = abs(size.width * first.height - size.height * first.width) <= slack
    is_mask = bool(kind & _MASK)
    is_level = not is_mask and (bool(kind & _REDUCED) or (smaller and alike))
    return Page(name=name, size=size, is_level=is_level, is_mask=is_mask)


def _codec(compression: int, tifffile: Any) -> str:
    names = {1: "none", 8: "Deflate", 32946: "Deflate", 34712: "JPEG 2000", 50000: "Zstandard"}
    names |= dict.fromkeys((33003, 33004, 33005), "JPEG 2000") | {50001: "WebP"}
    names |= dict.fromkeys((50002, 52546), "JPEG XL") | dict.fromkeys((22610, 34934), "JPEG XR")
    if compression in names:
        return names[compression]
    try:
        return f"{tifffile.COMPRESSION(compression).name}"
    except ValueError:
        return f"unknown codec {compression}"


def _is_odd(value: Any, most: int) -> bool:
    return value is not None and not (isinstance(value, int) and 1 <= value <= most)


def _has_reference(page: Any) -> bool:
    for number, usual in ((532, (0, 255, 128, 255, 128, 255)), (529, (0.299, 0.587, 0.114))):
        values = page.tags.valueof(number)
        if values is not None:
            fractions = [n / max(d, 1) for n, d in zip(values[::2], values[1::2], strict=True)]
            if not np.allclose(fractions, usual, atol=0.001):
                return True
    return False


def _alike(values: Any, default: int) -> int:
    """The value that all bands have; 0 where they differ."""
    if values is None:
        return default
    values = values if isinstance(values, tuple) else (values,)
    return int(values[0]) if len(set(values)) == 1 else 0


def _color_roles(gdal_metadata: str) -> dict[int, str]:
    """By sample: the color interpretation that GDAL keeps, in lower case."""
    roles: dict[int, str] = {}
    if "<!" in gdal_metadata:
        return roles  # GDAL writes none, and entities may grow without bound
    try:
        for item in ElementTree.fromstring(gdal_metadata):
            if item.get("name") == "COLORINTERP":
                roles[int(item.get("sample", "-1"))] = (item.text or "").strip().lower()
    except (ElementTree.ParseError, ValueError):
        return {}
    return roles


def _text(page: Any, number: int) -> str:
    tag = page.tags.get(number)
    if tag is None or tag.count > _MAX_TEXT_BYTES:
        return ""
    return tag.value if isinstance(tag.value, str) else ""


def _number(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _color_map(page: Any) -> tuple[int, ...]:
    tag = page.tags.get(320)
    if page.photometric != 3 or tag is None or tag.count > 3 << 16:
        return ()
    return tuple(int(value) for value in np.ravel(tag.value))


def _resolution(page: Any) -> tuple[float, float] | None:
    sides = []
    for number in (282, 283):
        value = page.tags.valueof(number)
        if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
            return None
        sides.append(value[0] / value[1])
    return sides[0], sides[1]
