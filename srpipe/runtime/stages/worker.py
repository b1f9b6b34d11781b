"""Third stage: runs the model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from srpipe.errors import OutOfMemoryError
from srpipe.io.session import Terminator
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Run
from srpipe.runtime.sessions import Sessions, SharedSession
from srpipe.runtime.slots import Slots


class Worker:
    """Runs the model from batch slots into result slots, on several threads of one session."""

    def __init__(
        self, plan: Plan, slots: Slots, number: int, sessions: Sessions | None = None
    ) -> None:
        """Load the model.

        Args:
            plan: the job.
            slots: mapped in this process.
            number: the worker's, which says whose turn it is among the devices.
            sessions: where its session comes from; None: it has one of its own.
        """
        self.runners = plan.runners
        self._slots = slots
        self._sessions = sessions or Sessions()
        self._plan, self._number = plan, number
        self._session = self._sessions.get(plan, number)
        self._terminator = Terminator()

    def handle(self, instruction: Instruction) -> Done:
        """Run one batch."""
        assert isinstance(instruction, Run)
        batch = self._slots.batches[instruction.batch_slot]
        result = self._slots.results[instruction.result_slot]
        n = instruction.tiles_at_once
        with self._turn() as session:
            begin = time.perf_counter()
            for stop in range(n, len(batch) + n, n):
                # One shape for every run: where the last would be smaller, it repeats some tiles.
                tiles = slice(min(stop, len(batch)) - n, min(stop, len(batch)))
                session.run(batch[tiles], result[tiles], self._terminator)
            return Done(instruction, time.perf_counter() - begin)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[SharedSession]:
        """The session when its turn has come: a new one where another's run has spent the old."""
        while True:
            session = self._session
            with session.turn(self._terminator):
                if not session.spent:
                    try:
                        yield session
                    except OutOfMemoryError:
                        self._sessions.forget(session)
                        raise
                    return
            self._session = self._sessions.get(self._plan, self._number)

    def abort(self) -> None:
        """End the runs that are under way."""
        self._terminator.terminate()
