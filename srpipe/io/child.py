"""Calls functions in a process of its own: a model that hangs, crashes or wants all memory ends there.

The caller waits where signals are heard, so Ctrl-C ends the process at once. It starts from nothing
(no fork, no ``__main__``), whatever thread or notebook it is started from.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from srpipe.errors import ModelError, OutOfMemoryError, SettingsError, SrpipeError, StageError
from srpipe.io.processor import available_cores
from srpipe.io.space import available_memory_bytes, format_bytes

T = TypeVar("T")

SECONDS_VARIABLE, BYTES_VARIABLE = "SRPIPE_MODEL_SECONDS", "SRPIPE_MODEL_BYTES"
"""Environment variables: time for one run of a small tile, memory to try a model out."""
DEFAULT_STEP_S = 60.0
DEFAULT_MODEL_BYTES = 4 * 2**30

_TILE_VALUES = 3 * 64 * 64
_LOADING_TILES, _MOST_TILES = 5.0, 30.0
# A library may keep the interpreter from telling that the process is alive, as a busy machine may.
_SILENCE_STEPS, _SILENCE_S = 5.0, 300.0
_BEAT_S = 1.0
_FAREWELL_S = 0.5
_STACK_BYTES = 16 * 2**20
_SHARE = 0.9
_BOOTSTRAP = (
    "import json, sys; setup = json.loads(sys.argv[1]); sys.path[:] = setup['sys_path']; "
    "from srpipe.io.child import serve; serve(setup)"
)
_logger = logging.getLogger(__name__)
_deadlines: dict[int, tuple[float, float]] = {}
"""Of each thread under :func:`time_limit`: when it must be done, and the seconds allowed."""


def model_bytes(file_bytes: int) -> int:
    """Memory that a model may take while it is tried out on small tiles.

    Args:
        file_bytes: size of the model; loading takes a few times as much.
    """
    most = int(_from_environment(BYTES_VARIABLE, DEFAULT_MODEL_BYTES))
    wanted = most + 4 * file_bytes + available_cores() * _STACK_BYTES
    return min(wanted, most_bytes())


def most_bytes() -> int:
    """Memory that a process may take where nothing is known of its needs: nearly all there is."""
    available = available_memory_bytes()
    return 2**62 if available is None else int(_SHARE * available)


@contextlib.contextmanager
def time_limit(n_values: int | None = None) -> Iterator[None]:
    """Bound the time of a call into ONNX Runtime, if this process is a :class:`Child`.

    Args:
        n_values: numbers in the batch that is run, as large ones have more time; None: a model is
            loaded.
    """
    tiles = _LOADING_TILES if n_values is None else n_values / _TILE_VALUES
    allowed_s = _step_s() * min(max(tiles, 1.0), _MOST_TILES)
    thread = threading.get_ident()
    _deadlines[thread] = time.monotonic() + allowed_s, allowed_s
    try:
        yield
    finally:
        _deadlines.pop(thread, None)


def try_out(model: str, function: Callable[[], T], limit_bytes: int | None) -> T:
    """Call a function that runs a model, in a new process.

    Args:
        model: the file, for messages.
        function: of a module; with its arguments, a :func:`functools.partial`.
        limit_bytes: memory that it may take; None: not limited.

    Raises:
        ModelError: the model takes too long or too much memory, or crashes ONNX Runtime.
        SrpipeError: whatever else the function raises.
    """
    with Child(limit_bytes=limit_bytes) as child:
        child.start(function)
        try:
            result: T = child.result()
        except OutOfMemoryError as error:
            limit = f" It was given {format_bytes(limit_bytes)}." if limit_bytes else ""
            raise ModelError(
                f"{model} needs too much memory: {error}{limit} ${BYTES_VARIABLE} allows more for "
                "trying a model out."
            ) from None
        except StageError as error:
            raise ModelError(f"{model} cannot be used: {error}") from None
        return result


class Child:
    """A process that calls one function after another; a context manager that leaves none behind."""

    def __init__(
        self, *, limit_bytes: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it.

        Args:
            limit_bytes: memory that it may take beyond what it starts with; None: not limited.
            environment: variables to set beside this process's own.
        """
        self._step_s = _step_s()
        self._connection, theirs = Pipe()
        setup = {
            "sys_path": sys.path,
            "connection": theirs.fileno(),
            "limit_bytes": limit_bytes,
            "level": logging.getLogger("srpipe").getEffectiveLevel(),
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                env=os.environ | (environment or {}),
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call.

        Args:
            function: one that its module has under its name; not of ``__main__``.
            arguments: what pickle can take to the other process.
        """
        with contextlib.suppress(OSError):  # that it is gone is heard when it is listened to
            self._connection.send((function, arguments))

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the call, and pass on what it logs.

        Args:
            timeout_s: time it may take; None: only its calls of ONNX Runtime are limited.

        Raises:
            StageError: it took too long, or the process crashed.
            OutOfMemoryError: the process was killed, or ran out of its memory.
            Exception: whatever the function raises.
        """
        end_s = time.monotonic() + (timeout_s or float("inf"))
        silence_s = max(_SILENCE_S, _SILENCE_STEPS * self._step_s)
        while True:
            wait_s = min(silence_s, end_s - time.monotonic())
            if not self._connection.poll(max(wait_s, 0.0)):
                limit_s = timeout_s or silence_s
                raise StageError(f"a run of the model took more than {limit_s:g} seconds.")
            try:
                kind, content = self._connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                raise self._death() from None
            match kind:
                case "log":
                    name, level, text = content
                    logging.getLogger(name).log(level, "%s", text)
                case "slow":
                    raise StageError(
                        f"one run of it took more than {content:g} seconds: ${SECONDS_VARIABLE} "
                        f"(now {self._step_s:g}) allows more."
                    )
                case "raised":
                    raise content
                case "returned":
                    return content

    def _death(self) -> SrpipeError:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return OutOfMemoryError(
                "the process that tries the model was killed for want of memory."
            )
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        if any("bad_alloc" in line for line in said):
            return OutOfMemoryError("the process that tries the model ran out of memory.")
        if code < 0:
            return StageError(f"ONNX Runtime crashed ({signal.Signals(-code).name}).")
        return StageError(f"the process that tries the model failed: {said[-1] if said else code}")

    def end(self) -> None:
        """End it, whatever it does."""
        self._connection.close()  # it hears of that, and removes its temporary files
        try:
            self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def serve(setup: dict[str, Any]) -> None:
    """Carry out calls in this process until the other end of the connection closes."""
    # If memory runs out, the kernel should end this process before any other.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    connection = Connection(setup["connection"])
    replies = _Replies(connection)
    logger = logging.getLogger("srpipe")
    logger.setLevel(setup["level"])
    logger.propagate = False
    logger.addHandler(replies)
    limit_bytes = setup["limit_bytes"]
    while True:
        try:
            if connection.poll(_BEAT_S):
                call = connection.recv()  # imports what the function needs
                if limit_bytes is not None:
                    _limit_memory(limit_bytes)
                    limit_bytes = None
                threading.Thread(target=replies.call, args=call, daemon=True).start()
        except (EOFError, OSError):
            atexit._run_exitfuncs()  # temporary files; calls under way are not waited for
            os._exit(0)
        replies.beat()


class _Replies(logging.Handler):
    """Sends log records and results, from any thread."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._turn = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self._send("log", (record.name, record.levelno, record.getMessage()))

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._send("returned", function(*arguments))
        except MemoryError:
            self._send("raised", OutOfMemoryError("it needs more memory."))
        except Exception as error:  # whatever it is, the caller must hear of it
            try:
                self._send("raised", error)
            except (TypeError, AttributeError, pickle.PicklingError):
                self._send("raised", StageError(f"{type(error).__name__}: {error}"))

    def beat(self) -> None:
        """Say that this process is alive; end it where a call takes too long."""
        now_s = time.monotonic()
        for end_s, allowed_s in list(_deadlines.values()):
            if now_s > end_s:
                self._send("slow", allowed_s)
                os._exit(1)
        self._send("alive", None)

    def _send(self, kind: str, content: Any) -> None:
        with self._turn, contextlib.suppress(OSError):  # the main thread hears of that
            self._connection.send((kind, content))


def _limit_memory(n_bytes: int) -> None:
    """Bound what this process may still allocate; mapped files and reserved addresses are free."""
    with contextlib.suppress(ValueError, OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = pages * resource.getpagesize() + n_bytes
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _step_s() -> float:
    return _from_environment(SECONDS_VARIABLE, DEFAULT_STEP_S)


def _from_environment(name: str, default: float) -> float:
    text = os.environ.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 2**62:
        raise SettingsError(f"${name} is {text!r}: it must be a number above 0.")
    return value
