"""Joins parts to the output while later slabs are still being computed.

One thread copies; it takes the parts in their order, each as soon as it is there, and owns the
unfinished file. The thread that began it learns what came of it when it waits for the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from srpipe.errors import Interrupted
from srpipe.io.assembly import assemble_parts
from srpipe.io.slabs_folder import read_done
from srpipe.plan.job import Plan
from srpipe.plan.slabs import Cut, part_output
from srpipe.stop import StopRequest

_LOOK_S = 0.3


class Joining:
    """The parts of a job on their way to its output."""

    def __init__(
        self, plan: Plan, cut: Cut, job: str, path: str, stop: StopRequest, beat: Callable[[], None]
    ) -> None:
        """Begin.

        Args:
            plan: of the whole.
            cut: the plan in slabs.
            job: its digest.
            path: of the output on its way to its place.
            stop: how it can be asked to stop.
            beat: called now and then.
        """
        self._plan, self._cut, self._job, self._path = plan, cut, job, path
        self._stop, self._beat = stop, beat
        self._given_up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._join, name="srpipe-join", daemon=True)
        self._thread.start()

    def _join(self) -> None:
        try:
            assemble_parts(self._plan, self._cut, self._parts(), self._path, self._look)
        except BaseException as error:  # finish() raises it
            self._error = error

    def _parts(self) -> Iterator[str]:
        folder = Path(self._plan.job_dir)
        for slab in self._cut.slabs:
            while read_done(folder, slab.index, self._job) is None:
                self._look()
                self._given_up.wait(_LOOK_S)
            yield part_output(self._cut, slab, os.fspath(folder)).path

    def _look(self) -> None:
        self._beat()
        if self._stop.times or self._given_up.is_set():
            raise Interrupted("interrupted.")

    def give_up(self) -> None:
        """End it; nothing is left of the output."""
        self._given_up.set()
        self._thread.join()

    def finish(self) -> None:
        """Wait for the output.

        Raises:
            WriteError: it cannot be written, or a part is not what it should be.
            Interrupted: it was asked to stop.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
