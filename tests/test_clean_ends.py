"""However a run ends, no process, shared memory or temporary file of it is left."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import photograph_pixels, write_pixels
from tests.processes import (
    STAGE_NAMES,
    is_running,
    named_memory,
    output_of,
    stages_of,
    start_srpipe,
    wait_for_line,
    wait_for_stages,
    wait_until,
    wait_until_gone,
)


@pytest.fixture
def long_job(tmp_path: Path) -> list[str]:
    """Arguments of a run that takes many seconds, and enough tiles for processes."""
    pixels = photograph_pixels(788, 1400).repeat(4, axis=0).repeat(3, axis=1)
    source = write_pixels(tmp_path / "in.tif", pixels)
    arguments = ["--checkpoint-every", "0.1", "--progress", "json"]
    return ["enhance", str(source), str(tmp_path / "out.tif"), "-t", "256", *arguments]


def running(job: list[str]) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
    """The job under way: its first tiles are done and saved, and no memory of it has a name."""
    process = start_srpipe(*job)
    stages = wait_for_stages(process.pid)
    wait_for_line(process, is_running)
    job_dir = Path(f"{job[2]}.srpipe")
    wait_until(lambda: list(job_dir.glob("checkpoint-?.json")), "a checkpoint")
    assert not named_memory(stages.values())
    return process, stages


def asleep(process: psutil.Process) -> bool:
    """Whether no thread of a process runs, or waits for a processor or a disk."""
    states = [
        path.read_text().rpartition(")")[2].split()[0]
        for path in Path(f"/proc/{process.pid}/task").glob("*/stat")
    ]
    return set(states) == {"S"}


def assert_nothing_left(stages: dict[str, psutil.Process], folder: Path) -> None:
    wait_until_gone(stages.values())
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
    _, err = output_of(process)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert f"the {stage} process was killed by SIGKILL" in last
    assert "Traceback" not in err
    assert_nothing_left(stages, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption(tmp_path: Path, long_job: list[str], number: signal.Signals) -> None:
    process, stages = running(long_job)
    process.send_signal(number)
    _, err = output_of(process)
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
    wait_until(lambda: stages_of(process.pid), "a stage")
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

    def switches() -> list[int]:
        return [sum(p.num_ctx_switches()) for p in others]

    def idle() -> bool:
        """Nothing has run between two looks; what only waits for a processor would run sometime."""
        before = switches()
        time.sleep(1)
        return all(map(asleep, others)) and switches() == before

    wait_until(idle, "the other stages to come to rest")
    before = [p.memory_info().rss for p in others]
    wait_until(idle, "a second of rest")
    assert max(b.memory_info().rss - a for a, b in zip(before, others, strict=True)) < 5e6
    at_rest = switches()
    stages[stage].resume()
    wait_until(lambda: switches() != at_rest, "the other stages to go on")
    process.kill()
    process.communicate()
