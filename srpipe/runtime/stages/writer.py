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
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()
