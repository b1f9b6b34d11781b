"""Every operation whose order on the disk matters.

A crash or a power cut may come between any two of them, and what was not synced may then be there,
be gone, or be there in part. Files are therefore written whole under another name, synced, renamed,
and the folder synced after them; maps are flushed before a file speaks of their content. Bytes that
were synced are taken to survive a write beside them, as SQLite takes them to. Names may be planted by
others: what stands under one is removed, never followed or written to.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from pathlib import Path

from srpipe.io.small_files import open_regular


def write_file(path: Path, data: bytes) -> None:
    """Create ``path``, in place of what has its name; it may not have reached the disk yet."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(open_regular(path, flags, follow=False), "wb") as file:
        file.write(data)


def overwrite_file(path: Path, data: bytes) -> None:
    """Write to the beginning of a file that is there, into the blocks that it has already."""
    with os.fdopen(open_regular(path, os.O_WRONLY, follow=False), "wb") as file:
        file.write(data)


def sync_file(path: Path) -> None:
    """Bring the content of a file, or of all files in a folder, to the disk."""
    if path.is_dir():
        os.sync()  # a call for each of many thousand small files would take minutes
        return
    _sync(path)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    with contextlib.suppress(OSError):  # some network file systems cannot
        _sync(path)


def flush_map(memory: mmap.mmap) -> None:
    """Bring what was written through a memory map to the disk (msync with MS_SYNC)."""
    memory.flush()


def rename(source: Path, target: Path) -> None:
    """Rename a file, replacing ``target`` at once and whole, or a folder, where nothing is yet."""
    os.replace(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: ``target`` is there.
    """
    os.link(source, target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Give ``path`` new content for good: after a crash it holds the old or the new, whole."""
    new = path.with_name(f"{path.name}.new")
    write_file(new, data)
    sync_file(new)
    rename(new, path)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
