"""Last stage: encodes the final rows."""

from __future__ import annotations

import time

from srpipe.errors import WriteError
from srpipe.io.writer import ImageWriter
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Write


class Writer:
    """Encodes final rows; the last instruction completes the file."""

    runners = 1

    def __init__(self, plan: Plan, partial_output: str) -> None:
        self._own_process = plan.own_processes
        self._told_s = time.process_time()
        self._writer = ImageWriter(plan, partial_output)

    def handle(self, instruction: Instruction) -> Done:
        """Write rows."""
        assert isinstance(instruction, Write)
        begin = time.perf_counter()
        try:
            self._writer.write_rows(instruction.stop_row)
            if instruction.last:
                self._writer.finish()
        except WriteError:
            self.abort()  # now, so that a full disk has room for a last checkpoint
            raise
        busy_s = time.perf_counter() - begin
        if self._own_process:
            # The saver's threads encode between instructions too.
            before_s, self._told_s = self._told_s, time.process_time()
            busy_s = self._told_s - before_s
        return Done(instruction, busy_s)

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()
