"""Directories of a TIFF: their tags, read from any file or EXIF block, and added to finished files.

The directories of a finished file that get tags are written once more at its end, and the header then
points there: the pixels stay where they are (TIFF Revision 6.0, Adobe 1992, section 2; libtiff's
description of BigTIFF).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
               16: 8, 17: 8, 18: 8}  # fmt: skip
# How numbers within a value lie: a fraction is two of them.
_NUMBER_BYTES = TYPE_BYTES | {5: 4, 10: 4}
_LONG, _IFD8 = 4, 18
_POINTERS = (34665, 34853, 40965)
_SUB_IFDS = 330
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
class Entry:
    """An entry of a directory, as its file has it."""

    number: int
    kind: int
    count: int
    field: bytes
    """The value, or where it is, as the file has it."""


class Form:
    """How a file writes its directories: byte order, and the width of numbers."""

    def __init__(self, file: BinaryIO) -> None:
        header = file.read(8)
        self.order = {b"II": "<", b"MM": ">"}[header[:2]]
        big = struct.unpack_from(f"{self.order}H", header, 2)[0] == 43
        self.header_offset = 8 if big else 4
        self.offset, self.count = (f"{self.order}{c}" for c in (("Q", "Q") if big else ("I", "H")))
        self.entry = f"{self.order}HHQ8s" if big else f"{self.order}HHI4s"
        self.field_bytes = 8 if big else 4
        self.header_bytes = 16 if big else 8
        self.most_bytes = 2**64 - 1 if big else 2**32 - 1
        self._left_bytes = _MAX_BYTES

    def unpack(self, form: str, file: BinaryIO) -> int:
        """The next number of a file."""
        (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
        return int(value)

    def first_directory(self, file: BinaryIO) -> tuple[list[Entry], int]:
        """Its entries, and where the next directory is."""
        return self.directory(file, self.first_place(file))

    def first_place(self, file: BinaryIO) -> int:
        """Where the first directory is."""
        file.seek(self.header_offset)
        return self.unpack(self.offset, file)

    def directory(self, file: BinaryIO, offset: int) -> tuple[list[Entry], int]:
        """The entries of the directory there, and where the next one is."""
        _seek(file, offset)
        n = self.unpack(self.count, file)
        if n > _MAX_ENTRIES:
            raise ValueError
        table = file.read(n * struct.calcsize(self.entry))
        entries = [Entry(*values) for values in struct.iter_unpack(self.entry, table)]
        return entries, self.unpack(self.offset, file)

    def data(self, entry: Entry, file: BinaryIO) -> bytes:
        """An entry's values, little-endian.

        Raises:
            ValueError: they end early, or are, with all that was read before, too many: any number of
                entries may lead to the same bytes.
        """
        data = self.value(entry, file, self._left_bytes)
        self._left_bytes -= len(data)
        return data if self.order == "<" else _swapped(data, _NUMBER_BYTES[entry.kind])

    def value(self, entry: Entry, file: BinaryIO, most_bytes: int | None = None) -> bytes:
        """An entry's values, as the file has them.

        Raises:
            ValueError: they end early, or are more than ``most_bytes``.
        """
        n_bytes = TYPE_BYTES[entry.kind] * entry.count
        if most_bytes is not None and n_bytes > most_bytes:
            raise ValueError
        if n_bytes <= self.field_bytes:
            data = entry.field[:n_bytes]
        else:
            _seek(file, self.value_place(entry))
            data = file.read(n_bytes)
        if len(data) < n_bytes:
            raise ValueError
        return data

    def value_place(self, entry: Entry) -> int:
        """Where the values of an entry are that do not fit into it."""
        return int(struct.unpack(self.offset, entry.field)[0])

    def write(self, tag: Tag, file: BinaryIO) -> Entry:
        """Write a tag's values at the end of a file, if they need a place of their own."""
        if tag.directory:
            entries = [self.write(inner, file) for inner in tag.directory]
            offset = struct.pack(self.offset, self.write_directory(entries, 0, file))
            return Entry(tag.number, _IFD8 if self.field_bytes == 8 else _LONG, 1, offset)
        number_bytes = _NUMBER_BYTES[tag.kind]
        data = tag.data if self.order == "<" else _swapped(tag.data, number_bytes)
        field = data.ljust(self.field_bytes, b"\0")
        if len(data) > self.field_bytes:
            field = struct.pack(self.offset, _end(file))
            file.write(data)
        return Entry(tag.number, tag.kind, tag.count, field)

    def write_directory(self, entries: list[Entry], following: int, file: BinaryIO) -> int:
        """Write a directory at the end of a file; returns where it is."""
        place = _end(file)
        struct.pack(self.offset, place)  # that it can be told comes before it is written
        file.write(self.pack_directory(entries, following))
        return place

    def pack_directory(self, entries: list[Entry], following: int) -> bytes:
        """A directory, and where the next one is."""
        packed = [
            struct.pack(self.entry, e.number, e.kind, e.count, e.field)
            for e in sorted(entries, key=lambda entry: entry.number)
        ]
        end = struct.pack(self.offset, following)
        return b"".join([struct.pack(self.count, len(entries)), *packed, end])


def _seek(file: BinaryIO, place: int) -> None:
    try:
        file.seek(place)
    except (OSError, OverflowError):  # no file is that large
        raise ValueError from None


def _swapped(data: bytes, size: int) -> bytes:
    return np.frombuffer(data, f">u{size}").astype(f"<u{size}").tobytes()


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
        form = Form(file)
        entries, _ = form.first_directory(file)
        by_number = {entry.number: entry for entry in entries}
        found = [
            Tag(e.number, e.kind, e.count, form.data(e, file))
            for e in (by_number[n] for n in wanted if n in by_number)
        ]
        for number in directories:
            if number in by_number:
                with contextlib.suppress(ValueError):  # more than anybody has: left out
                    tags = _inside(form, form.data(by_number[number], file), file)
                    found += [Tag(number, _LONG, 1, directory=tags)] if tags else []
        return tuple(found)
    except (KeyError, ValueError, OverflowError, OSError, struct.error):
        return ()  # damaged: offsets may lead anywhere


def _inside(form: Form, pointer: bytes, file: BinaryIO) -> tuple[Tag, ...]:
    entries, _ = form.directory(file, int.from_bytes(pointer, "little"))
    return tuple(
        Tag(e.number, e.kind, e.count, form.data(e, file))
        for e in entries
        if e.number not in _POINTERS
    )


def add_tags(
    path: str | os.PathLike[str], tags: tuple[Tag, ...], everywhere: tuple[Tag, ...] = ()
) -> None:
    """Add tags to the first image of a TIFF, in place of any it has of them.

    Args:
        path: a whole TIFF or BigTIFF.
        tags: to add.
        everywhere: to add to all images, such as the levels of a pyramid.

    Raises:
        OSError: it cannot be written, or would be too large for a TIFF that is no BigTIFF.
    """
    if not (tags or everywhere):
        return
    with open(path, "r+b") as file:
        form = Form(file)
        directories = [form.first_directory(file)]
        while everywhere and directories[-1][1]:
            directories.append(form.directory(file, directories[-1][1]))
        following = directories[-1][1]
        file.seek(0, os.SEEK_END)
        try:
            for i, (entries, _) in reversed(list(enumerate(directories))):
                wanted = (tags if i == 0 else ()) + everywhere
                following = _write_again(form, file, entries, wanted, following, everywhere)
            place = struct.pack(form.offset, following)
        except struct.error:
            raise OSError(None, "its metadata do not fit: write [bigtiff]") from None
        file.flush()
        file.seek(form.header_offset)
        file.write(place)


def _write_again(
    form: Form,
    file: BinaryIO,
    entries: list[Entry],
    tags: tuple[Tag, ...],
    following: int,
    inside: tuple[Tag, ...] = (),
) -> int:
    """Write a directory at the end, with ``tags`` added; those of SubIFDs get those of ``inside``."""
    if inside:
        tags += tuple(
            _write_inside(form, file, entry, inside)
            for entry in entries
            if entry.number == _SUB_IFDS
        )
    numbers = {tag.number for tag in tags}
    entries = [entry for entry in entries if entry.number not in numbers]
    file.seek(0, os.SEEK_END)
    entries += [form.write(tag, file) for tag in tags]
    return form.write_directory(entries, following, file)


def _write_inside(form: Form, file: BinaryIO, entry: Entry, tags: tuple[Tag, ...]) -> Tag:
    width = TYPE_BYTES[entry.kind]
    data = form.data(entry, file)
    places = [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]
    moved = b""
    for place in places:
        entries, following = form.directory(file, place)
        place = _write_again(form, file, entries, tags, following)
        moved += place.to_bytes(width, "little")
    return Tag(entry.number, entry.kind, entry.count, moved)


def _end(file: BinaryIO) -> int:
    """The end of a file, moved to where a number may begin."""
    if file.tell() % 8:
        file.write(bytes(-file.tell() % 8))
    return file.tell()
