"""Directories of a TIFF: their tags, read from any file or EXIF block, and added to finished files.

The first directory of a finished file is written once more at its end, with the tags added, and the
header then points there: the pixels, and every other directory, stay where they are (TIFF Revision 6.0,
Adobe 1992, section 2; libtiff's description of BigTIFF).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
               16: 8, 17: 8, 18: 8}  # fmt: skip
# How numbers within a value lie: a fraction is two of them.
_NUMBER_BYTES = _TYPE_BYTES | {5: 4, 10: 4}
_LONG, _IFD8 = 4, 18
_POINTERS = (34665, 34853, 40965)
# Damaged counts must not be believed.
_MAX_ENTRIES = 4096
_MAX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory."""

    number: int
    kind: int
    """TIFF's number of the type."""
    count: int
    data: bytes = b""
    """The values, little-endian."""
    directory: tuple[Tag, ...] = ()
    """The tags of a directory that this one leads to, in place of values."""


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    kind: int
    count: int
    field: bytes
    """The value, or where it is, as the file has it."""


class _Form:
    """How a file writes its directories: byte order, and the width of numbers."""

    def __init__(self, file: BinaryIO) -> None:
        header = file.read(8)
        self.order = {b"II": "<", b"MM": ">"}[header[:2]]
        big = struct.unpack_from(f"{self.order}H", header, 2)[0] == 43
        self.header_offset = 8 if big else 4
        self.offset, self.count = (f"{self.order}{c}" for c in (("Q", "Q") if big else ("I", "H")))
        self.entry = f"{self.order}HHQ8s" if big else f"{self.order}HHI4s"
        self.field_bytes = 8 if big else 4

    def unpack(self, form: str, file: BinaryIO) -> int:
        (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
        return int(value)

    def first_directory(self, file: BinaryIO) -> tuple[list[_Entry], int]:
        """Its entries, and where the next directory is."""
        file.seek(self.header_offset)
        return self.directory(file, self.unpack(self.offset, file))

    def directory(self, file: BinaryIO, offset: int) -> tuple[list[_Entry], int]:
        """The entries of the directory there, and where the next one is."""
        file.seek(offset)
        n = self.unpack(self.count, file)
        if n > _MAX_ENTRIES:
            raise ValueError
        table = file.read(n * struct.calcsize(self.entry))
        entries = [_Entry(*values) for values in struct.iter_unpack(self.entry, table)]
        return entries, self.unpack(self.offset, file)

    def data(self, entry: _Entry, file: BinaryIO) -> bytes:
        """An entry's values, little-endian."""
        size = _TYPE_BYTES[entry.kind]
        n_bytes = size * entry.count
        if n_bytes > _MAX_BYTES:
            raise ValueError
        if n_bytes <= self.field_bytes:
            data = entry.field[:n_bytes]
        else:
            file.seek(struct.unpack(self.offset, entry.field)[0])
            data = file.read(n_bytes)
        if len(data) < n_bytes:
            raise ValueError
        return data if self.order == "<" else _swapped(data, _NUMBER_BYTES[entry.kind])

    def write(self, tag: Tag, file: BinaryIO) -> _Entry:
        """Write a tag's values at the end of a file, if they need a place of their own."""
        if tag.directory:
            entries = [self.write(inner, file) for inner in tag.directory]
            offset = struct.pack(self.offset, self.write_directory(entries, 0, file))
            return _Entry(tag.number, _IFD8 if self.field_bytes == 8 else _LONG, 1, offset)
        number_bytes = _NUMBER_BYTES[tag.kind]
        data = tag.data if self.order == "<" else _swapped(tag.data, number_bytes)
        field = data.ljust(self.field_bytes, b"\0")
        if len(data) > self.field_bytes:
            field = struct.pack(self.offset, _end(file))
            file.write(data)
        return _Entry(tag.number, tag.kind, tag.count, field)

    def write_directory(self, entries: list[_Entry], following: int, file: BinaryIO) -> int:
        """Write a directory at the end of a file; returns where it is."""
        place = _end(file)
        struct.pack(self.offset, place)  # that it can be told comes before it is written
        file.write(struct.pack(self.count, len(entries)))
        for e in sorted(entries, key=lambda entry: entry.number):
            file.write(struct.pack(self.entry, e.number, e.kind, e.count, e.field))
        file.write(struct.pack(self.offset, following))
        return place


def _swapped(data: bytes, size: int) -> bytes:
    return b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))


def read_tags(
    file: BinaryIO, wanted: Iterable[int], directories: Iterable[int] = ()
) -> tuple[Tag, ...]:
    """Tags of the first directory of a TIFF; none where it is damaged, or no TIFF.

    Args:
        file: a TIFF, or what stands in an EXIF block.
        wanted: numbers of tags.
        directories: numbers of tags that lead to a directory, of which all is read but what leads to
            yet another one.
    """
    try:
        form = _Form(file)
        entries, _ = form.first_directory(file)
        by_number = {entry.number: entry for entry in entries}
        found = [
            Tag(e.number, e.kind, e.count, form.data(e, file))
            for e in (by_number[n] for n in wanted if n in by_number)
        ]
        for number in directories:
            if number in by_number:
                pointer = int.from_bytes(form.data(by_number[number], file), "little")
                inside, _ = form.directory(file, pointer)
                tags = tuple(
                    Tag(e.number, e.kind, e.count, form.data(e, file))
                    for e in inside
                    if e.number not in _POINTERS
                )
                found += [Tag(number, _LONG, 1, directory=tags)] if tags else []
        return tuple(found)
    except (KeyError, ValueError, OverflowError, OSError, struct.error):
        return ()  # damaged: offsets may lead anywhere


def add_tags(path: str | os.PathLike[str], tags: tuple[Tag, ...]) -> None:
    """Add tags to the first image of a TIFF, in place of any it has of them.

    Args:
        path: a whole TIFF or BigTIFF.
        tags: to add.

    Raises:
        OSError: it cannot be written, or would be too large for a TIFF that is no BigTIFF.
    """
    if not tags:
        return
    with open(path, "r+b") as file:
        form = _Form(file)
        entries, following = form.first_directory(file)
        numbers = {tag.number for tag in tags}
        entries = [entry for entry in entries if entry.number not in numbers]
        file.seek(0, os.SEEK_END)
        try:
            entries += [form.write(tag, file) for tag in tags]
            place = struct.pack(form.offset, form.write_directory(entries, following, file))
        except struct.error:
            raise OSError(None, "its metadata do not fit: write [bigtiff]") from None
        file.flush()
        file.seek(form.header_offset)
        file.write(place)


def _end(file: BinaryIO) -> int:
    """The end of a file, moved to where a number may begin."""
    if file.tell() % 8:
        file.write(bytes(-file.tell() % 8))
    return file.tell()
