"""What an engine does besides passing messages: the clock, requests to stop, failures.

A run that is asked to stop, or fails while the accumulator lives, comes to rest first: batches in
flight are finished, if that does not take long, and a last checkpoint is made, which may take as long
as the disk needs. One whose input cannot
be read any further finishes all that was read, however long it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from srpipe.errors import Interrupted, RunError, SrpipeError
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.job_lock import HEARTBEAT_S
from srpipe.plan.job import Plan
from srpipe.runtime.events import Monitor
from srpipe.runtime.messages import Done, Instruction, Read, Save
from srpipe.runtime.scheduler import Scheduler
from srpipe.stop import StopRequest

# A run that was asked to stop waits so long for batches in flight, and then for its checkpoint.
_FINISH_BATCHES_S = 2.5
_LAST_CHECKPOINT_S = 1.5


class Conductor:
    """Leads one run from its scheduler, by events and by the clock."""

    def __init__(
        self,
        plan: Plan,
        at: Checkpoint,
        monitor: Monitor,
        stop: StopRequest,
        heartbeat: Callable[[], None],
    ) -> None:
        """Prepare to go on from ``at``.

        Args:
            plan: the job.
            at: how far the canvas is.
            monitor: is told of every carried-out instruction.
            stop: is looked at between events.
            heartbeat: called every :data:`HEARTBEAT_S`.
        """
        self.scheduler = Scheduler.for_plan(plan, at)
        self._monitor = monitor
        self._stop = stop
        self._heartbeat = heartbeat
        self._checkpoint_every_s = plan.checkpoint_every_s
        self._saved_s = self._beat_s = time.monotonic()
        self._reason: SrpipeError | None = None
        self._stopping_s: float | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.scheduler.finished or self.scheduler.stopped

    @property
    def reason(self) -> SrpipeError | None:
        """Why the run comes to rest before its end, if it does."""
        return self._reason

    def start(self) -> list[Instruction]:
        """The first instructions."""
        instructions = self.scheduler.start()
        self._monitor.note_loads(self.scheduler)
        return instructions

    def on_done(self, done: Done) -> list[Instruction]:
        """Take note that an instruction was carried out; returns what can be done now.

        Raises:
            CoverageError: all tiles are blended and pixels are missing.
        """
        instructions = self.scheduler.on_done(done)
        self._monitor.on_done(done, self.scheduler)
        self._monitor.note_loads(self.scheduler)
        if isinstance(done.instruction, Save):
            self._saved_s = time.monotonic()
        return instructions

    def fail(self, error: SrpipeError, instruction: Instruction | None) -> list[Instruction]:
        """End the run because of ``error``, with a last checkpoint if one can be made.

        Args:
            error: why.
            instruction: what could not be carried out; None: a stage cannot begin, or is lost.

        Raises:
            SrpipeError: ``error``, where no checkpoint can be made.
        """
        if isinstance(instruction, Save) or not isinstance(error, RunError):
            raise error
        if self._reason is not None:
            if isinstance(instruction, Read):
                return []  # a tile after the one that could not be read
            raise self._reason
        self._reason = error
        if not isinstance(instruction, Read):
            self._stopping_s = time.monotonic()
        return self.scheduler.on_failed(instruction)

    def beat(self) -> list[Instruction]:
        """Look at the clock and at the request to stop; call it at least twice a second.

        Raises:
            SrpipeError: the run was asked to stop at once, or did not come to rest in time.
        """
        now_s = time.monotonic()
        if now_s - self._beat_s >= HEARTBEAT_S:
            self._beat_s = now_s
            self._heartbeat()
        if self._stopping_s is None:
            if self._stop.times:
                self._reason = self._reason or Interrupted("interrupted.")
                self._stopping_s = now_s
                return self.scheduler.stop()
            if now_s - self._saved_s >= self._checkpoint_every_s:
                return self.scheduler.save_soon()
            return []
        assert self._reason is not None
        stopping_s = now_s - self._stopping_s
        # A disk that takes long to save much is waited for, until somebody asks a second time.
        late = stopping_s > _FINISH_BATCHES_S + _LAST_CHECKPOINT_S and not self.scheduler.saving
        if self._stop.times > 1 or late:
            raise self._reason
        return self.scheduler.stop_waiting() if stopping_s > _FINISH_BATCHES_S else []

    def close(self) -> None:
        """End a run that is over.

        Raises:
            SrpipeError: it is over for this reason.
        """
        if self._reason is not None and not self.scheduler.finished:
            raise self._reason
