"""A disk that loses its power: the power may go before and after every operation whose order matters.

Like SQLite's crash tests, it keeps what was synced, and of what was written since keeps a random
part: names, whole pages, and sectors of torn pages. Synced is what the system was really asked to
sync, by fsync and msync, whatever srpipe calls its own operations. Where asked, sectors in writing hold
garbage, but for those of the pixels: that a write does not damage synced bytes beside it is assumed, as
SQLite does by default ("powersafe overwrite").
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srpipe.io import canvas_files, disk

_PAGE_BYTES = 4096
_SECTOR_BYTES = 512
# Nothing of a job: a lock that the kernel drops, and what processes have to say.
_IGNORED = {"srpipe.lock", "stages.log"}


class PowerCut(BaseException):
    """The power is gone; every later operation says so again, so that no clean-up is of effect."""


class SimulatedDisk:
    """Wraps the operations on some folders while it is installed.

    Args:
        folders: the job folder and that of the output.
        cut_at: the point at which the power goes; there is one before and one after each operation.
        scratch: a folder on the same file system.
        saved_tiles: tells how many tiles the last checkpoint speaks of.
    """

    def __init__(
        self,
        folders: list[Path],
        scratch: Path,
        saved_tiles: Callable[[], int],
        cut_at: int | None = None,
    ) -> None:
        self.points: list[str] = []
        """Names of all points so far: ``before sync_file plan.json.new``."""
        self.dead = False
        self.promised_tiles = 0
        """Tiles of the last checkpoint that was synced, name and all."""
        self._saved_tiles = saved_tiles
        self._cut_at = cut_at
        self._folders = folders
        self._scratch = scratch
        scratch.mkdir(exist_ok=True)
        self._names: dict[Path, dict[str, int]] = {}
        self._data: dict[int, bytes] = {}
        for folder in folders:
            self._keep_inodes()
            self._names[folder] = self._now(folder)
            for name, inode in self._names[folder].items():
                self._data[inode] = (folder / name).read_bytes()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the disk in place, below srpipe's operations and below the system calls that sync."""
        for name in (
            "write_file", "overwrite_file", "sync_file", "sync_folder", "rename", "link", "remove",
        ):  # fmt: skip
            patch.setattr(disk, name, self._wrapped(name, getattr(disk, name)))
        patch.setattr(disk, "flush_map", self._wrapped("flush_map", disk.flush_map))
        patch.setattr(canvas_files, "reserve_file", self._reserve(canvas_files.reserve_file))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._note_sync)
        note_flush = self._note_flush

        class NotedMap(mmap.mmap):
            path: Path

            def __new__(cls, descriptor: int, *rest: Any, **options: Any) -> NotedMap:
                noted = super().__new__(cls, descriptor, *rest, **options)
                noted.path = _path_of(descriptor) if descriptor >= 0 else Path()
                return noted

            def flush(self, *part: int) -> None:
                note_flush(self.path, *part)

        patch.setattr(mmap, "mmap", NotedMap)

    def _point(self, name: str) -> None:
        self.points.append(name)
        if self.dead or len(self.points) - 1 == self._cut_at:
            self.dead = True
            raise PowerCut

    def _wrapped(self, name: str, operation: Callable[..., None]) -> Callable[..., None]:
        def wrapped(target: Any, *rest: Any) -> None:
            path: Path = target if isinstance(target, Path) else target.path
            self._point(f"before {name} {path.name}")
            operation(target, *rest)
            self._keep_inodes()
            if name == "sync_file" or (name == "sync_folder" and path in self._names):
                self.promised_tiles = max(self.promised_tiles, self._saved_tiles())
            self._point(f"after {name} {path.name}")

        return wrapped

    def _note_sync(self, descriptor: int) -> None:
        path = _path_of(descriptor)
        if path in self._names:
            self._keep_inodes()
            self._names[path] = self._now(path)
        elif path.parent in self._names:
            self._data[path.stat().st_ino] = path.read_bytes()

    def _note_flush(self, path: Path, begin: int = 0, n_bytes: int | None = None) -> None:
        if path.parent not in self._names:
            return
        new, inode = path.read_bytes(), path.stat().st_ino
        end = len(new) if n_bytes is None else begin + n_bytes
        old = self._data.get(inode, b"").ljust(len(new), b"\0")
        self._data[inode] = old[:begin] + new[begin:end] + old[end:]

    def _reserve(self, operation: Callable[[str, int], None]) -> Callable[[str, int], None]:
        def wrapped(path: str, n_bytes: int) -> None:
            self._point(f"before reserve {Path(path).name}")
            operation(path, n_bytes)
            self._keep_inodes()
            self._point(f"after reserve {Path(path).name}")

        return wrapped

    def _now(self, folder: Path) -> dict[str, int]:
        if not folder.is_dir():
            return {}
        return {
            entry.name: entry.stat().st_ino
            for entry in folder.iterdir()
            if entry.is_file() and entry.name not in _IGNORED
        }

    def _keep_inodes(self) -> None:
        """Give every file a second name, so that one that was removed can come back."""
        for folder in self._folders:
            for name, inode in self._now(folder).items():
                kept = self._scratch / str(inode)
                if not kept.exists():
                    os.link(folder / name, kept)

    def lose_power(self, chance: random.Random, *, garbage: bool) -> None:
        """Make the folders what they may be when the power comes back."""
        self._keep_inodes()
        for folder in self._folders:
            now, durable = self._now(folder), self._names[folder]
            if not folder.is_dir() and durable:
                folder.mkdir()
            for name in sorted({*now, *durable}):
                inode = chance.choice([now.get(name), durable.get(name)])
                (folder / name).unlink(missing_ok=True)
                if inode is not None:
                    os.link(self._scratch / str(inode), folder / name)
        pixels = self._now(self._folders[0]).get("pixels.raw")
        for kept in sorted(self._scratch.iterdir()):
            self._lose_data(kept, chance, garbage=garbage and kept.name != str(pixels))

    def _lose_data(self, path: Path, chance: random.Random, *, garbage: bool) -> None:
        old, new = self._data.get(path.stat().st_ino, b""), path.read_bytes()
        if old == new:
            return
        stat = path.stat()
        length = chance.choice([len(old), len(new), max(len(old), len(new))])
        old, new = old.ljust(length, b"\0")[:length], new.ljust(length, b"\0")[:length]
        mixed = bytearray(old)
        share = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        for page in range(0, length, _PAGE_BYTES):
            torn = chance.random() < 0.2
            step = _SECTOR_BYTES if torn else _PAGE_BYTES
            for start in range(page, min(page + _PAGE_BYTES, length), step):
                part = slice(start, min(start + step, length))
                if old[part] == new[part]:
                    continue
                if garbage and torn and chance.random() < 0.2:
                    mixed[part] = chance.randbytes(part.stop - part.start)
                elif chance.random() < share:
                    mixed[part] = new[part]
        with path.open("r+b") as file:
            file.truncate(length)
            file.write(mixed)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _path_of(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
