"""What became of each file of a folder: a line of JSON each, appended when it is known."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from srpipe.errors import OutputError
from srpipe.io.small_files import open_regular, parse_json

# A million images take a third of it.
_MAX_BYTES = 1_000_000_000

Status = Literal["begun", "done", "skipped", "failed", "interrupted"]


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
    written: tuple[int, int] | None = None
    """Bytes and time of change, nanoseconds, of the output when it was done."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def written(path: str | Path) -> tuple[int, int] | None:
    """What tells an output from another one; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class Manifest:
    """A file of outcomes; the last line of an output counts."""

    def __init__(self, path: Path) -> None:
        """Read what is there; lines that make no sense, as a crash may leave one, are passed over.

        Raises:
            OutputError: it cannot be read, or not be written.
        """
        self.path = path
        self._lock = threading.Lock()
        self._done: dict[str, tuple[str, tuple[int, int]]] = {}
        self.last_request: dict[str, str] = {}
        """By output: the request that was worked on last."""
        self._begun: set[str] = set()
        """Outputs of which nothing more was heard, and that were not there before."""
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, follow=False)
            with os.fdopen(descriptor, "rb") as file:
                if os.fstat(descriptor).st_size > _MAX_BYTES:
                    raise OSError(errno.EFBIG, f"it is longer than {_MAX_BYTES} bytes")
                content = file.read()
        except OSError as error:
            raise OutputError(
                f"the manifest {path} cannot be written ({error.strerror}): check the folder, or name "
                "another place with --manifest."
            ) from None
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            record = parse_json(line)
            output, request = str(record["output"]), str(record["request"])
            self.last_request[output] = request
            (self._begun.add if record["status"] == "begun" else self._begun.discard)(output)
            if record["status"] == "done":
                size_bytes, modified_ns = map(int, record["written"])
                self._done[output] = request, (size_bytes, modified_ns)
        except (ValueError, TypeError, KeyError, OverflowError):  # int(inf)
            return

    def request_of(self, output: str) -> str | None:
        """The request that made the file that is at ``output``; None where it is none of ours.

        "" where it is ours, and nobody knows whether it is of the last request.
        """
        if output in self._begun and written(output) is not None:
            return ""
        request, then = self._done.get(output, ("", None))
        return request if then is not None and written(output) == then else None

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
