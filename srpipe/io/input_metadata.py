"""What a file tells beside its pixels that libvips does not hand on, or hands on as something else.

PNG: W3C's third edition, 11.3. JPEG: ITU-T T.81, B.2, JFIF 1.02; multi-picture format: CIPA DC-007.
HEIF: ISO/IEC 14496-12, 12.1.5 (nclx). OME-XML: schema 2016-06. TIFF: by :mod:`srpipe.io.tiff_header`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from srpipe.io.geotiff import lies_on_earth, read_georeference
from srpipe.io.tiff_directory import read_tags
from srpipe.io.tiff_header import read_tiff_header
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.output import FormatName, OutputSpec

_MAX_PIECES = 4096
_MAX_BYTES = 65536
_HEAD_BYTES = 262_144
_SRGB_GAMMA = range(45_000, 46_000)
_MICROMETERS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}
_TIFF: tuple[FormatName, ...] = ("TIFF",)
_PHOTOGRAPHS: tuple[FormatName, ...] = ("TIFF", "PNG", "JPEG", "WebP", "libvips")
_WITH_IPTC: tuple[FormatName, ...] = ("TIFF", "JPEG", "libvips")
_WITH_PROFILE: tuple[FormatName, ...] = (*_PHOTOGRAPHS, "DeepZoom")


@dataclass(slots=True)
class InputMetadata:
    """What is found in a file."""

    found: dict[str, tuple[FormatName, ...]] = field(default_factory=dict)
    """By name: the formats of an output that gets it."""
    resolution: tuple[float, float] | None = None
    """Without a unit: what pixels are to one another, across and down; None: there is a unit."""
    pixel_size_um: tuple[float, float] | None = None
    """By OME-XML or Aperio's description, across and down."""


def left_out(info: ImageInfo, spec: OutputSpec) -> tuple[str, ...]:
    """Name what an input has that its output will not have.

    Raises:
        OSError: the input cannot be read.
    """
    if {"keep", "strip"} & spec.parsed.keys() and spec.format.name != "DeepZoom":
        return ()  # as it was asked for
    found = read_input_metadata(info).found
    return tuple(name for name, formats in found.items() if spec.format.name not in formats)


def read_input_metadata(info: ImageInfo) -> InputMetadata:
    """Look through a file's own structure.

    Raises:
        OSError: it cannot be read.
    """
    told = InputMetadata()
    with open(info.path, "rb") as file:
        try:
            if info.loader.startswith("png"):
                _read_png(file, info, told)
            elif info.loader.startswith(("jpeg", "uhdr")):
                _read_jpeg(file, info, told)
            elif info.loader.startswith("heif"):
                _read_heif(file, info, told)
            elif info.loader.startswith("webp"):
                head = file.read(_HEAD_BYTES)
                _note_profile(b"ICCP" in head[:64], info, told)
                told.resolution = None if b"EXIF" in head or b"EXIF" in _tail(file) else (1.0, 1.0)
            elif info.loader.startswith("tiff"):
                _read_tiff(file, info, told)
        except (struct.error, IndexError, ValueError):
            pass  # damaged: what was found until there counts
    return told


def _note_profile(has_profile: bool, info: ImageInfo, told: InputMetadata) -> None:
    if has_profile and info.icc_bytes:
        told.found["its color profile"] = _WITH_PROFILE
    elif has_profile and not info.converted_from:
        told.found["its color profile, which is damaged"] = ()


def _read_png(file: BinaryIO, info: ImageInfo, told: InputMetadata) -> None:
    told.resolution = (1.0, 1.0)
    chunks = dict(_png_chunks(file))
    _note_profile(b"iCCP" in chunks, info, told)
    if b"pHYs" in chunks:
        across, down, unit = struct.unpack(">IIB", chunks[b"pHYs"])
        told.resolution = None if unit == 1 else (float(across), float(down))
    managed = b"iCCP" in chunks or b"sRGB" in chunks
    if b"gAMA" in chunks and not managed:
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
        if gamma not in _SRGB_GAMMA:
            told.found[f"its gamma of {gamma / 100_000:g} (gAMA)"] = ()
    names = {b"cICP": "its color space (cICP)", b"mDCV": "mDCV", b"cLLI": "cLLI"}
    for kind, name in names.items():
        if kind in chunks:
            told.found[name] = ()
    if b"cHRM" in chunks and not managed:
        told.found["its primaries (cHRM)"] = ()
    if b"tEXt" in chunks:
        told.found["its texts"] = ("PNG",)
    if b"iTXt" in chunks:
        told.found["its texts beyond ASCII"] = ()
    if b"eXIf" in chunks:
        told.found["EXIF"] = _PHOTOGRAPHS


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and contents; texts in ASCII are tEXt, others iTXt, and XMP is left out."""
    file.seek(8)
    for _ in range(_MAX_PIECES):
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        data = b"" if kind == b"IDAT" else file.read(min(length, _MAX_BYTES))
        file.seek(length - len(data) + 4, 1)
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            if data.startswith((b"XML:com.adobe.xmp", b"Raw profile type")):
                continue
            kind = b"tEXt" if kind == b"zTXt" or data.isascii() else b"iTXt"
        yield kind, data


def _read_jpeg(file: BinaryIO, info: ImageInfo, told: InputMetadata) -> None:
    told.resolution = (1.0, 1.0)
    has_profile = False
    for marker, data in _jpeg_segments(file):
        if marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, across, down = struct.unpack_from(">BHH", data, 7)
            told.resolution = None if unit else (float(across or 1), float(down or 1))
        elif marker == 0xE1 and data.startswith(b"Exif"):
            told.found["EXIF"] = _PHOTOGRAPHS
            block = data[6:]
            order = "<" if block[:2] == b"II" else ">"
            if struct.pack(f"{order}HH", 282, 5) in block:
                told.resolution = None
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/"):
            told.found["XMP"] = _PHOTOGRAPHS
            if b"hdrgm:" in data or b"HDRGainMap" in data:
                told.found["its gain map"] = ()
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xmp/extension/"):
            told.found["its extended XMP"] = ()
        elif marker == 0xE2:
            has_profile |= data.startswith(b"ICC_PROFILE\0")
            if data.startswith(b"MPF\0"):
                told.found["further pictures (MPF), such as a gain map"] = ()
        elif marker == 0xED and b"8BIM\x04\x04" in data:
            told.found["IPTC"] = _WITH_IPTC
        elif marker == 0xFE:
            told.found["its comment"] = ()
    _note_profile(has_profile, info, told)


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Markers before the first scan, and what they hold."""
    file.seek(2)
    for _ in range(_MAX_PIECES):
        fill, marker = file.read(2)
        while fill == 0xFF and marker == 0xFF:
            (marker,) = file.read(1)
        if fill != 0xFF or marker == 0xDA:
            return
        (length,) = struct.unpack(">H", file.read(2))
        yield marker, file.read(length - 2)


def _read_heif(file: BinaryIO, info: ImageInfo, told: InputMetadata) -> None:
    head = file.read(_HEAD_BYTES)
    told.resolution = None if b"Exif" in head else (1.0, 1.0)
    if b"hdrgainmap" in head or b"tmap" in head:
        told.found["its gain map"] = ()
    at = head.find(b"colrnclx")
    if at >= 0 and not info.icc_bytes:
        primaries, transfer = struct.unpack_from(">HH", head, at + 8)
        if primaries not in (1, 2) or transfer not in (1, 2, 6, 13, 14, 15):
            told.found[f"its color space (nclx {primaries}, {transfer})"] = ()
    if b"Exif" in head:
        told.found["EXIF"] = _PHOTOGRAPHS
    _note_profile(b"colrprof" in head or b"colrrICC" in head, info, told)


def _read_tiff(file: BinaryIO, info: ImageInfo, told: InputMetadata) -> None:
    header = read_tiff_header(info.path)
    if header.resolution is None or header.resolution_unit not in (2, 3):
        told.resolution = header.resolution or (1.0, 1.0)
    tags = {
        tag.number: tag for tag in read_tags(file, (270, 34675, 700, 33723, 34665, 34853, 37724))
    }
    _note_profile(34675 in tags, info, told)
    if lies_on_earth(read_georeference(info.path)):
        told.found["its place on earth"] = _TIFF
    names = {700: ("XMP", _PHOTOGRAPHS), 33723: ("IPTC", _WITH_IPTC), 37724: ("layers", ())}
    for number, (name, formats) in names.items():
        if number in tags:
            told.found[name] = formats
    if {34665, 34853} & tags.keys():
        told.found["EXIF"] = _TIFF
    text = tags[270].data.rstrip(b"\0").decode(errors="replace") if 270 in tags else ""
    if text.startswith(("<?xml", "<OME", "Aperio", "ImageJ")):
        told.pixel_size_um = _pixel_size(text)
        kind = "OME-XML" if text.startswith("<") else text.split()[0].split("=")[0]
        told.found[f"its {kind} description"] = ()
        if told.pixel_size_um:
            told.found["its pixel size"] = ("TIFF", "PNG")


def _pixel_size(text: str) -> tuple[float, float] | None:
    """In micrometers, across and down, by what programs write in a TIFF's description."""
    aperio = re.search(r"\bMPP\s*=\s*([\d.]+)", text)
    if text.startswith("Aperio"):
        return (float(aperio[1]), float(aperio[1])) if aperio else None
    sides = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([\d.eE+-]+)"', text)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', text)
        factor = _MICROMETERS.get(unit[1].replace("μ", "µ") if unit else "µm")
        if size is None or factor is None or not float(size[1]) > 0:
            return None
        sides.append(float(size[1]) * factor)
    return sides[0], sides[1]


def _tail(file: BinaryIO) -> bytes:
    file.seek(0, 2)
    file.seek(max(0, file.tell() - _HEAD_BYTES))
    return file.read(_HEAD_BYTES)
