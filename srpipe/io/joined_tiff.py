"""Joins TIFFs that hold bands of rows of one image, without decoding or encoding a pixel.

A tile of a TIFF is encoded by itself. So where each part's rows are whole rows of tiles, the tiles of
the parts, one after another, are those of the whole, and only the directory has to be written anew. It
is laid out as libtiff lays it out, which gives the very file that libvips writes of the whole: tiles
from the first row to the last, the directory at the next even byte, then values that do not fit into
it, in libtiff's own order, each at an even byte. (TIFF Revision 6.0, section 15; libtiff 4.7,
tif_dirwrite.c.)
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from srpipe.errors import WriteError
from srpipe.io.tiff_directory import TYPE_BYTES, Entry, Form

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _BANDS = 256, 257, 258, 259, 277
_TILE_WIDTH, _TILE_LENGTH, _OFFSETS, _COUNTS = 322, 323, 324, 325
# What a part has of its own.
_OWN = {_LENGTH, _OFFSETS, _COUNTS}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_NUMPY = {_SHORT: "u2", _LONG: "u4", _LONG8: "u8"}
_UNCOMPRESSED = 1
# Resolution, position and bits.
_FIRST = dict.fromkeys((282, 283, 286, 287, _BITS), 0)
_PIECE_BYTES = 64_000_000
_NOT_POSSIBLE = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
}

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Part:
    """One TIFF of those to be joined."""

    path: str
    form: Form
    entries: dict[int, Entry]
    values: dict[int, bytes]
    """Values by tag, as the file has them, but for those of its tiles."""
    offsets: Numbers
    counts: Numbers

    def number(self, tag: int) -> int:
        return int.from_bytes(self.values[tag], "little" if self.form.order == "<" else "big")


def join_tiffs(
    parts: Sequence[str], path: str, *, beat: Callable[[int], None] = lambda _: None
) -> None:
    """Join tiled TIFFs of one page, as libvips writes them, from top to bottom.

    Args:
        parts: all of one width and alike in everything but their length, which is a multiple of that
            of a tile for all but the last.
        path: the file to write; BigTIFF if the parts are.
        beat: called with the bytes copied since.

    Raises:
        WriteError: a part does not fit to the others, or the whole would be too large for a TIFF that
            is no BigTIFF.
        OSError: a part cannot be read, or the whole not be written.
    """
    opened = [_read(part) for part in parts]
    for part in opened:
        _check(part, opened[0], last=part is opened[-1])
    first = opened[0]
    with open(path, "wb") as file:
        file.write(_header(first))
        offsets = [_copy(part, file, beat) for part in opened]
        values = _whole_values(opened, np.concatenate(offsets), path)
        try:
            _write_directory(first, values, file)
        except struct.error:
            raise WriteError(_too_large(path)) from None


def _read(path: str) -> _Part:
    with open(path, "rb") as file:
        try:
            form = Form(file)
            entries, following = form.first_directory(file)
            by_tag = {entry.number: entry for entry in entries}
            if following or not _OWN | {_TILE_WIDTH, _TILE_LENGTH} <= by_tag.keys():
                raise ValueError
            values = {
                tag: form.value(entry, file)
                for tag, entry in by_tag.items()
                if tag not in (_OFFSETS, _COUNTS)
            }
            offsets, counts = (
                np.frombuffer(
                    form.value(by_tag[tag], file), form.order + _NUMPY[by_tag[tag].kind]
                ).astype(np.uint64)
                for tag in (_OFFSETS, _COUNTS)
            )
        except (KeyError, ValueError):
            raise WriteError(
                f"{path} is no tiled TIFF of one page: remove it, and compute it again."
            ) from None
    return _Part(path, form, by_tag, values, offsets, counts)


def _check(part: _Part, first: _Part, *, last: bool) -> None:
    alike = part.form.entry == first.form.entry and part.values.keys() == first.values.keys()
    own = alike and all(part.values[tag] == first.values[tag] for tag in part.values.keys() - _OWN)
    if not own or (not last and part.number(_LENGTH) % part.number(_TILE_LENGTH)):
        raise WriteError(
            f"{part.path} does not continue {first.path}: its rows are no whole rows of tiles, or it "
            "was saved in another way; remove it, and compute it again."
        )


def _header(part: _Part) -> bytes:
    with open(part.path, "rb") as file:
        return file.read(part.form.header_bytes)


def _copy(part: _Part, file: BinaryIO, beat: Callable[[int], None]) -> Numbers:
    """Append the tiles of a part; returns where they are."""
    begin, start = file.tell(), int(part.offsets.min())
    # In whatever order they are: libvips compresses some kinds in threads.
    order = np.argsort(part.offsets)
    ends = (part.offsets + part.counts)[order]
    if not np.array_equal(part.offsets[order][1:], ends[:-1]):
        raise WriteError(
            f"{part.path} has gaps between its tiles: remove it, and compute it again."
        )
    with open(part.path, "rb") as source:
        _copy_range(source, start, int(ends[-1]), file, beat)
    return part.offsets - np.uint64(start) + np.uint64(begin)


def _copy_range(
    source: BinaryIO, start: int, stop: int, target: BinaryIO, beat: Callable[[int], None]
) -> None:
    target.flush()
    while start < stop:
        n = min(stop - start, _PIECE_BYTES)
        try:
            # The file system may share the blocks, or have a server copy them.
            n = os.copy_file_range(source.fileno(), target.fileno(), n, start)
            target.seek(0, os.SEEK_END)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NOT_POSSIBLE:
                raise
            source.seek(start)
            n = target.write(source.read(n))
            target.flush()
        if not n:
            raise OSError(errno.EIO, "a part has ended early")
        start += n
        beat(n)


def _whole_values(
    parts: Sequence[_Part], offsets: Numbers, path: str
) -> dict[int, tuple[int, int, Any]]:
    """Kind, count and value of what the whole's directory has otherwise than the first part's."""
    first = parts[0]
    counts = np.concatenate([part.counts for part in parts])
    order, big = first.form.order, first.form.field_bytes == 8
    offset_kind = _LONG8 if big else _LONG
    count_kind = _kind_of_counts(first) if len(counts) > 1 else offset_kind
    if not big and int(offsets[-1] + counts[-1]) >= 2**32:
        raise WriteError(_too_large(path))
    total = sum(part.number(_LENGTH) for part in parts)
    kind = _SHORT if total < 2**16 else _LONG
    size = TYPE_BYTES[kind]
    byte_order: Any = "little" if order == "<" else "big"
    return {
        _LENGTH: (kind, 1, total.to_bytes(size, byte_order)),
        _OFFSETS: (offset_kind, len(offsets), offsets.astype(order + _NUMPY[offset_kind])),
        _COUNTS: (count_kind, len(counts), counts.astype(order + _NUMPY[count_kind])),
    }


def _kind_of_counts(part: _Part) -> int:
    """What libtiff writes bytes of tiles as, if there are several: by the most they could be."""
    bits = np.frombuffer(part.values[_BITS], part.form.order + "u2")
    row_bits = part.number(_TILE_WIDTH) * part.number(_BANDS) * int(bits[0])
    tile_bytes = -(-row_bits // 8) * part.number(_TILE_LENGTH)
    factor = 1 if part.number(_COMPRESSION) == _UNCOMPRESSED else 10
    for kind, most in ((_SHORT, 0xFFFF), (_LONG, 0xFFFFFFFF)):
        if tile_bytes <= most // factor - (factor > 1):
            return kind
    return _LONG8 if part.form.field_bytes == 8 else _LONG


def _write_directory(part: _Part, own: dict[int, tuple[int, int, Any]], file: BinaryIO) -> None:
    """Write a part's directory with other values in the place of some."""
    form = part.form
    place = file.tell() + file.tell() % 2
    position = place + len(form.pack_directory(list(part.entries.values()), 0))
    fields: list[Entry] = []
    outside: list[tuple[int, Any]] = []
    for entry in sorted(part.entries.values(), key=lambda entry: _turn(entry, form)):
        kind, count, value = own.get(
            entry.number, (entry.kind, entry.count, part.values.get(entry.number))
        )
        n_bytes = TYPE_BYTES[kind] * count
        if n_bytes <= form.field_bytes:
            field = bytes(value).ljust(form.field_bytes, b"\0")
        else:
            position += position % 2
            field = struct.pack(form.offset, position)
            outside.append((position, value))
            position += n_bytes
        fields.append(replace(entry, kind=kind, count=count, field=field))
    file.seek(place)
    file.write(form.pack_directory(fields, 0))
    for offset, value in outside:
        file.seek(offset)
        file.write(value)
    file.seek(form.header_offset)
    file.write(struct.pack(form.offset, place))


def _turn(entry: Entry, form: Form) -> tuple[int, int]:
    """When libtiff writes the value of an entry: those of the tiles after a few and before the rest."""
    turn = _FIRST.get(entry.number, {_COUNTS: 1, _OFFSETS: 2}.get(entry.number, 3))
    inside = TYPE_BYTES[entry.kind] * entry.count <= form.field_bytes
    return turn, 0 if inside else form.value_place(entry)


def _too_large(path: str) -> str:
    return f"{path} would be larger than 4 GiB, which only a BigTIFF can be: write [bigtiff]."
