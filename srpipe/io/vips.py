"""pyvips, imported once and told to keep nothing between operations."""

from __future__ import annotations

import logging
from typing import Any

import pyvips
from pyvips import ffi, nickname_find, type_from_name, vips_lib

from srpipe.plan.pixels import PixelDtype

__all__ = [
    "DTYPES",
    "FORMATS",
    "VIPS_ERRORS",
    "ffi",
    "find_loader",
    "find_saver",
    "first_line",
    "forget_errors",
    "is_untrusted",
    "libvips_version",
    "pyvips",
]

FORMATS: dict[PixelDtype, str] = {
    "uint8": "uchar", "uint16": "ushort", "int16": "short", "float32": "float",
}  # fmt: skip
"""libvips' names of the types of pixels."""
DTYPES = {name: dtype for dtype, name in FORMATS.items()}

# A cached load would return the pixels of a file that has since been replaced.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.ERROR)


# pyvips fails to decode messages that quote a damaged file.
VIPS_ERRORS = (pyvips.Error, UnicodeDecodeError)

# libvips' VIPS_OPERATION_UNTRUSTED: not fuzzed, or built on libraries that are not.
_UNTRUSTED = 16


def find_loader(source: Any) -> str:
    """The libvips operation that would read a source; empty if none would."""
    name = vips_lib.vips_foreign_find_load_source(source.pointer)
    return "" if name == ffi.NULL else str(nickname_find(type_from_name(ffi.string(name).decode())))


def find_saver(suffix: str) -> str:
    """The libvips operation that writes files with an ending; empty if none does."""
    name = suffix.replace(".dzi", ".dz").encode()
    found = vips_lib.vips_foreign_find_save_target(name)
    found = vips_lib.vips_foreign_find_save(name) if found == ffi.NULL else found
    return (
        "" if found == ffi.NULL else str(nickname_find(type_from_name(ffi.string(found).decode())))
    )


def libvips_version() -> str:
    """The version of the library itself."""
    return ".".join(str(pyvips.version(part)) for part in range(3))


def is_untrusted(loader: str) -> bool:
    """Whether libvips advises against an operation for files from strangers."""
    return bool(pyvips.Introspect.get(loader).flags & _UNTRUSTED)


def forget_errors() -> None:
    """Drop what libvips noted of damage that was no error, before it is told as the reason of one."""
    vips_lib.vips_error_clear()


def first_line(error: Exception) -> str:
    """What libvips said, on one line; ``error`` is one of :data:`VIPS_ERRORS`."""
    if isinstance(error, UnicodeDecodeError):
        vips_lib.vips_error_clear()  # pyvips could not, and would report it again
        detail = error.object.decode(errors="replace")
    else:
        detail = str(getattr(error, "detail", "") or error)
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "no reason given"
