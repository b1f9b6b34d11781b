"""However a run ends, no process, shared memory or temporary file of it is left."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import photograph_pixels, shared_memory_names, write_pixels
from tests.processes import STAGE_NAMES, stages_of, start_srpipe, wait_for_stages, wait_until

CLEAN_UP_S = 5.0


@pytest.fixture
def long_job(tmp_path: Path) -> list[str]:
    """Arguments of a run that takes many seconds, and enough tiles for processes."""
    pixels = photograph_pixels(788, 1400).repeat(4, axis=0).repeat(3, axis=1)
    source = write_pixels(tmp_path / "in.tif", pixels)
    return ["enhance", str(source), str(tmp_path / "out.tif"), "-t", "256", "--progress", "json"]


def running(job: list[str]) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
    """The job under way: its first tiles are done."""
    process = start_srpipe(*job)
    stages = wait_for_stages(process.pid)
    assert process.stderr is not None
    while '"running"' not in process.stderr.readline():
        assert process.poll() is None
    return process, stages


def assert_nothing_left(stages: dict[str, psutil.Process], folder: Path) -> None:
    _, alive = psutil.wait_procs(list(stages.values()), timeout=CLEAN_UP_S)
    assert not alive
    assert not any("srpipe" in name for name in shared_memory_names())
    job_folder = folder / "out.tif.srpipe"
    assert {p.name for p in folder.iterdir()} <= {"in.tif", job_folder.name}
    if job_folder.exists():
        assert not list(job_folder.glob("output*"))


@pytest.mark.parametrize("stage", [name for name in STAGE_NAMES if name != "worker 0"])
def test_killed_stage_is_an_error_that_says_so(
    tmp_path: Path, long_job: list[str], stage: str
) -> None:
    process, stages = running(long_job)
    stages[stage].kill()
    begin_s = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - begin_s < CLEAN_UP_S
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert f"the {stage} process was killed by SIGKILL" in last
    assert "Traceback" not in err
    assert_nothing_left(stages, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption(tmp_path: Path, long_job: list[str], number: signal.Signals) -> None:
    process, stages = running(long_job)
    process.send_signal(number)
    begin_s = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - begin_s < CLEAN_UP_S
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "repeat the command to go on" in err
    assert_nothing_left(stages, tmp_path)
    assert (tmp_path / "out.tif.srpipe").is_dir()


def test_killed_parent(tmp_path: Path, long_job: list[str]) -> None:
    process, stages = running(long_job)
    process.kill()
    process.communicate()
    assert_nothing_left(stages, tmp_path)
    assert (tmp_path / "out.tif.srpipe").is_dir()


def test_parent_killed_before_its_stages_are_set_up(tmp_path: Path, long_job: list[str]) -> None:
    process = start_srpipe(*long_job)
    wait_until(lambda: stages_of(process.pid))
    stages = stages_of(process.pid)
    process.kill()
    process.communicate()
    assert_nothing_left(stages, tmp_path)


@pytest.mark.parametrize("stage", ["writer", "worker 0", "accumulator"])
def test_a_stopped_stage_stops_the_rest_and_memory_does_not_grow(
    long_job: list[str], stage: str
) -> None:
    process, stages = running(long_job)
    stages[stage].suspend()
    others = [p for name, p in stages.items() if name != stage]

    def busy_s() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in others)

    def idle() -> bool:
        before = busy_s()
        time.sleep(0.5)
        return busy_s() - before < 0.05

    wait_until(idle, timeout_s=60)
    shared = [p.memory_info().rss for p in others]
    time.sleep(1)
    assert max(b.memory_info().rss - a for a, b in zip(shared, others, strict=True)) < 5e6
    stages[stage].resume()
    wait_until(lambda: not idle())
    process.kill()
    process.communicate()
