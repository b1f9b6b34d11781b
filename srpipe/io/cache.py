"""srpipe's folder in the user's cache: what was found out once and could be found out again.

Nothing depends on it: where it cannot be written, or holds what makes no sense, the work is done
again. Files appear whole (a rename), so processes may share it without a lock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srpipe.io.small_files import read_json

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path | None:
    """The folder for one kind of thing, made if it has to be; None where there is none to read.

    It is ``$SRPIPE_CACHE/kind``, or ``$XDG_CACHE_HOME/srpipe/kind``, or ``~/.cache/srpipe/kind``.
    """
    try:
        own = os.environ.get("SRPIPE_CACHE")
        shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(own) / kind if own else shared / "srpipe" / kind
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder if os.access(folder, os.R_OK | os.X_OK) else None


def read_cached_json(
    kind: str, name: str, parse: Callable[[Any], Any] = lambda value: value
) -> Any:
    """What was kept under a name; None if nothing is, or it was damaged and is dropped.

    Args:
        kind: of thing.
        name: of the entry.
        parse: makes of JSON what is wanted, and raises what Python raises of values of another type.
    """
    folder = cache_folder(kind)
    if folder is None:
        return None
    path = folder / f"{name}.json"
    try:
        return parse(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        logger.warning("%s is damaged: it is dropped, and found out again.", path)
        logger.debug("%s: %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def write_cached_json(kind: str, name: str, value: Any) -> None:
    """Keep a value under a name, if that is possible."""
    write_cached(kind, f"{name}.json", json.dumps(value, indent=1).encode())


def write_cached(kind: str, file_name: str, content: bytes) -> Path | None:
    """Keep a file; returns where, or None if that is not possible."""
    folder = cache_folder(kind)
    if folder is None:
        return None
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.replace(temporary, folder / file_name)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return None
    return folder / file_name
