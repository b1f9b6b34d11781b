"""What stages are said to have done with the time."""

from __future__ import annotations

import pytest

from srpipe.runtime.activity import Activity, Load, StageTime
from srpipe.runtime.messages import Done, Read, Run
from srpipe.runtime.stages import STAGES


def test_idle_hands_wait_for_what_their_stage_lacks() -> None:
    now_s = 100.0
    activity = Activity({"worker": 2}, clock=lambda: now_s)
    idle = {stage: Load(0, lacks_room=False) for stage in STAGES}
    activity.note(idle | {"reader": Load(1, lacks_room=False)})
    now_s += 3  # the reader reads, all others wait for it
    activity.done(Done(Read(0, 0), 2.5))
    activity.note(idle | {"reader": Load(0, lacks_room=True), "worker": Load(1, lacks_room=False)})
    now_s += 4  # one of two runners runs; the reader has no slot
    activity.done(Done(Run(0, 0, 0, 0, 1), 4.0))
    activity.note(idle)
    times = activity.times()
    assert list(times) == list(STAGES)
    assert times["reader"] == StageTime(2.5, 0, 4)
    assert times["worker"] == StageTime(2, 3 + 2, 0)
    assert times["accumulator"] == StageTime(0, 7, 0)
    assert times["writer"].waiting_for_input_s == pytest.approx(7)
