"""What a photograph tells of itself, in a TIFF: EXIF and IPTC, which libvips does not write there.

EXIF: CIPA DC-008 (Exif 2.32), 4.6. IPTC records stand bare in TIFF's tag 33723 (XMP specification part
3, 1.1.3), and in JPEG within a Photoshop resource of number 0x0404.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from srpipe.io.tiff_directory import Tag, read_tags
from srpipe.plan.geometry import Size

# Description, maker, model, date, artist, copyright.
_IN_FRONT = (270, 271, 272, 306, 315, 33432)
# Descriptions that programs read, of another size and scale than the output's.
_MACHINE_READ = (b"<?xml", b"<OME", b"ImageJ", b"Aperio", b"{")
_EXIF, _GPS, _IPTC = 34665, 34853, 33723
_WIDTH, _HEIGHT = 40962, 40963
_UNDEFINED, _LONG = 7, 4
_RESOURCE, _IPTC_RESOURCE = b"8BIM", 0x0404


def photograph_tags(path: str, image: Any, size: Size) -> tuple[Tag, ...]:
    """The EXIF and IPTC of an image as a TIFF has them.

    Args:
        path: the input.
        image: as libvips reads it, with its EXIF and IPTC.
        size: of the output, pixels.

    Raises:
        OSError: the input cannot be read.
    """
    if image.get_typeof("exif-data"):
        content = image.get("exif-data")
        block = io.BytesIO(content[6:] if content[:4] == b"Exif" else content)
        tags = read_tags(block, _IN_FRONT, (_EXIF, _GPS))
    else:
        with open(path, "rb") as file:
            tags = read_tags(file, (*_IN_FRONT, _IPTC), (_EXIF, _GPS))
    if image.get_typeof("iptc-data") and _IPTC not in {tag.number for tag in tags}:
        records = bare_records(image.get("iptc-data"))
        tags += (Tag(_IPTC, _UNDEFINED, len(records), records),) if records else ()
    tags = tuple(
        tag for tag in tags if not (tag.number == 270 and tag.data.startswith(_MACHINE_READ))
    )
    return tuple(_resized(tag, size) if tag.number == _EXIF else tag for tag in tags)


def _resized(exif: Tag, size: Size) -> Tag:
    sides = {_WIDTH: size.width, _HEIGHT: size.height}
    inside = tuple(
        Tag(tag.number, _LONG, 1, struct.pack("<I", sides[tag.number]))
        if tag.number in sides
        else tag
        for tag in exif.directory
    )
    return Tag(exif.number, exif.kind, exif.count, directory=inside)


def bare_records(content: bytes) -> bytes:
    """IPTC's records, out of the Photoshop resources of a JPEG; b"" where there are none."""
    start = content.find(_RESOURCE)
    if start < 0:
        return content if content[:1] == b"\x1c" else b""
    while content[start : start + 4] == _RESOURCE and start + 12 <= len(content):
        (number,) = struct.unpack_from(">H", content, start + 4)
        name_bytes = content[start + 6] + 1
        start += 6 + name_bytes + name_bytes % 2
        if start + 4 > len(content):
            break
        (length,) = struct.unpack_from(">I", content, start)
        if number == _IPTC_RESOURCE:
            return content[start + 4 : start + 4 + length]
        start += 4 + length + length % 2
    return b""
