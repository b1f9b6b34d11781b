"""What jobs of one process hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from srpipe.runtime.sessions import Sessions
from srpipe.runtime.slots import LocalSlotMemory


@dataclass(frozen=True)
class Warm:
    """Loaded sessions and used memory; safe to use from several threads."""

    sessions: Sessions = field(default_factory=Sessions)
    memory: LocalSlotMemory = field(default_factory=LocalSlotMemory)
