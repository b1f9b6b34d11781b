"""Jobs that run by themselves: iterated, awaited, cancelled and gone on with."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import srpipe
from srpipe import jobs
from tests.conftest import photograph_pixels, write_pixels
from tests.processes import PATIENCE_S

SETTINGS = {"tile_size": 48, "overlap": 8}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.tif", photograph_pixels(230, 310))


@pytest.fixture
def expected(tmp_path: Path, source: Path, x2_model: Path) -> bytes:
    output = tmp_path / "expected.tif"
    srpipe.enhance(source, output, model=x2_model, **SETTINGS)
    return output.read_bytes()


def test_events_come_to_the_end(
    tmp_path: Path, source: Path, x2_model: Path, expected: bytes
) -> None:
    job = srpipe.start(source, tmp_path / "out.tif", model=x2_model, **SETTINGS)
    events = list(job)
    assert [events[0].state, events[-1].state] == ["started", "finished"]
    assert events[-1].tiles_done == events[-1].tiles_total == job.result().tiles
    assert not list(job)  # each is given once
    assert job.done
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_a_cancelled_job_goes_on(
    tmp_path: Path, source: Path, x2_model: Path, expected: bytes
) -> None:
    output = tmp_path / "out.tif"
    job = srpipe.start(source, output, model=x2_model, **SETTINGS)
    for event in job:
        if event.tiles_done >= 4:
            job.cancel()
    with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
        job.result()
    assert not output.exists()
    report = srpipe.start(source, output, model=x2_model, **SETTINGS).result()
    assert report.resumed_tiles >= 4
    assert output.read_bytes() == expected


def test_leaving_the_block_cancels(tmp_path: Path, source: Path, x2_model: Path) -> None:
    with srpipe.start(source, tmp_path / "out.tif", model=x2_model, **SETTINGS) as job:
        next(iter(job))
    assert job.done
    with pytest.raises(srpipe.Interrupted):
        job.result()


def test_leaving_the_loop_cancels(
    tmp_path: Path, source: Path, x2_model: Path, expected: bytes
) -> None:
    output = tmp_path / "out.tif"

    async def leave_the_loop() -> srpipe.Job:
        job = srpipe.start(source, output, model=x2_model, **SETTINGS)
        async for event in job:
            if event.tiles_done >= 2:
                break
        return job

    for event in (job := srpipe.start(source, output, model=x2_model, **SETTINGS)):
        if event.tiles_done >= 2:
            break
    with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
        job.result()
    with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
        asyncio.run(leave_the_loop()).result()
    assert srpipe.start(source, output, model=x2_model, **SETTINGS).result().resumed_tiles >= 2
    assert output.read_bytes() == expected


def test_events_that_nobody_takes_do_not_pile_up(
    tmp_path: Path, source: Path, x2_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_MOST_EVENTS", 3)
    job = srpipe.start(source, tmp_path / "out.tif", model=x2_model, **SETTINGS)
    tiles = job.result().tiles
    assert [(event.state, event.tiles_done) for event in job] == [
        ("running", tiles - 1), ("running", tiles), ("finished", tiles),
    ]  # fmt: skip


def test_an_error_ends_it(tmp_path: Path) -> None:
    job = srpipe.start(tmp_path / "missing.tif", tmp_path / "out.tif")
    assert not list(job)
    with pytest.raises(srpipe.InputError, match=r"missing\.tif does not exist"):
        job.result()


def test_asyncio(tmp_path: Path, source: Path, x2_model: Path, expected: bytes) -> None:
    async def run(enhancer: srpipe.Enhancer, output: Path) -> int:
        job = enhancer.start(source, output)
        return len([event async for event in job])

    async def run_all(enhancer: srpipe.Enhancer) -> list[int]:
        return await asyncio.gather(*(run(enhancer, tmp_path / f"{k}.tif") for k in range(3)))

    with srpipe.Enhancer(x2_model, **SETTINGS) as enhancer:
        assert min(asyncio.run(run_all(enhancer))) > 2
    assert all((tmp_path / f"{k}.tif").read_bytes() == expected for k in range(3))


def test_nothing_of_the_process_is_changed(
    tmp_path: Path, source: Path, x2_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def state() -> list[object]:
        logger = logging.getLogger()
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return [
            dict(os.environ), os.getcwd(), signals, logger.handlers[:], logger.level,
            os.umask(0o022), threading.active_count(),
        ]  # fmt: skip

    os.umask(0o022)
    before = state()
    for engine in ("serial", "threads", "local"):
        srpipe.enhance(
            source, tmp_path / "out.tif", model=x2_model, engine=engine, overwrite=True, **SETTINGS
        )
    assert state() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("said", [None, "0"])
def test_the_environment_stays_what_it_was(said: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    if said is not None:
        environment["ORT_DISABLE_TELEMETRY"] = said
    script = """
import os
before = dict(os.environ)
import srpipe.api, srpipe.folders, srpipe.io.session
assert dict(os.environ) == before
"""
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=PATIENCE_S)


POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import srpipe

def run(enhancer, source, output):
    with enhancer:
        enhancer.enhance(source, output)

if __name__ == "__main__":
    model, source, *outputs = sys.argv[1:]
    enhancer = srpipe.Enhancer(model, tile_size=48, overlap=8)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(run, enhancer, source, output) for output in outputs]:
            future.result()
"""


def test_in_a_pool_of_processes(
    tmp_path: Path, source: Path, x2_model: Path, expected: bytes
) -> None:
    """An Enhancer travels as its settings."""
    enhancer = srpipe.Enhancer(x2_model, **SETTINGS)
    assert pickle.loads(pickle.dumps(enhancer)).settings == enhancer.settings
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    outputs = [tmp_path / f"{k}.tif" for k in range(2)]
    subprocess.run(
        [sys.executable, script, x2_model, source, *outputs], check=True, timeout=PATIENCE_S
    )
    assert [output.read_bytes() for output in outputs] == [expected] * 2
