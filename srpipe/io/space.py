"""How much disk and memory there is, and taking it before work starts."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from srpipe.errors import SpaceError
from srpipe.io.small_files import open_regular

# What cgroups of version 1 say where there is no limit is a little less than 2**63.
_NO_LIMIT_BYTES = 2**62


def format_bytes(n_bytes: float) -> str:
    """``12.9 GB``, in powers of ten."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(n_bytes) < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def free_disk_bytes(folder: str) -> int:
    """Bytes an ordinary user can still write below ``folder``."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def same_disk(a: str, b: str) -> bool:
    """Whether two existing folders are on one file system."""
    return os.stat(a).st_dev == os.stat(b).st_dev


def available_memory_bytes() -> int | None:
    """Bytes of memory that can be taken without swapping, cgroup limits respected; None if unknown."""
    limits = [limit for limit in (_meminfo_available(), *_cgroup_available()) if limit is not None]
    return min(limits, default=None)


def memory_limit_bytes() -> int | None:
    """The least limit of the cgroups this process is in; None without one."""
    limits = []
    for folder, limit, _ in _cgroup_folders():
        try:
            text = (folder / limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def _meminfo_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _cgroup_available() -> Iterator[int | None]:
    """Room below the limit of every cgroup this process is in."""
    return (_cgroup_room(folder, limit, used) for folder, limit, used in _cgroup_folders())


def _cgroup_folders() -> Iterator[tuple[Path, str, str]]:
    """Every cgroup this process is in, and the names of its files of limit and use (v2, then v1)."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers == "":
            root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            yield folder, limit, used
            if folder == root:
                break


def _cgroup_room(folder: Path, limit: str, used: str) -> int | None:
    try:
        highest = (folder / limit).read_text().strip()
        if highest == "max":
            return None
        room = int(highest) - int((folder / used).read_text())
        # File pages count as used but are given back on demand.
        for line in (folder / "memory.stat").read_text().splitlines():
            key, value = line.split()
            if key in ("inactive_file", "total_inactive_file"):
                room += int(value)
                break
        return max(room, 0)
    except (OSError, ValueError):
        return None


def count_oom_kills() -> int | None:
    """Processes the kernel has killed so far for want of memory; None if it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def reserve_file(path: str, n_bytes: int) -> None:
    """Create ``path``, in place of what has its name, with ``n_bytes`` that are really there: a memory
    map of a sparse file dies of SIGBUS when the disk is full.

    Raises:
        SpaceError: too little room; the file is removed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, follow=False)
    try:
        _allocate(descriptor, n_bytes)
    except OSError as error:
        os.unlink(path)
        folder = os.path.dirname(path)
        raise SpaceError(
            f"cannot reserve {format_bytes(n_bytes)} ({n_bytes} bytes) for {path}: "
            f"{error.strerror}, {format_bytes(free_disk_bytes(folder))} free; make room or choose "
            "another place with --job-dir."
        ) from None
    finally:
        os.close(descriptor)


def check_decoder_memory(path: str, n_bytes: int) -> None:
    """Refuse an image that cannot be decoded in the memory there is.

    Args:
        path: the image.
        n_bytes: what its decoder needs.

    Raises:
        SpaceError: too little memory; says how much is missing.
    """
    available = available_memory_bytes()
    if available is not None and n_bytes > available:
        raise SpaceError(
            f"{path} is of a kind that is decoded whole, which needs {format_bytes(n_bytes)} "
            f"({n_bytes} bytes) of memory, and {format_bytes(available)} is free: save it as TIFF, "
            "or as a PNG or JPEG that is not interlaced or progressive."
        )


def reserve_shared_memory(n_bytes: int, fallback_folder: str) -> int:
    """Take ``n_bytes`` of memory that several processes can map, without a name anywhere.

    A memfd is not bound by the size of /dev/shm (64 MB in containers); where there is none, an
    unlinked file in ``fallback_folder`` serves.

    Returns:
        A file descriptor; the memory is gone when the last process has closed it.

    Raises:
        SpaceError: too little memory.
    """
    available = available_memory_bytes()
    if available is not None and n_bytes > available:
        raise SpaceError(_memory_message(n_bytes, available))
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("srpipe", os.MFD_CLOEXEC)
    else:
        descriptor, name = tempfile.mkstemp(dir=fallback_folder)
        os.unlink(name)
    try:
        _allocate(descriptor, n_bytes)
    except OSError:
        os.close(descriptor)
        raise SpaceError(_memory_message(n_bytes, available or 0)) from None
    return descriptor


def private_memory(n_bytes: int) -> mmap.mmap:
    """Memory of this process alone, in large pages where the kernel gives them.

    Raises:
        SpaceError: too little memory.
    """
    available = available_memory_bytes()
    if available is not None and n_bytes > available:
        raise SpaceError(_memory_message(n_bytes, available))
    try:
        memory = mmap.mmap(-1, max(n_bytes, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE)
    except OSError:
        raise SpaceError(_memory_message(n_bytes, available or 0)) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _memory_message(n_bytes: int, available: int) -> str:
    return (
        f"the tiles in flight need {format_bytes(n_bytes)} ({n_bytes} bytes) of memory and "
        f"{format_bytes(available)} is free: use a smaller --batch-size, --tile-size, --threads or "
        "--workers."
    )


def _allocate(descriptor: int, n_bytes: int) -> None:
    n_bytes = max(n_bytes, mmap.PAGESIZE)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.ftruncate(descriptor, n_bytes)
