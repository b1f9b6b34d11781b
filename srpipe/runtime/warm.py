"""What jobs of one process hand on to each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from srpipe.errors import Interrupted
from srpipe.runtime.sessions import Sessions
from srpipe.runtime.slots import LocalSlotMemory
from srpipe.stop import StopRequest

_WAIT_S = 0.2


@dataclass(frozen=True)
class Warm:
    """Loaded sessions and used memory; safe to use from several threads."""

    sessions: Sessions = field(default_factory=Sessions)
    memory: LocalSlotMemory = field(default_factory=LocalSlotMemory)
    _whole_machine: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def whole_machine(self, stop: StopRequest) -> Iterator[None]:
        """Wait for other jobs that were planned for all cores and memory, as this one.

        Raises:
            Interrupted: ``stop`` asks for it.
        """
        while not self._whole_machine.acquire(timeout=_WAIT_S):
            if stop.times:
                raise Interrupted("interrupted.")
        try:
            yield
        finally:
            self._whole_machine.release()
