"""Runs the stages of a job in threads of this process, and sees to it that none outlives it.

The same part as the supervisor's, without processes: each stage has a queue of instructions and as many
threads as it can use; what they report comes through one queue to the caller's thread. Numba, libvips
and ONNX Runtime let go of the interpreter while they work. A thread cannot be killed: where a run ends
before its time, stages give up what they are doing (the model between two nodes, libvips between two
tiles) and their threads are waited for.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from srpipe.errors import StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.failures import failed
from srpipe.runtime.messages import Done, Failed, Instruction, Run
from srpipe.runtime.sessions import Sessions
from srpipe.runtime.slots import Slots
from srpipe.runtime.stages import STAGES, Stage, make_stage, stage_of

_WAIT_S = 0.5


class StageThreads:
    """One stage in threads of its own."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Stage],
        report: Callable[[StageThreads, Done | Failed], None],
    ) -> None:
        """Begin to set the stage up; instructions wait until it is.

        Args:
            name: for messages and debuggers.
            make: sets the stage up, in its first thread.
            report: called from the stage's threads.
        """
        self.name = name
        self._make = make
        self._report = report
        self._todo: queue.SimpleQueue[Instruction | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stage: Stage | None = None
        self._threads: list[threading.Thread] = []
        self._ended = self._given_up = False
        self._start(self._begin)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"srpipe-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise StageError(
                f"no thread can be started for the {self.name}: there are too many already, or too "
                "little memory."
            ) from None
        self._threads.append(thread)

    def send(self, instruction: Instruction) -> None:
        """Have an instruction carried out."""
        self._todo.put(instruction)

    def end(self) -> None:
        """Begin nothing any more."""
        self._ended = True
        self._todo.put(None)

    def give_up(self) -> None:
        """Begin nothing any more, give up what is being done, and leave nothing unfinished."""
        self.end()
        with self._lock:
            self._given_up = True
            stage = self._stage
        if stage is not None:
            stage.abort()

    def join(self) -> None:
        """Wait for the threads, after :meth:`end` or :meth:`give_up`."""
        for thread in self._threads:  # grows while its first is waited for
            while thread.is_alive():
                thread.join(_WAIT_S)
        self._stage = None

    def _begin(self) -> None:
        try:
            stage = self._make()
        except BaseException as error:  # whatever it is, the caller must hear of it
            self._report(self, failed(error, self.name, None))
            return
        with self._lock:
            self._stage = stage
            given_up = self._given_up
        if given_up:
            stage.abort()
        with contextlib.suppress(StageError):  # those that could be started do the work
            for _ in range(stage.runners - 1):
                self._start(lambda: self._serve(stage))
        self._serve(stage)

    def _serve(self, stage: Stage) -> None:
        while not self._ended:
            try:
                instruction = self._todo.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
            if instruction is None:
                self._todo.put(None)  # for the next thread
                break
            try:
                message: Done | Failed = stage.handle(instruction)
            except BaseException as error:  # whatever it is, the caller must hear of it
                message = failed(error, self.name, instruction)
            self._report(self, message)


class StageThreadsOfJob:
    """All stages of one job; a context manager that leaves no thread behind."""

    def __init__(
        self, plan: Plan, slots: Slots, partial_output: str, at: Checkpoint, sessions: Sessions
    ) -> None:
        """Prepare to run ``plan`` from ``at`` on, with ``slots`` and workers' sessions from there."""
        self._plan = plan
        self._slots = slots
        self._partial_output = partial_output
        self._at = at
        self._sessions = sessions
        self._stages: dict[str, StageThreads] = {}
        self._events: queue.SimpleQueue[tuple[StageThreads, Done | Failed]] = queue.SimpleQueue()
        self._finished = False

    def __enter__(self) -> StageThreadsOfJob:
        """Start every stage."""
        try:
            for worker in range(self._plan.workers):
                self._start("worker", worker)
            for stage in STAGES:
                if stage != "worker":
                    self._start(stage)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, stage: str, worker: int = 0) -> None:
        def make() -> Stage:
            return make_stage(
                stage,
                self._plan,
                self._slots,
                self._partial_output,
                self._at,
                worker,
                self._sessions,
            )

        def report(source: StageThreads, message: Done | Failed) -> None:
            if isinstance(message, Failed) and stage == "worker":
                message = replace(message, worker=worker)
            self._events.put((source, message))

        name = _worker_name(worker) if stage == "worker" else stage
        self._stages[name] = StageThreads(name, make, report)

    def __exit__(self, *_: object) -> None:
        """End every thread; where the job is not complete, they give up what they are doing."""
        stages = list(self._stages.values())
        with contextlib.ExitStack() as every:  # backwards, and whatever happens on the way
            for stage in stages:
                every.callback(stage.join)
            for stage in stages:
                every.callback(stage.end if self._finished else stage.give_up)

    def send(self, instructions: list[Instruction]) -> None:
        """Pass instructions to the stages that carry them out."""
        for instruction in instructions:
            name = stage_of(instruction)
            if isinstance(instruction, Run):
                name = _worker_name(instruction.worker)
            self._stages[name].send(instruction)

    def replace_worker(self, worker: int) -> None:
        """End a worker and start another in its place; what the old one still says is not heard."""
        old = self._stages[_worker_name(worker)]
        old.give_up()
        old.join()
        self._start("worker", worker)

    def events(self) -> Iterator[Done | Failed | None]:
        """What the stages report, as it comes; None now and then while nothing does."""
        while True:
            event = None
            with contextlib.suppress(queue.Empty):
                source, event = self._events.get(timeout=_WAIT_S)
                if self._stages[source.name] is not source:
                    continue
            yield event

    def finish(self) -> None:
        """Take note that the job is complete, so that the stages have nothing to undo."""
        self._finished = True


def _worker_name(worker: int) -> str:
    return f"worker {worker}"
