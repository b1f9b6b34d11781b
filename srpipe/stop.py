"""How a caller asks a run to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """A wish that a run stop: asked once, it stops politely; asked again, at once.

    A polite stop finishes the batches in flight and writes a checkpoint. Either way the same
    request goes on from the last checkpoint later. Safe to call from a signal handler or a thread.
    """

    def __init__(self) -> None:
        self.times = 0
        """How often the run has been asked to stop."""
        self.heeded = False
        """Whether a run looks at this object now and then; if not, nobody will answer."""
        self.signal_number = int(signal.SIGINT)
        """The signal that asked first."""

    def request(self) -> None:
        """Ask the run to stop."""
        self.times += 1

    @contextlib.contextmanager
    def heeding(self) -> Iterator[None]:
        """Say that somebody looks at this object, for as long as the block lasts."""
        self.heeded = True
        try:
            yield
        finally:
            self.heeded = False

    @property
    def exit_code(self) -> int:
        """What a process stopped by the signal exits with, as shells count: 130 or 143."""
        return 128 + self.signal_number
