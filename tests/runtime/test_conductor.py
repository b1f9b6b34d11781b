"""How long a run that is asked to stop waits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import srpipe
from srpipe.api import prepare
from srpipe.io.checkpoint import Checkpoint
from srpipe.runtime import conductor as module
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.events import Monitor
from srpipe.settings import Settings
from srpipe.stop import StopRequest


@pytest.fixture
def stop() -> StopRequest:
    return StopRequest()


@pytest.fixture
def conductor(
    tmp_path: Path, photograph: Path, x2_model: Path, stop: StopRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Conductor:  # fmt: skip
    """Of a job that is asked to stop, whose batches in flight are waited for no longer."""
    settings = Settings(model=str(x2_model), tile_size=48, engine="threads")
    plan = prepare(str(photograph), str(tmp_path / "out.tif"), settings)
    monkeypatch.setattr(module, "_FINISH_BATCHES_S", 0.0)
    monkeypatch.setattr(module, "_LAST_CHECKPOINT_S", 0.0)
    monitor = Monitor(plan, None, time.monotonic())
    conductor = Conductor(
        plan, Checkpoint(job="job", next_tile=0, stored_px=0), monitor, stop, lambda: None
    )
    conductor.start()
    stop.request()
    conductor.beat()
    time.sleep(0.001)
    return conductor


def test_a_checkpoint_under_way_is_waited_for(conductor: Conductor) -> None:
    conductor.scheduler.saving = True
    conductor.beat()
    conductor.beat()
    conductor.scheduler.saving = False
    with pytest.raises(srpipe.Interrupted):
        conductor.beat()


def test_but_not_by_who_asks_twice(conductor: Conductor, stop: StopRequest) -> None:
    conductor.scheduler.saving = True
    stop.request()
    with pytest.raises(srpipe.Interrupted):
        conductor.beat()
