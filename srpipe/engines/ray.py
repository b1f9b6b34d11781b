"""Runs functions on the nodes of a Ray cluster: Ray places them, and repeats what a lost node had.

What travels is small: plans, and reports. Functions are found by name, so that each node runs its own
copy of the code, and it is checked that all copies are the same. A slot is what one call holds of a
node: so many processors, and so many GPUs.

A call is asked to stop by a file that driver and nodes see, whose name it was given
(:func:`stop_with_file`): Ray's own cancellation of calls that have just ended can bring it down.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srpipe.errors import ClusterError, Interrupted, SrpipeError
from srpipe.io import disk
from srpipe.stop import StopRequest

logger = logging.getLogger(__name__)

# What a machine that is busy with other things may take, too.
_REACH_S = 20.0
_CONNECT_S = 60.0
_ANSWER_S = 120.0
_LOOK_S = 0.5
# Nodes of preemptible machines come and go; a slab goes on from its checkpoint each time.
_MAX_RETRIES = 20
# What a stopped call may take: its batches in flight, and a last checkpoint.
_STOP_S = 20.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """What one call holds of a node."""

    cpus: int
    gpus: int = 0

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' if self.gpus != 1 else ''}" if self.gpus else ""
        return f"{self.cpus} processor{'s' if self.cpus != 1 else ''}{gpus}"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster."""

    id: str
    name: str
    cpus: int
    gpus: int

    def slots(self, slot: Slot) -> int:
        """How many calls it has room for."""
        fit = [self.cpus // slot.cpus] if slot.cpus else []
        fit += [self.gpus // slot.gpus] if slot.gpus else []
        return min(fit, default=0)


class _Connection:
    """Ray's connection of this process, which several jobs may share: the last to leave closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stack = contextlib.ExitStack()

    def enter(self, ray: Any, address: str | None) -> None:
        with self._lock:
            # One that was there before stays.
            if not self._users and not ray.is_initialized():
                with contextlib.ExitStack() as stack:
                    stack.callback(ray.shutdown)
                    _connect(ray, address, stack)
                    self._stack = stack.pop_all()
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                stack, self._stack = self._stack, contextlib.ExitStack()
                stack.close()


_connection = _Connection()


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """A cluster, for as long as the block lasts; a connection that was there before is left alone.

    Args:
        address: ``host:port``, or ``local`` for a new cluster of this machine alone; None: what this
            process is connected to, what ``$RAY_ADDRESS`` names or ``ray start`` has begun here, or
            else a new one.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    _use_token()
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise ClusterError(
            "the engine ray needs a package that is not installed: pip install 'srpipe[ray]'."
        ) from None
    _connection.enter(ray, address or os.environ.get("RAY_ADDRESS") or _running_here())
    try:
        yield Cluster(ray)
    finally:
        _connection.leave()


def _use_token() -> None:
    """Have Ray send the token that clusters of this user ask for, if there is one; others ignore it."""
    if "RAY_AUTH_MODE" not in os.environ and (
        "RAY_AUTH_TOKEN" in os.environ or Path.home().joinpath(".ray", "auth_token").exists()
    ):
        os.environ["RAY_AUTH_MODE"] = "token"


def _running_here() -> str | None:
    """The address of the cluster that ``ray start`` has begun on this machine, if it still runs."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        address = Path(folder, "ray", "ray_current_cluster").read_text().strip()
        _check_reachable(address)
    except (OSError, ClusterError):
        return None
    return address


def _connect(ray: Any, address: str | None, stack: contextlib.ExitStack) -> None:
    """Connect to a cluster, or make one, whose files are gone with ``stack``."""
    try:
        if address not in (None, "local"):
            assert address is not None
            _check_reachable(address)
            _connect_in_time(ray, address)
            return
        folder = tempfile.TemporaryDirectory(
            prefix="srpipe-ray-", dir=_short_folder(), ignore_cleanup_errors=True
        )
        stack.callback(folder.cleanup)
        stack.callback(ray.shutdown)  # before its folder goes
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Or Ray would write one into the user's home.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Where it notes its address, or others would take it for one that 'ray start' has begun.
        os.mkdir(os.path.join(folder.name, "ray"))
        before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = folder.name
        try:
            # In this very thread: Ray's processes end with the thread that has started them.
            _init(ray, address="local", include_dashboard=False, _temp_dir=folder.name)
        finally:
            del os.environ["RAY_TMPDIR"]
            if before is not None:
                os.environ["RAY_TMPDIR"] = before
    except ClusterError:
        raise
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the Ray cluster at {address or 'this machine'} cannot be used: {_first_line(error)}"
        ) from None


def _init(ray: Any, **options: Any) -> None:
    """Ray's, without its words and without its handlers of signals."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # else it is not Python's, and cannot be put back
                signal.signal(number, handler)


def _connect_in_time(ray: Any, address: str) -> None:
    """Connect in a thread, because Ray waits for ever for a cluster that does not answer."""
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            _init(ray, address=address)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=connect, name="ray-connect", daemon=True)
    thread.start()
    thread.join(_CONNECT_S)
    if thread.is_alive():
        raise ClusterError(
            f"the Ray cluster at {address} did not answer within {_CONNECT_S:.0f} seconds: check the "
            "address ('ray status' on the head node shows it), and, if the cluster asks for a token, "
            "that ~/.ray/auth_token is that of its head node."
        )
    if failures:
        raise failures[0]


def _short_folder() -> str:
    """Where Ray's sockets can be: their names hold at most 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < 30 else "/tmp"


def _check_reachable(address: str) -> None:
    """Ask whether something at ``host:port`` speaks Ray's protocol, HTTP/2.

    Raises:
        ClusterError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "//" in host:
        raise ClusterError(
            f"the address {address!r} must be a host and a port, such as head:6379, or 'local' for "
            "this machine alone; srpipe runs on a machine of the cluster, not as a client from outside."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _REACH_S) as connection:
            connection.sendall(_HTTP2_PREFACE)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ClusterError(
            f"no Ray cluster can be reached at {address} ({why}): check the address ('ray status' on "
            "the head node shows it), the firewall, and that the cluster runs."
        ) from None
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise ClusterError(
            f"what answers at {address} is no Ray cluster: check the port, which is 6379 by default."
        )


class Cluster:
    """The nodes of a Ray cluster, and calls of functions there."""

    def __init__(self, ray: Any) -> None:
        """Look at the cluster that ``ray`` is connected to."""
        self._ray = ray
        self.nodes = [
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def check_room(self, slot: Slot) -> list[Node]:
        """The nodes that have room for a call.

        Raises:
            ClusterError: none has.
        """
        able = [node for node in self.nodes if node.slots(slot)]
        if not able:
            there = "; ".join(f"{node.name}: {Slot(node.cpus, node.gpus)}" for node in self.nodes)
            raise ClusterError(
                f"a slab needs {slot} on one node, and no node of the cluster has them ({there}): ask "
                "for fewer with --threads, --workers or --device, or add nodes."
            )
        return able

    def ask(
        self,
        nodes: Sequence[Node],
        function: Callable[..., Any],
        *arguments: Any,
        stop: StopRequest,
    ) -> list[tuple[Node, Any]]:
        """Call a quick function on each of the nodes, whatever else they do.

        Args:
            nodes: of the cluster.
            function: and its arguments.
            stop: ends the waiting.

        Returns:
            The nodes, but for those that have left the cluster meanwhile, and what it returned.

        Raises:
            ClusterError: a node cannot run it, or does not answer in time, or all have left.
            SrpipeError: it raised this.
            Interrupted: ``stop`` asked for it.
        """
        affinity = importlib.import_module("ray.util.scheduling_strategies")
        remote = self._ray.remote(num_cpus=0, max_retries=0)(_call)
        references = []
        for node in nodes:
            here = affinity.NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = remote.options(scheduling_strategy=here)
            references.append(task.remote(_name(function), arguments))
        end_s = time.monotonic() + _ANSWER_S
        answers, unanswered = [], deque(references)
        try:
            self._await(references, end_s, stop)
            for node in nodes:
                # One that was lost a moment ago, and Ray had not noticed yet, is passed over.
                with contextlib.suppress(self._ray.exceptions.TaskUnschedulableError):
                    patience_s = max(0.1, end_s - time.monotonic())
                    answers.append((node, self._answer(node, unanswered[0], patience_s)))
                unanswered.popleft()
        finally:
            self._give_up(unanswered)
        if not answers:
            raise ClusterError("the cluster has lost all its nodes: start them again.")
        return answers

    def _await(self, references: list[Any], end_s: float, stop: StopRequest) -> None:
        while time.monotonic() < end_s:
            if stop.times:
                raise Interrupted("interrupted.")
            _, waiting = self._ray.wait(references, num_returns=len(references), timeout=_LOOK_S)
            if not waiting:
                return

    def _answer(self, node: Node, reference: Any, patience_s: float) -> Any:
        try:
            answer: _Answer = self._ray.get(reference, timeout=patience_s)
        except self._ray.exceptions.GetTimeoutError:
            raise ClusterError(
                f"node {node.name} did not answer within {_ANSWER_S:.0f} seconds: see to it, or "
                "take it out of the cluster."
            ) from None
        except self._ray.exceptions.TaskUnschedulableError:
            raise
        except self._ray.exceptions.RayError as error:
            raise ClusterError(
                f"node {node.name} cannot run srpipe ({_first_line(error)}): install the same version "
                "of it there, in the Python that Ray uses."
            ) from None
        if isinstance(answer.value, SrpipeError):
            raise answer.value
        return answer.value

    def call_all(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], slot: Slot,
        stop: StopRequest, look: Callable[[], None] = lambda: None, names: Sequence[str] = (),
        stop_file: Path | None = None,
    ) -> Generator[tuple[int, Any], None, None]:  # fmt: skip
        """Call a function once for each tuple of arguments, as slots are free.

        Args:
            function: may be called again for the same arguments where a node or a process is lost.
            calls: its arguments.
            slot: what a call holds of a node.
            stop: once it is asked, calls are told to stop.
            look: called twice a second.
            names: of the calls, for what they log.
            stop_file: is made to tell calls to stop, and is removed at the end.

        Yields:
            The number of a call and what it returned, or the error it raised, as they end. Once
            ``stop`` was asked, only those that end in time. Where the iterator is given up, calls are
            told to stop, and waited for.
        """
        remote = self._ray.remote(
            num_cpus=slot.cpus, num_gpus=slot.gpus, max_retries=_MAX_RETRIES,
            scheduling_strategy="SPREAD",
        )(_call)  # fmt: skip
        _remove(stop_file)
        pending = {
            remote.remote(_name(function), arguments): number
            for number, arguments in enumerate(calls)
        }
        end_s: float | None = None
        try:
            while pending and (end_s is None or time.monotonic() < end_s):
                if stop.times and end_s is None:
                    end_s = _tell_to_stop(stop_file)
                if stop.times > 1:
                    break
                ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=_LOOK_S)
                look()
                for reference in ready:
                    number = pending.pop(reference)
                    try:
                        answer: _Answer = self._ray.get(reference)
                        _log_again(answer, names[number] if names else "")
                        yield number, answer.value
                    except self._ray.exceptions.RayError as error:
                        yield number, ClusterError(f"Ray gave it up ({_first_line(error)}).")
        finally:
            if pending:
                end_s = end_s or _tell_to_stop(stop_file)
                rest_s = 0.1 if stop.times > 1 else max(0.1, end_s - time.monotonic())
                _, late = self._ray.wait(list(pending), num_returns=len(pending), timeout=rest_s)
                self._give_up(late)
            _remove(stop_file)

    def _give_up(self, references: Iterable[Any]) -> None:
        """End calls at once."""
        for reference in references:
            if not self._ray.wait([reference], timeout=0)[0]:
                self._ray.cancel(reference, force=True)


def _tell_to_stop(stop_file: Path | None) -> float:
    """Returns until when calls are waited for, monotonic clock."""
    if stop_file is not None:
        with contextlib.suppress(OSError):
            disk.write_file(stop_file, b"")
    return time.monotonic() + _STOP_S


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def stop_with_file(path: str) -> Iterator[StopRequest]:
    """A request to stop that is made when there is a file.

    Args:
        path: the file that a driver makes to stop its calls.
    """
    stop, ended = StopRequest(), threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            if os.path.exists(path):
                stop.request()
                return

    if os.path.exists(path):
        stop.request()
    thread = threading.Thread(target=watch, name="srpipe-stop", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        ended.set()
        thread.join()


def _name(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a call came to."""

    value: Any
    """What it returned, or what srpipe raised on purpose, which Ray would wrap."""
    said: tuple[tuple[int, str], ...]
    """Level and text of what it logged."""


class _Ear(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


def _call(name: tuple[str, str], arguments: tuple[Any, ...]) -> _Answer:
    """Call a function by its name, on a node."""
    module, function = name
    ear, of_all = _Ear(), logging.getLogger("srpipe")
    level = of_all.level
    of_all.addHandler(ear)
    of_all.setLevel(logging.INFO)
    try:
        value = getattr(importlib.import_module(module), function)(*arguments)
    except SrpipeError as error:
        value = error
    finally:
        of_all.removeHandler(ear)
        of_all.setLevel(level)
    return _Answer(value, tuple(ear.said))


def _log_again(answer: _Answer, name: str) -> None:
    """Log here what a call logged on its node; all of it, if it failed."""
    for level, text in answer.said:
        if isinstance(answer.value, SrpipeError):
            level = max(level, logging.WARNING)
        logger.log(level, "%s%s", f"{name}: " if name else "", text)


def _first_line(error: BaseException) -> str:
    """What a person needs of an error that Ray may have wrapped in its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].endswith("Error")]
    return (named or lines or [type(error).__name__])[-1 if named else 0].rstrip(".")
