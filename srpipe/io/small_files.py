"""Files that anybody may have made, read with bounds: regular ones only, no longer than expected.

A pipe would keep its reader waiting, and a device such as /dev/zero never ends; both may stand behind a
link or under any name.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

from srpipe.errors import RequestError

MAX_JSON_BYTES = 16_000_000


def check_name(path: str, error: type[RequestError]) -> None:
    """Refuse a name that libraries cannot take.

    Raises:
        RequestError: of the kind ``error``.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise error(f"{path} is not a name in UTF-8, which libraries need: rename it.") from None


def open_regular(
    path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = True
) -> int:
    """Open a regular file without waiting for anybody; returns the descriptor.

    Args:
        path: of the file.
        flags: as :func:`os.open` takes them.
        follow: symbolic links.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a folder, or a link not to be followed.
    """
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a symbolic link", os.fspath(path)) from None
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise _no_file(path) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _no_file(path)


def read_small(path: str | os.PathLike[str], most_bytes: int, *, follow: bool = True) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: as :func:`open_regular`, or it is longer than ``most_bytes``.
    """
    with os.fdopen(open_regular(path, follow=follow), "rb") as file:
        # No more than there is: Python would take the room for all of it at once.
        content = file.read(min(most_bytes, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is longer than {most_bytes} bytes", os.fspath(path))
    return content


def read_json(
    path: str | os.PathLike[str], most_bytes: int = MAX_JSON_BYTES, *, follow: bool = True
) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as :func:`read_small`.
        ValueError: it is no JSON.
    """
    return parse_json(read_small(path, most_bytes, follow=follow))


def parse_json(text: str | bytes) -> Any:
    """Read JSON from a text.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_file(path: str | os.PathLike[str]) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
