"""One job, one owner: the lock on a job folder.

The kernel drops the lock with the last process that holds it, however that ends: the owner hands it
down to the processes of its job, so that nobody takes over while one of them still writes. Network
file systems pass the lock on to other hosts, or do not; there, the owner's name in the file and its
heartbeat, the file's time of change, tell as much as can be told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from srpipe.errors import JobError
from srpipe.forks import close_in_forks
from srpipe.io.small_files import open_regular, read_json
from srpipe.plan.plain import rebuild

LOCK_FILE = "srpipe.lock"
HEARTBEAT_S = 5.0
# A host that has been silent for so long is taken for dead; clocks may differ by less.
_SILENCE_S = 60.0
# A dead owner's processes are gone in so long; somebody who only looks holds the lock for a moment.
_ORPHANS_S = 30.0
_GLANCE_S = 0.5
_RETRY_S = 0.05
_MAX_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds, or held, a job folder."""

    host: str
    boot: str
    """Tells one running kernel from another, also behind the host names of containers."""
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class JobLock:
    """The lock of a job folder, held for as long as this object is not released."""

    def __init__(self, folder: Path, patience_s: float = 0.0) -> None:
        """Make the folder if it is not there, and lock it.

        Args:
            folder: of a job.
            patience_s: how long to wait for one that another process has, or had.

        Raises:
            JobError: another process has it.
            OSError: the folder cannot be made or written to.
        """
        end_s = time.monotonic() + patience_s
        while True:
            self._descriptor = _take(folder, end_s)
            try:
                self._sign(folder)
                close_in_forks(self)
                return
            except JobError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(_GLANCE_S)

    def _sign(self, folder: Path) -> None:
        try:
            before = read_owner(folder)
            silent_s = time.time() - os.fstat(self._descriptor).st_mtime
            me = _myself()
            if before and before.boot != me.boot and silent_s < _SILENCE_S:
                raise JobError(
                    f"{before} worked in {folder} {max(silent_s, 0):.0f} seconds ago: if it has "
                    f"ended, wait until {_SILENCE_S:.0f} seconds have passed."
                )
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(asdict(me)).encode(), 0)
            os.fsync(self._descriptor)  # for other hosts to see
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def descriptor(self) -> int:
        """A process that inherits it holds the lock too."""
        return self._descriptor

    def beat(self) -> None:
        """Show that the owner lives; to be called every :data:`HEARTBEAT_S`."""
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def release(self) -> None:
        """Let go of the lock."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        self.close()

    def close(self) -> None:
        """Leave the lock to the processes that have inherited it."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def read_owner(folder: Path) -> Owner | None:
    """Who wrote itself into a folder's lock file; None if nobody, or it cannot be told."""
    try:
        owner: Owner = rebuild(Owner, read_json(folder / LOCK_FILE, _MAX_BYTES, follow=False))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return owner


def is_locked(folder: Path) -> bool:
    """Whether a process on this host, or any on a file system that passes locks on, works there."""
    try:
        descriptor = open_regular(folder / LOCK_FILE, follow=False)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def has_owner_elsewhere(folder: Path) -> bool:
    """Whether another host has shown of late that it works there."""
    owner = read_owner(folder)
    if owner is None or owner.boot == _myself().boot:
        return False
    try:
        return time.time() - (folder / LOCK_FILE).stat().st_mtime < _SILENCE_S
    except OSError:
        return False


def _take(folder: Path, end_s: float) -> int:
    begin_s = time.monotonic()
    while True:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a symbolic link", os.fspath(folder))
        folder.mkdir(exist_ok=True)
        path = folder / LOCK_FILE
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, follow=False)
        except FileNotFoundError:
            continue  # its last holder has just removed the folder
        try:
            if os.fstat(descriptor).st_nlink > 1:
                raise OSError(errno.EMLINK, "it is another file too", os.fspath(path))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass  # removed between open and lock: what is locked is no longer the file
        except BlockingIOError:
            owner = read_owner(folder)
            patience_s = _ORPHANS_S if owner and _is_dead(owner) else _GLANCE_S
            if time.monotonic() > max(begin_s + patience_s, end_s):
                os.close(descriptor)
                raise JobError(
                    f"{owner or 'another srpipe'} is working in {folder}: wait for it, or write "
                    "elsewhere."
                ) from None
            time.sleep(_RETRY_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_dead(owner: Owner) -> bool:
    if owner.boot != _myself().boot:
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it lives, and is somebody else's; or is no process
    return False


def _myself() -> Owner:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = socket.gethostname()
    return Owner(socket.gethostname(), boot, os.getpid())
