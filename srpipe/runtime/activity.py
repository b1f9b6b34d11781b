"""Where the time goes: how long each stage worked, waited for input, and waited for room.

A stage that waits for input is faster than those before it; one that waits for room is faster than
those after it. The one that does neither is the bottleneck.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from srpipe.runtime.messages import Done
from srpipe.runtime.stages import STAGES, stage_of


@dataclass(frozen=True, slots=True)
class Load:
    """What a stage has to do at a moment."""

    under_way: int
    """Instructions that it was given and has not carried out."""
    lacks_room: bool
    """Whether it could do more if there were slots for it."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds of one stage, the mean over those of its hands that work at the same time.

    What is missing to the whole is its start, and instructions on their way.
    """

    busy_s: float
    waiting_for_input_s: float
    waiting_for_room_s: float


class Activity:
    """Adds up what stages do."""

    def __init__(
        self, hands: Mapping[str, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin; nothing is under way.

        Args:
            hands: instructions that a stage carries out at the same time, where it is more than one.
            clock: seconds.
        """
        self._hands = {stage: hands.get(stage, 1) for stage in STAGES}
        self._clock = clock
        self._then_s = self._begin_s = clock()
        self._loads = dict.fromkeys(STAGES, Load(0, lacks_room=False))
        self._busy_s = dict.fromkeys(STAGES, 0.0)
        self._input_s = dict.fromkeys(STAGES, 0.0)
        self._room_s = dict.fromkeys(STAGES, 0.0)

    def done(self, done: Done) -> None:
        """Take note that an instruction was carried out."""
        stage = stage_of(done.instruction)
        self._busy_s[stage] += done.busy_s / self._hands[stage]

    def note(self, loads: Mapping[str, Load]) -> None:
        """Take note of what each stage has to do from now on."""
        now_s = self._clock()
        passed_s, self._then_s = now_s - self._then_s, now_s
        for stage, load in self._loads.items():
            hands = self._hands[stage]
            idle_s = passed_s * max(hands - load.under_way, 0) / hands
            waiting_s = self._room_s if load.lacks_room else self._input_s
            waiting_s[stage] += idle_s
        self._loads = dict(loads)

    def times(self) -> dict[str, StageTime]:
        """All stages so far, in the order a pixel travels."""
        self.note(self._loads)
        # It encodes between its instructions too.
        idle_s = self._then_s - self._begin_s - self._busy_s["writer"]
        self._input_s["writer"] = max(idle_s, 0.0)  # its threads may take more than one core
        return {
            stage: StageTime(self._busy_s[stage], self._input_s[stage], self._room_s[stage])
            for stage in STAGES
        }
