"""Telling whether a file is still the one it was, at a cost that does not grow with its size.

Where the time of a large file has changed, only its whole content tells. It is hashed while a job runs,
by a thread that has nothing else to do, and written down in the job's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from srpipe.errors import ReadError
from srpipe.io import disk
from srpipe.io.small_files import read_json
from srpipe.plan.image_info import HASHED_WHOLE_BYTES, FileIdentity

CONTENT_FILE = "input.json"
_HASHED_BYTES = 1024 * 1024
_BLOCK_BYTES = 64 * 1024
_N_BLOCKS = HASHED_WHOLE_BYTES // _BLOCK_BYTES


def identify_file(path: str) -> FileIdentity:
    """Size, time of the last change, and a hash of 128 blocks of 64 KiB spread over the file.

    Files of up to 8 MiB are hashed whole; head and tail, where formats keep their tables, always.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        last = max(stat.st_size - _BLOCK_BYTES, 0)
        sha256 = hashlib.sha256()
        for i in range(_N_BLOCKS):
            file.seek(min(last * i // (_N_BLOCKS - 1), stat.st_size))
            sha256.update(file.read(_BLOCK_BYTES))
    return FileIdentity(stat.st_size, stat.st_mtime_ns, sha256.hexdigest())


@contextlib.contextmanager
def recorded_content(path: str, identity: FileIdentity, folder: Path) -> Iterator[None]:
    """Hash a file whole while a block runs, and write it down, where its samples do not say enough.

    Args:
        path: of the file.
        identity: of the file.
        folder: of the job.
    """
    if identity.hashed_whole or _read_content(identity, folder) is not None:
        yield
        return
    ended = threading.Event()

    def record() -> None:
        with contextlib.suppress(OSError):
            content = _hash_content(path, identity, ended)
            if content is not None:
                known = {"samples": identity.sha256, "content": content}
                disk.replace_file(folder / CONTENT_FILE, json.dumps(known).encode())

    thread = threading.Thread(target=record, name="srpipe-content", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def has_recorded_content(path: str, identity: FileIdentity, folder: Path) -> bool:
    """Whether a file holds what is written down in a job's folder.

    Raises:
        OSError: the file cannot be read.
    """
    known = _read_content(identity, folder)
    return known is not None and known == _hash_content(path, identity, threading.Event())


def _read_content(identity: FileIdentity, folder: Path) -> str | None:
    try:
        known = read_json(folder / CONTENT_FILE, follow=False)
        return str(known["content"]) if known["samples"] == identity.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_content(path: str, identity: FileIdentity, ended: threading.Event) -> str | None:
    """None where it is to end before, or the file is another by then."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_HASHED_BYTES):
            if ended.is_set():
                return None
            sha256.update(block)
        stat = os.fstat(file.fileno())
    same = (stat.st_size, stat.st_mtime_ns) == (identity.size_bytes, identity.modified_ns)
    return sha256.hexdigest() if same else None


def check_unchanged(path: str, before: FileIdentity, folder: Path) -> None:
    """See that a file holds what it held when a job began.

    Args:
        path: of the file.
        before: what it was.
        folder: of the job.

    Raises:
        ReadError: it is another by now, or cannot be read any more.
    """
    try:
        now = identify_file(path)
        touched = (now.size_bytes, now.sha256) == (before.size_bytes, before.sha256)
        if now.content == before.content or (touched and has_recorded_content(path, now, folder)):
            return
    except OSError as error:
        raise ReadError(f"{path} can no longer be read ({error.strerror}): put it back.") from None
    raise ReadError(
        f"{path} was changed while the job was running, and the result would be a mixture: nothing is "
        "kept; repeat the command when the file stays as it is."
    )
