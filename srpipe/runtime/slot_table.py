"""States of slots, and who may change them: the table is in :mod:`srpipe.runtime.scheduler`."""

from __future__ import annotations

from collections import deque

_NEXT_STATE = {
    "free": {"writing"},
    "writing": {"ready", "free"},
    "ready": {"reading", "free"},
    "reading": {"ready", "kept", "free"},
    "kept": {"reading", "free"},
}


class SlotTable:
    """States of the slots of one kind."""

    def __init__(self, n_slots: int) -> None:
        self._states = ["free"] * n_slots
        self._free = deque(range(n_slots))

    @property
    def n_slots(self) -> int:
        """All slots."""
        return len(self._states)

    @property
    def n_free(self) -> int:
        """Slots that can be taken."""
        return len(self._free)

    def count(self, state: str) -> int:
        """Slots in a state."""
        return self._states.count(state)

    def take(self) -> int:
        """A free slot, now in state writing."""
        slot = self._free.popleft()
        self.move(slot, "writing")
        return slot

    def move(self, slot: int, state: str) -> None:
        """Change a slot's state.

        Raises:
            RuntimeError: the table above forbids it.
        """
        if state not in _NEXT_STATE[self._states[slot]]:
            raise RuntimeError(f"slot {slot} cannot go from {self._states[slot]} to {state}")
        self._states[slot] = state
        if state == "free":
            self._free.append(slot)
