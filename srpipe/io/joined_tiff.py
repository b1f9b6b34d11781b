"""Joins TIFFs that hold bands of rows of one image, without decoding or encoding a pixel.

A tile of a TIFF is encoded by itself. So where each part's rows are whole rows of tiles, the tiles of
the parts, one after another, are those of the whole, and only the directory has to be written anew. It
is laid out as libtiff lays it out, which gives the very file that libvips writes of the whole: tiles
from the first row to the last, the directory at the next even byte, then values that do not fit into
it, in libtiff's own order, each at an even byte. (TIFF Revision 6.0, section 15; libtiff 4.7,
tif_dirwrite.c.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from srpipe.errors import WriteError
from srpipe.io.tiff_directory import TYPE_BYTES, Entry, Form

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _BANDS = 256, 257, 258, 259, 277
_TILE_WIDTH, _TILE_LENGTH, _OFFSETS, _COUNTS = 322, 323, 324, 325
_NEEDED = {
    _WIDTH,
    _LENGTH,
    _BITS,
    _COMPRESSION,
    _BANDS,
    _TILE_WIDTH,
    _TILE_LENGTH,
    _OFFSETS,
    _COUNTS,
}
_MEASURES = (_LENGTH, _TILE_LENGTH)
# What a part has of its own.
_OWN = {_LENGTH, _OFFSETS, _COUNTS}
# They lead to directories elsewhere in their file: of smaller images, EXIF, GPS, interoperability.
_POINTERS = {330, 34665, 34853, 40965}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_NUMPY = {_SHORT: "u2", _LONG: "u4", _LONG8: "u8"}
_UNCOMPRESSED = 1
# LZW, JPEG, both deflates, LZMA, LERC, Zstandard, WebP, JPEG XL: libtiff expects no tile to become
# ten times as large.
_BOUNDED = {5, 7, 8, 32946, 34887, 34925, 50000, 50001, 50002}
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
    start: int
    """Where its tiles begin."""
    stop: int
    """Where they end."""

    def number(self, tag: int) -> int:
        return int.from_bytes(self.values[tag], "little" if self.form.order == "<" else "big")

    @property
    def n_tiles(self) -> int:
        return self.entries[_OFFSETS].count

    def numbers(self, tag: int) -> Numbers:
        """Where its tiles are, or their bytes; they are many, so they are read when needed."""
        with open(self.path, "rb") as file:
            return _numbers(self.form, self.entries[tag], file)


@dataclass(frozen=True, slots=True)
class _Value:
    """What the whole's directory has otherwise than a part's."""

    kind: int
    count: int
    pieces: Iterable[bytes]


def join_tiffs(parts: Iterable[str], path: str, *, beat: Callable[[], None] = lambda: None) -> None:
    """Join tiled TIFFs of one page, as libvips writes them, from top to bottom.

    Args:
        parts: all of one width and alike in everything but their length, which is a multiple of that
            of a tile for all but the last. Each is copied before the next one is asked for.
        path: the file to write; BigTIFF if the parts are.
        beat: called now and then.

    Raises:
        WriteError: a part does not fit to the others, or the whole would be too large for a TIFF that
            is no BigTIFF.
        OSError: a part cannot be read, or the whole not be written. Nothing is left at ``path`` then.
    """
    try:
        _join(parts, path, beat)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise


def _join(parts: Iterable[str], path: str, beat: Callable[[], None]) -> None:
    opened: list[_Part] = []
    with open(path, "wb") as file:
        for part_path in parts:
            part = _read(part_path)
            if opened:
                _check(part, opened[0], opened[-1])
                # Of an image of millions of tiles, only the first part's values are kept.
                part = replace(part, values={tag: part.values[tag] for tag in _MEASURES})
            else:
                file.write(_header(part))
            opened.append(part)
            if file.tell() + part.stop - part.start > part.form.most_bytes:
                raise _too_large(path)
            with open(part.path, "rb") as source:
                _copy_range(source, part.start, part.stop, file, beat)
        _write_directory(opened, path, file)


def _write_directory(parts: Sequence[_Part], path: str, file: BinaryIO) -> None:
    """Write the directory of the whole behind its tiles."""
    form = parts[0].form
    place = file.tell() + file.tell() % 2
    try:
        directory, outside, end = _directory(parts[0], _whole_values(parts), place)
    except struct.error:
        raise _too_large(path) from None
    if end > form.most_bytes:
        raise _too_large(path)
    file.seek(place)
    file.write(directory)
    for offset, pieces in outside:
        file.seek(offset)
        for piece in pieces:
            file.write(piece)
    file.seek(form.header_offset)
    file.write(struct.pack(form.offset, place))


def _too_large(path: str) -> WriteError:
    return WriteError(
        f"{path} would be larger than 4 GiB, which only a BigTIFF can be: write [bigtiff]."
    )


def _read(path: str) -> _Part:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            form = Form(file)
            entries, following = form.first_directory(file)
            by_tag = {entry.number: entry for entry in entries}
            if following or not by_tag.keys() >= _NEEDED or by_tag.keys() & _POINTERS:
                raise ValueError
            values = {
                tag: form.value(entry, file, size)
                for tag, entry in by_tag.items()
                if tag not in (_OFFSETS, _COUNTS)
            }
            offsets, counts = (
                _numbers(form, by_tag[tag], file, size) for tag in (_OFFSETS, _COUNTS)
            )
            part = _Part(path, form, by_tag, values, 0, 0)
            across = -(-part.number(_WIDTH) // part.number(_TILE_WIDTH))
            down = -(-part.number(_LENGTH) // part.number(_TILE_LENGTH))
            if not len(offsets) == len(counts) == across * down > 0:
                raise ValueError
        except (KeyError, ValueError, OverflowError, ZeroDivisionError, struct.error):
            raise WriteError(
                f"{path} is no tiled TIFF of one page, or damaged: remove it, and compute it again."
            ) from None
    stops = offsets + counts
    if not np.array_equal(offsets[1:], stops[:-1]):
        # In whatever order they are: libvips compresses some kinds in threads.
        order = np.argsort(offsets)
        offsets, stops = offsets[order], stops[order]
    if not np.array_equal(offsets[1:], stops[:-1]) or int(stops[-1]) > size:
        raise WriteError(
            f"{path} has gaps between its tiles, or ends early: remove it, and compute it again."
        )
    return replace(part, start=int(offsets[0]), stop=int(stops[-1]))


def _numbers(form: Form, entry: Entry, file: BinaryIO, most_bytes: int | None = None) -> Numbers:
    value = form.value(entry, file, most_bytes)
    return np.frombuffer(value, form.order + _NUMPY[entry.kind]).astype(np.uint64)


def _check(part: _Part, first: _Part, before: _Part) -> None:
    alike = part.form.entry == first.form.entry and part.values.keys() == first.values.keys()
    own = alike and all(part.values[tag] == first.values[tag] for tag in part.values.keys() - _OWN)
    if not own:
        raise WriteError(
            f"{part.path} does not continue {first.path}, it was saved in another way: remove it, and "
            "compute it again."
        )
    if before.number(_LENGTH) % before.number(_TILE_LENGTH):
        raise WriteError(
            f"{before.path} ends within a row of tiles, so that {part.path} does not continue it: "
            "remove it, and compute it again."
        )


def _header(part: _Part) -> bytes:
    with open(part.path, "rb") as file:
        return file.read(part.form.header_bytes)


def _copy_range(
    source: BinaryIO, start: int, stop: int, target: BinaryIO, beat: Callable[[], None]
) -> None:
    """Append bytes of a file to another one."""
    target.flush()
    while start < stop:
        n = _copy_by_system(source, start, min(stop - start, _PIECE_BYTES), target)
        if not n:
            source.seek(start)
            n = target.write(source.read(min(stop - start, _PIECE_BYTES)))
            target.flush()
        if not n:
            raise WriteError(f"{source.name} has ended early: remove it, and compute it again.")
        start += n
        beat()


def _copy_by_system(source: BinaryIO, start: int, n_bytes: int, target: BinaryIO) -> int:
    """The file system may share the blocks, or have a server copy them; 0 where it cannot."""
    try:
        n = os.copy_file_range(source.fileno(), target.fileno(), n_bytes, start)
    except AttributeError:
        return 0  # only Linux has it
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
        return 0
    target.seek(0, os.SEEK_END)
    return n


def _whole_values(parts: Sequence[_Part]) -> dict[int, _Value]:
    """What the whole's directory has otherwise than the first part's, by tag."""
    first = parts[0]
    order, n_tiles = first.form.order, sum(part.n_tiles for part in parts)
    offset_kind = _LONG8 if first.form.field_bytes == 8 else _LONG
    count_kind = _kind_of_counts(parts) if n_tiles > 1 else offset_kind
    total = sum(part.number(_LENGTH) for part in parts)
    kind = _SHORT if total < 2**16 else _LONG
    length = np.array([total]).astype(order + _NUMPY[kind]).tobytes()
    return {
        _LENGTH: _Value(kind, 1, [length]),
        _OFFSETS: _Value(offset_kind, n_tiles, _whole_offsets(parts, order + _NUMPY[offset_kind])),
        _COUNTS: _Value(
            count_kind,
            n_tiles,
            (part.numbers(_COUNTS).astype(order + _NUMPY[count_kind]).tobytes() for part in parts),
        ),
    }


def _whole_offsets(parts: Sequence[_Part], kind: str) -> Iterable[bytes]:
    begin = parts[0].form.header_bytes
    for part in parts:
        offsets = part.numbers(_OFFSETS) - np.uint64(part.start) + np.uint64(begin)
        yield offsets.astype(kind).tobytes()
        begin += part.stop - part.start


def _kind_of_counts(parts: Sequence[_Part]) -> int:
    """What libtiff writes bytes of tiles as, if there are several: by the most they could be."""
    part = parts[0]
    for known in parts:
        if known.n_tiles > 1:
            return known.entries[_COUNTS].kind
    widest = _LONG8 if part.form.field_bytes == 8 else _LONG
    compression = part.number(_COMPRESSION)
    if compression not in {_UNCOMPRESSED, *_BOUNDED}:
        return widest
    bits = np.frombuffer(part.values[_BITS], part.form.order + "u2")
    row_bits = part.number(_TILE_WIDTH) * part.number(_BANDS) * int(bits[0])
    tile_bytes = -(-row_bits // 8) * part.number(_TILE_LENGTH)
    for kind, most in ((_SHORT, 0xFFFF), (_LONG, 0xFFFFFFFF)):
        if tile_bytes <= (most if compression == _UNCOMPRESSED else most // 10 - 1):
            return kind
    return widest


def _directory(
    part: _Part, own: dict[int, _Value], place: int
) -> tuple[bytes, list[tuple[int, Iterable[bytes]]], int]:
    """A part's directory with other values in the place of some; what is outside of it, and its end."""
    form = part.form
    position = place + len(form.pack_directory(list(part.entries.values()), 0))
    fields: list[Entry] = []
    outside: list[tuple[int, Iterable[bytes]]] = []
    for entry in sorted(part.entries.values(), key=lambda entry: _turn(entry, form)):
        value = own.get(entry.number) or _Value(
            entry.kind, entry.count, [part.values[entry.number]]
        )
        n_bytes = TYPE_BYTES[value.kind] * value.count
        if n_bytes <= form.field_bytes:
            field = b"".join(value.pieces).ljust(form.field_bytes, b"\0")
        else:
            position += position % 2
            field = struct.pack(form.offset, position)
            outside.append((position, value.pieces))
            position += n_bytes
        fields.append(replace(entry, kind=value.kind, count=value.count, field=field))
    return form.pack_directory(fields, 0), outside, position


def _turn(entry: Entry, form: Form) -> tuple[int, int]:
    """When libtiff writes the value of an entry: those of the tiles after a few and before the rest."""
    turn = _FIRST.get(entry.number, {_COUNTS: 1, _OFFSETS: 2}.get(entry.number, 3))
    inside = TYPE_BYTES[entry.kind] * entry.count <= form.field_bytes
    return turn, 0 if inside else form.value_place(entry)
