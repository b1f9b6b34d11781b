"""Sessions that several images share: turns, and what follows when one runs out of memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

import srpipe
from srpipe.api import prepare
from srpipe.io.session import Terminator
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Run
from srpipe.runtime.sessions import Sessions, SharedSession
from srpipe.runtime.slots import LocalSlotMemory
from srpipe.runtime.stages.worker import Worker
from srpipe.runtime.warm import Warm
from srpipe.settings import Settings
from srpipe.stop import StopRequest
from tests.processes import wait_until


@pytest.fixture
def plan(tmp_path: Path, photograph: Path, x2_model: Path) -> Plan:
    settings = Settings(model=str(x2_model), tile_size=48, engine="threads", threads=2, runners=2)
    return prepare(str(photograph), str(tmp_path / "out.tif"), settings)


def test_nobody_goes_on_with_a_session_that_ran_out_of_memory(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions()
    with LocalSlotMemory().slots(plan) as slots:
        one, other = (Worker(plan, slots, 0, sessions) for _ in range(2))
        instruction = Run(0, 0, 0, 0, plan.batch_size)
        used: list[SharedSession] = []

        def run(self: SharedSession, *_: object) -> None:
            used.append(self)
            if len(used) == 1:
                raise srpipe.OutOfMemoryError("too much")

        monkeypatch.setattr(SharedSession, "run", run)
        with pytest.raises(srpipe.OutOfMemoryError):
            one.handle(instruction)
        other.handle(instruction)
        Worker(plan, slots, 0, sessions).handle(instruction)
    spent, *new = used
    assert spent.spent
    assert new[0] is not spent
    assert new[1] is new[0]


def test_images_that_share_the_cores_alike_share_a_session(plan: Plan) -> None:
    sessions = Sessions()
    alike = sessions.get(replace(plan, threads=6, runners=3))
    assert sessions.get(replace(plan, threads=4, runners=2)) is alike
    assert sessions.get(replace(plan, threads=6, runners=2)) is not alike


def test_few_sessions_are_kept(plan: Plan) -> None:
    sessions = Sessions()
    first = sessions.get(replace(plan, threads=1, runners=1))
    for threads in range(2, 9):
        sessions.get(replace(plan, threads=threads, runners=1))
        # One that is used stays.
        assert sessions.get(replace(plan, threads=1, runners=1)) is first
    assert len(sessions._sessions) == 4


def test_turns(plan: Plan) -> None:
    session = Sessions().get(replace(plan, threads=1, runners=1))
    terminator, given_up = Terminator(), []

    def wait() -> None:
        with pytest.raises(srpipe.InferenceError, match="given up"), session.turn(terminator):
            pass
        given_up.append(True)

    with session.turn(Terminator()):
        waiting = threading.Thread(target=wait)
        waiting.start()
        terminator.terminate()
        wait_until(lambda: given_up, "a turn that is given up")
        waiting.join()
    with session.turn(Terminator()):
        pass


def test_one_job_at_a_time_has_the_whole_machine() -> None:
    warm, stop = Warm(), StopRequest()
    ended = []

    def wait() -> None:
        with pytest.raises(srpipe.Interrupted), warm.whole_machine(stop):
            pass
        ended.append(True)

    with warm.whole_machine(StopRequest()):
        waiting = threading.Thread(target=wait)
        waiting.start()
        stop.request()
        wait_until(lambda: ended, "a job that is stopped while it waits")
        waiting.join()
    with warm.whole_machine(StopRequest()):
        pass
