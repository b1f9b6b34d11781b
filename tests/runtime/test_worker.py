"""Which device a worker takes, and how one that is missing is told; on builds without CUDA."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from srpipe.api import prepare
from srpipe.errors import DeviceError
from srpipe.io.devices import available_devices
from srpipe.plan.job import Plan
from srpipe.run import run_job
from srpipe.runtime.slots import LocalSlotMemory
from srpipe.runtime.stages.worker import Worker
from srpipe.settings import Settings
from srpipe.stop import StopRequest

pytestmark = pytest.mark.skipif("cuda" in available_devices(), reason="this ONNX Runtime has CUDA")


@pytest.fixture
def plan(tmp_path: Path, photograph: Path, x2_model: Path) -> Plan:
    """A job for devices that are not there."""
    settings = Settings(model=str(x2_model), tile_size=48, engine="local", workers=3)
    plan = prepare(str(photograph), str(tmp_path / "out.tif"), settings)
    return replace(plan, device="cuda:0,cuda:7")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(("number", "device"), [(0, "cuda:0"), (1, "cuda:7"), (2, "cuda:0")])
def test_workers_take_the_devices_in_turn(plan: Plan, number: int, device: str) -> None:
    with (
        LocalSlotMemory().slots(plan) as slots,
        pytest.raises(DeviceError, match=f"device '{device}' could not be started"),
    ):
        Worker(plan, slots, number)


def test_a_device_that_only_a_worker_misses_ends_the_run(plan: Plan) -> None:
    with pytest.raises(DeviceError, match=r"device 'cuda:\d' could not be started"):
        run_job(plan, None, time.monotonic(), StopRequest())
    assert not Path(plan.job_dir).exists()
    assert not Path(plan.output.path).exists()
