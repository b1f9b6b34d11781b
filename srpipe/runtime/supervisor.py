"""Starts the processes of a job, passes messages, and sees to it that none outlives it.

Who owns what: the supervisor alone makes the processes and the slots' memory, which has no name, so
that nothing can be left behind. Each process has one connection of its own to the supervisor and
shares no lock or queue with another, so the death of one cannot block the rest. A process whose
supervisor dies sees its connection close and exits; a supervisor whose process dies sees the same
and ends the job. Processes start fresh interpreters, never forks (libvips and ONNX Runtime are not
fork-safe), never import the caller's main module, and belong to a session of their own, so that
Ctrl-C reaches the supervisor alone.
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
from multiprocessing.connection import Connection, wait
from pathlib import Path

from srpipe.errors import StageError
from srpipe.io.space import reserve_shared_memory
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Failed, Instruction, Run, Setup
from srpipe.runtime.slots import slots_bytes
from srpipe.runtime.stages import stage_of

logger = logging.getLogger(__name__)

_WAIT_S = 0.5
# No stage multiplies matrices with numpy, and idle OpenBLAS threads spin.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_STOP_S = 2.0
# The first message is the caller's sys.path: after it, srpipe can be imported as the caller has it.
_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; "
    "c = Connection(int(sys.argv[1])); sys.path[:] = c.recv(); "
    "from srpipe.runtime.child import main; main(c)"
)


class StageProcess:
    """One stage in a process of its own."""

    def __init__(self, name: str, setup: Setup, log_path: Path) -> None:
        """Start the process; what it is sent before it is set up waits in the connection."""
        self.name = name
        self._log_path = log_path
        self.connection, theirs = multiprocessing.Pipe()
        with log_path.open("ab") as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), f"srpipe-{name}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), setup.slots_descriptor),
                start_new_session=True,
                env=os.environ | _ENVIRONMENT,
            )
        self.send(list(sys.path))
        self.send(setup)

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            StageError: the process is dead.
        """
        try:
            self.connection.send(message)
        except OSError:
            self._raise_last_words()
            raise self.death() from None

    def _raise_last_words(self) -> None:
        """Raise what a process that is gone has said of its end, if it has."""
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Failed):
                    raise message.error

    def receive(self) -> Done | Failed:
        """The next message.

        Raises:
            StageError: the process is dead.
        """
        try:
            message: Done | Failed = self.connection.recv()
        except (EOFError, OSError):
            raise self.death() from None
        return message

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
        said = self._log_path.read_text(errors="replace").strip().splitlines()
        hint = f" Its last words: {said[-1].strip()[:200]}" if said else ""
        return StageError(f"the {self.name} process {how}; run the command again.{hint}")

    def close(self) -> None:
        """Ask the process to exit by closing the connection."""
        self.connection.close()

    def finish(self) -> None:
        """Tell the process that its work is done."""
        with contextlib.suppress(OSError):  # it may be gone already
            self.connection.send(None)

    def end(self, deadline_s: float) -> None:
        """Wait for the process until ``deadline_s`` on the monotonic clock, then kill it."""
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Supervisor:
    """All processes of one job; a context manager that leaves none behind."""

    def __init__(self, plan: Plan, partial_output: str, log_path: Path) -> None:
        """Prepare to run ``plan``."""
        self._plan = plan
        self._partial_output = partial_output
        self._log_path = log_path
        self._processes: dict[str, StageProcess] = {}
        self._descriptor = -1
        self._finished = False

    def __enter__(self) -> Supervisor:
        """Take the slots' memory and start every process.

        Raises:
            SpaceError: too little memory.
        """
        self._descriptor = reserve_shared_memory(slots_bytes(self._plan), self._plan.job_dir)
        try:
            for name, stage in self._names():
                setup = Setup(stage, self._plan, self._descriptor, self._partial_output)
                self._processes[name] = StageProcess(name, setup, self._log_path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _names(self) -> Iterator[tuple[str, str]]:
        # The slowest to start first.
        for k in range(self._plan.workers):
            yield f"worker {k}", "worker"
        for stage in ("accumulator", "batcher", "reader", "writer"):
            yield stage, stage

    def __exit__(self, *_: object) -> None:
        """End every process: at once where it listens, by SIGKILL after two seconds."""
        for process in self._processes.values():
            if self._finished:
                process.finish()
            process.close()
        deadline_s = time.monotonic() + _STOP_S
        for process in self._processes.values():
            process.end(deadline_s)
        os.close(self._descriptor)

    def send(self, instruction: Instruction) -> None:
        """Pass an instruction to the process that carries it out.

        Raises:
            StageError: that process is dead.
        """
        stage = stage_of(instruction)
        name = f"worker {instruction.worker}" if isinstance(instruction, Run) else stage
        self._processes[name].send(instruction)

    def events(self) -> Iterator[Done | None]:
        """What the stages report, as it comes; None now and then while nothing does.

        Raises:
            SrpipeError: a stage failed, or its process died.
        """
        by_connection: dict[Connection, StageProcess] = {
            process.connection: process for process in self._processes.values()
        }
        while True:
            arrived = wait(list(by_connection), _WAIT_S)
            if not arrived:
                yield None
            for connection in arrived:
                assert isinstance(connection, Connection)
                match by_connection[connection].receive():
                    case Failed(error, traceback):
                        if traceback:
                            logger.debug("%s", traceback)
                        raise error
                    case Done() as done:
                        yield done

    def finish(self) -> None:
        """Take note that the job is complete, so that the processes have nothing to undo."""
        self._finished = True
