"""Starts the processes of a job, passes messages, and sees to it that none outlives it.

Who owns what: the supervisor alone makes the processes and the slots' memory, which has no name, so
that nothing can be left behind. Each process has one connection of its own to the supervisor and
shares no lock or queue with another, so the death of one cannot block the rest. A process whose
supervisor dies sees its connection close and exits; a supervisor whose process dies sees the same
and tells the engine, which has a worker replaced and ends the job for any other. A worker's slots
change hands only after its process is dead. Processes start fresh interpreters, never forks
(libvips and ONNX Runtime are not fork-safe), never import the caller's main module, and belong to a
session of their own, so that Ctrl-C reaches the supervisor alone.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import BinaryIO

from srpipe.errors import StageError
from srpipe.forks import close_in_forks
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.small_files import open_regular
from srpipe.io.space import count_oom_kills, reserve_shared_memory
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Failed, Instruction, Lost, Run, Setup
from srpipe.runtime.slots import slots_bytes
from srpipe.runtime.stages import stage_of

logger = logging.getLogger(__name__)

_WAIT_S = 0.5
# No stage multiplies matrices with numpy, and idle OpenBLAS threads spin.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_STOP_S = 2.0
_WORDS_BYTES = 10_000
# The first message is the caller's sys.path: after it, srpipe can be imported as the caller has it.
_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; "
    "c = Connection(int(sys.argv[1])); sys.path[:] = c.recv(); "
    "from srpipe.runtime.child import main; main(c)"
)


class StageProcess:
    """One stage in a process of its own."""

    def __init__(
        self, name: str, setup: Setup, log_path: Path, worker: int | None, lock_descriptor: int
    ) -> None:
        """Start the process; what it is sent before it is set up waits in the connection."""
        self.name = name
        self.worker = worker
        self._log_path = log_path
        self.connection, theirs = multiprocessing.Pipe()
        close_in_forks(self.connection)
        with _open_log(log_path) as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), f"srpipe-{name}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), setup.slots_descriptor, lock_descriptor),
                start_new_session=True,
                env=os.environ | _ENVIRONMENT,
            )
        self.send(list(sys.path))
        self.send(setup)

    def send(self, message: object) -> None:
        """Send a message; that a process is gone is heard when it is listened to."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Done | Failed | Lost:
        """The next message, or what became of the process."""
        try:
            message: Done | Failed = self.connection.recv()
        except (EOFError, OSError):
            error = self.death()
            killed = self._process.returncode == -signal.SIGKILL
            return Lost(self.name, error, self.worker, out_of_memory=killed)
        return replace(message, worker=self.worker) if isinstance(message, Failed) else message

    def death(self) -> StageError:
        """An error that says how the process ended."""
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return StageError(
                f"the {self.name} process (pid {self._process.pid}) closed its connection."
            )
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                how += " (by hand, or by the kernel because memory ran out)"
        said: list[str] = []
        with contextlib.suppress(OSError), self._log_path.open("rb") as log:
            log.seek(max(os.fstat(log.fileno()).st_size - _WORDS_BYTES, 0))
            said = log.read(_WORDS_BYTES).decode(errors="replace").strip().splitlines()
        hint = f" Its last words: {said[-1].strip()[:200]}" if said else ""
        return StageError(f"the {self.name} process {how}.{hint}")

    def close(self) -> None:
        """Ask the process to exit by closing the connection."""
        self.connection.close()

    def end(self, deadline_s: float) -> None:
        """Wait for the process until ``deadline_s`` on the monotonic clock, then kill it."""
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _open_log(path: Path) -> BinaryIO:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.fdopen(open_regular(path, flags, follow=False), "ab")
    except OSError:  # nobody but a person reads it
        return open(os.devnull, "ab")


def _worker_name(worker: int) -> str:
    return f"worker {worker}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Supervisor:
    """All processes of one job; a context manager that leaves none behind."""

    def __init__(
        self,
        plan: Plan,
        partial_output: str,
        at: Checkpoint,
        log_path: Path,
        lock_descriptor: int,
    ) -> None:
        """Prepare to run ``plan`` from ``at`` on; the processes hold the job folder's lock too."""
        self._plan = plan
        self._partial_output = partial_output
        self._at = at
        self._log_path = log_path
        self._lock_descriptor = lock_descriptor
        self._processes: dict[str, StageProcess] = {}
        self._descriptor = -1
        self._finished = False
        self._oom_kills = count_oom_kills()

    def __enter__(self) -> Supervisor:
        """Take the slots' memory and start every process.

        Raises:
            SpaceError: too little memory.
        """
        self._descriptor = reserve_shared_memory(slots_bytes(self._plan), self._plan.job_dir)
        try:
            for worker in range(self._plan.workers):  # the slowest to start first
                self._start("worker", worker)
            for stage in ("accumulator", "batcher", "reader", "writer"):
                self._start(stage)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, stage: str, worker: int | None = None) -> None:
        name = stage if worker is None else _worker_name(worker)
        setup = Setup(
            stage, self._plan, self._descriptor, self._partial_output, self._at, worker or 0
        )
        self._processes[name] = StageProcess(
            name, setup, self._log_path, worker, self._lock_descriptor
        )

    def __exit__(self, *_: object) -> None:
        """End every process: at once where it listens, by SIGKILL after two seconds."""
        for process in self._processes.values():
            if self._finished:
                process.send(None)
            process.close()
        deadline_s = time.monotonic() + _STOP_S
        for process in self._processes.values():
            process.end(deadline_s)
        os.close(self._descriptor)

    def send(self, instructions: list[Instruction]) -> None:
        """Pass instructions to the processes that carry them out."""
        for instruction in instructions:
            name = stage_of(instruction)
            if isinstance(instruction, Run):
                name = _worker_name(instruction.worker)
            process = self._processes.get(name)
            if process is not None:  # else the run is ending because it was lost
                process.send(instruction)

    def replace_worker(self, worker: int) -> None:
        """End a worker, if it has not ended, and start another in its place."""
        process = self._processes.pop(_worker_name(worker), None)
        if process is not None:
            process.close()
            process.end(time.monotonic())
        self._start("worker", worker)

    def events(self) -> Iterator[Done | Failed | Lost | None]:
        """What the stages report, as it comes; None now and then while nothing does."""
        while True:
            by_connection: dict[Connection, StageProcess] = {
                process.connection: process for process in self._processes.values()
            }
            arrived = wait(list(by_connection), _WAIT_S)
            if not arrived:
                yield None
            for connection in arrived:
                assert isinstance(connection, Connection)
                process = by_connection[connection]
                if self._processes.get(process.name) is not process:
                    continue  # replaced meanwhile
                event = process.receive()
                if isinstance(event, Lost):
                    event = self._note_loss(event)
                yield event

    def _note_loss(self, lost: Lost) -> Lost:
        process = self._processes.pop(lost.stage)
        process.close()
        process.end(time.monotonic())
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        can_tell = before is not None
        killed_for_memory = lost.out_of_memory and not (can_tell and before == self._oom_kills)
        return replace(lost, out_of_memory=killed_for_memory)

    def finish(self) -> None:
        """Take note that the job is complete, so that the processes have nothing to undo."""
        self._finished = True
