"""What became of each file of a folder: a line of JSON each, appended when it is known."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from srpipe.errors import OutputError
from srpipe.forks import close_in_forks
from srpipe.io.output_place import head_of
from srpipe.io.small_files import open_regular, parse_json
from srpipe.plan.output import companion
from srpipe.stop import StopRequest

# A million images take a third of it.
_MAX_BYTES = 1_000_000_000
_LOOK_S = 0.2

Status = Literal["begun", "done", "skipped", "failed", "interrupted"]


Written = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutcome:
    """What became of one file."""

    file: str
    output: str
    status: Status
    """``skipped``: its output was there, made of the same content by the same request."""
    seconds: float
    error: str | None = None
    request: str = ""
    """Digest of all that decides the output's bytes."""
    written: Written | None = None
    """Bytes and time of change, nanoseconds, of the output when it was done; where more belongs to it,
    such as tiles, then the number of files, their bytes, and the time of the last change.
    """

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def written(path: str | Path) -> Written | None:
    """What tells an output from another one; None where there is none."""
    try:
        stat = os.stat(head_of(os.fspath(path)))
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, *_written_beside(os.fspath(path))


def _written_beside(path: str) -> Written:
    """The same of what belongs to an output: its companion, or all that is in the folder that it is."""
    beside = path if os.path.isdir(path) else companion(path)
    if beside is None:
        return ()
    places = [beside]
    if os.path.isdir(beside):
        places = [os.path.join(at, name) for at, _, names in os.walk(beside) for name in names]
    n_files = n_bytes = last_ns = 0
    for place in places:
        with contextlib.suppress(OSError):
            stat = os.stat(place)
            n_files, n_bytes = n_files + 1, n_bytes + stat.st_size
            last_ns = max(last_ns, stat.st_mtime_ns)
    return n_files, n_bytes, last_ns


class Manifest:
    """A file of outcomes; the last line of an output counts."""

    def __init__(self, path: Path) -> None:
        """Read what is there; lines that make no sense, as a crash may leave one, are passed over.

        Raises:
            OutputError: it cannot be read, or not be written.
        """
        self.path = path
        self._lock = threading.Lock()
        self._done: dict[str, tuple[str, Written]] = {}
        self.last_request: dict[str, str] = {}
        """By output: the request that was worked on last."""
        self._begun: set[str] = set()
        """Outputs of which nothing more was heard, and that were not there before."""
        self._read_bytes = 0
        self._torn = False
        try:
            self.refresh()
        except OSError as error:
            raise OutputError(
                f"the manifest {path} cannot be written ({error.strerror}): check the folder, or name "
                "another place with --manifest."
            ) from None

    def refresh(self) -> None:
        """Read what other runs have written since.

        Raises:
            OSError: it cannot be read, or not be written.
        """
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, follow=False)
        with self._lock, os.fdopen(descriptor, "rb") as file:
            length = os.fstat(descriptor).st_size
            if length > _MAX_BYTES:
                raise OSError(errno.EFBIG, f"it is longer than {_MAX_BYTES} bytes")
            if length < self._read_bytes:  # another file by now
                self._read_bytes = 0
            file.seek(self._read_bytes)
            lines = file.read().splitlines(keepends=True)
            self._torn = bool(lines) and not lines[-1].endswith(b"\n")
            for line in lines:
                self._take(line)
            self._read_bytes += sum(map(len, lines[:-1] if self._torn else lines))

    @contextlib.contextmanager
    def claim(self, output: str, stop: StopRequest | None = None) -> Iterator[bool]:
        """Keep other runs from an output for as long as the block lasts; the kernel drops the claims of
        processes that end.

        Args:
            output: its path.
            stop: wait for a run that has it, until asked to stop; None: do not wait.

        Yields:
            Whether it is free for this run, which then knows all that others have done.

        Raises:
            OSError: the manifest cannot be read, or not be written.
        """
        with os.fdopen(open_regular(self.path, os.O_RDWR | os.O_CREAT, follow=False), "rb") as file:
            close_in_forks(file)
            while (
                not (free := _lock(file.fileno(), output)) and stop is not None and not stop.times
            ):
                time.sleep(_LOOK_S)
            if free:
                self.refresh()
            yield free

    def _take(self, line: bytes) -> None:
        try:
            record = parse_json(line)
            output, request = str(record["output"]), str(record["request"])
            self.last_request[output] = request
            (self._begun.add if record["status"] == "begun" else self._begun.discard)(output)
            if record["status"] == "done":
                self._done[output] = request, tuple(map(int, record["written"]))
        except (ValueError, TypeError, KeyError, OverflowError):  # int(inf)
            return

    def request_of(self, output: str) -> str | None:
        """The request that made the file that is at ``output``; None where it is none of ours.

        "" where it is ours, and nobody knows whether it is of the last request.
        """
        now = written(output)
        if output in self._begun and now is not None:
            return ""
        request, then = self._done.get(output, ("", None))
        if then is None:
            return None
        if now is not None:
            # What belongs to it may be damaged, or an older record not tell of it.
            return request if now == then else "" if now[:2] == then[:2] else None
        beside = _written_beside(output)
        return "" if beside and beside == then[2:] else None

    def add(self, outcome: FileOutcome) -> None:
        """Append a line.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock:
            line = json.dumps(outcome.as_dict()).encode() + b"\n"
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                descriptor = open_regular(self.path, flags, follow=False)
                try:
                    os.write(descriptor, b"\n" * self._torn + line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise OutputError(
                    f"the manifest {self.path} cannot be written ({error.strerror})."
                ) from None
            self._torn = False
            self._take(line)


def _lock(descriptor: int, output: str) -> bool:
    """Lock a byte that stands for an output, if nobody has; a file system without locks has only one
    user.
    """
    output = os.path.join(os.path.realpath(os.path.dirname(output)), os.path.basename(output))
    place = int.from_bytes(hashlib.sha256(os.fsencode(output)).digest()[:7], "little")
    wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
