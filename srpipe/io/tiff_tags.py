"""One thing that libvips does not say of a TIFF: whether its bands lie one after another.

TIFF 6.0 and its 64-bit form: a header, and directories of entries of a tag, a type, a count and a
value (TIFF Revision 6.0, Adobe 1992, section 2; libtiff's description of BigTIFF).
"""

from __future__ import annotations

import os
import struct

_PLANAR_CONFIGURATION = 284
_SEPARATE = 2
_BIG_VERSION = 43
# Where the first directory is, how many entries it has, and an entry's tag and short value.
_CLASSIC = ("4xI", "H", "H6xH2x")
_BIG = ("8xQ", "Q", "H10xH6x")
# More entries than any sane directory has; a damaged count must not be believed.
_MAX_ENTRIES = 4096


def has_separate_planes(path: str | os.PathLike[str]) -> bool:
    """Whether the first image of a TIFF file stores each band on its own, not pixel by pixel.

    Args:
        path: a file that libvips reads as TIFF.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(16)
        order = "<" if header[:2] == b"II" else ">"
        try:
            (version,) = struct.unpack_from(f"{order}2xH", header)
            form = _BIG if version == _BIG_VERSION else _CLASSIC
            first, count, entry = (order + part for part in form)
            (offset,) = struct.unpack_from(first, header)
            if offset > os.fstat(file.fileno()).st_size:
                return False
            file.seek(offset)
            (n_entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
            table = file.read(min(n_entries, _MAX_ENTRIES) * struct.calcsize(entry))
            values = dict(struct.iter_unpack(entry, table))
        except struct.error:
            return False  # damaged: libvips has more to say about it
    return values.get(_PLANAR_CONFIGURATION) == _SEPARATE
