"""An output's way into its place: a file, a file with a companion, or a folder.

One name appears last, when all is whole: the head, which is the file or the folder that the user named.
A companion, such as DeepZoom's folder of tiles, is moved before it. Where an older output is replaced,
its head goes first, so that no head ever stands beside another's companion.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from srpipe.errors import OutputError
from srpipe.io import disk
from srpipe.plan.output import OutputSpec, companion

# What a folder must hold one of to be taken for a Zarr store.
_ZARR_FILES = {"zarr.json", ".zgroup", ".zarray"}
_OLD = ".old"


def remove_output(path: Path) -> None:
    """Remove an output, whole or not, with what belongs to it, if it is there."""
    beside = companion(os.fspath(path))
    for part in (path, *([Path(beside)] if beside else [])):
        disk.remove(part)
        if os.path.lexists(_old(part)):
            disk.remove(_old(part))


def sync_output(path: Path) -> None:
    """Bring all of an output to the disk.

    Raises:
        OSError: that failed.
    """
    beside = companion(os.fspath(path))
    for part in (*([Path(beside)] if beside else []), path):
        disk.sync_file(part)


def put_in_place(partial: Path, output: Path, *, replace: bool) -> None:
    """Move a whole output from ``partial`` to ``output``, on the same file system.

    It may be done again after a crash at any point of it.

    Raises:
        OSError: it cannot be moved, or, without ``replace``, something is there.
    """
    beside, target = companion(os.fspath(partial)), companion(os.fspath(output))
    if beside and target and os.path.lexists(beside):  # else an earlier run has moved it
        if replace and os.path.lexists(output):
            disk.remove(output)
            disk.sync_folder(output.parent)
        _move(Path(beside), Path(target), replace=replace)
    _move(partial, output, replace=replace)


def identity(path: str) -> dict[str, Any]:
    """What tells the output at ``path`` from another one.

    Raises:
        OSError: there is none.
    """
    stat = os.lstat(head_of(path))
    return {"inode": stat.st_ino, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def head_of(path: str) -> str:
    """The file that stands for an output: a folder's own times and size may change when it is moved."""
    return os.path.join(path, "zarr.json") if os.path.isdir(path) else path


def refuse_existing(path: str, *, with_companion: bool = True) -> None:
    """Refuse to overwrite an output that nobody has given leave to.

    Args:
        path: of the output.
        with_companion: nor may there be what belongs to it.

    Raises:
        OutputError: it is there.
    """
    beside = companion(path) if with_companion else None
    for part in (path, *([beside] if beside else [])):
        if os.path.lexists(part):
            raise OutputError(f"{part} exists: choose another name, or allow it with --overwrite.")


def check_replaceable(output: OutputSpec) -> None:
    """Refuse to replace a folder by an output of another kind, or a folder that is none of ours.

    Raises:
        OutputError: such a thing is at the output's place.
    """
    path = Path(output.path)
    if path.is_dir():
        if output.format.name != "Zarr":
            raise OutputError(f"{path} is a folder: name the output file.")
        names = set(os.listdir(path))
        if names and not names & _ZARR_FILES:
            raise OutputError(f"{path} is a folder, and no Zarr store: choose another name.")
    beside = Path(companion(output.path) or path)
    if beside == path or not beside.exists():
        return
    if output.format.name == "DeepZoom":
        ours = beside.is_dir() and all(
            name.isdigit() or name == "vips-properties.xml" for name in os.listdir(beside)
        )
    else:
        ours = beside.is_file()
    if not ours:
        raise OutputError(
            f"{beside} belongs to {path}, and is something else: choose another name."
        )


def _old(path: Path) -> Path:
    return path.with_name(path.name + _OLD)


def _move(source: Path, target: Path, *, replace: bool) -> None:
    if not source.is_dir():
        if replace:
            disk.rename(source, target)
        else:
            _move_without_replacing(source, target)
        return
    # A folder's name cannot be taken over from a folder with something in it.
    if os.path.lexists(target):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        disk.rename(target, _old(source))
    disk.rename(source, target)
    disk.remove(_old(source))


def _move_without_replacing(source: Path, target: Path) -> None:
    try:
        disk.link(source, target)
    except FileExistsError:
        # A crash may have come between the two halves of a move.
        if not os.path.samefile(source, target):
            raise
        disk.remove(source)
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        disk.rename(source, target)
    else:
        disk.remove(source)
