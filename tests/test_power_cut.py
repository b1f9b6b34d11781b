"""Every crash point of a small job, and a disk that loses its power: right bytes or a clear error."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srpipe.api import prepare, run_job
from srpipe.errors import SrpipeError
from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.job_folder import read_plan
from srpipe.plan.fingerprint import digest
from srpipe.plan.job import Plan
from srpipe.runtime.events import ProgressEvent
from srpipe.settings import Settings
from srpipe.stop import StopRequest
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.simulated_disk import PowerCut, SimulatedDisk


class SmallJob:
    """Twelve tiles in four rows, a checkpoint after each, run in this process."""

    def __init__(self, folder: Path, overlap: int = 8) -> None:
        self.scratch = folder / "scratch"
        self.folder = folder / "work"
        self.folder.mkdir()
        source = write_pixels(folder / "in.tif", photograph_pixels(116, 90))
        settings = Settings(
            model=str(conv_model(folder / "x1.onnx", scale=1, features=2)),
            tile_size=36, overlap=overlap, engine="serial", checkpoint_every_s=0,
        )  # fmt: skip
        self.output = self.folder / "out.tif"
        self.plan = prepare(str(source), str(self.output), settings)
        self.job_dir = Path(self.plan.job_dir)
        assert (self.plan.grid.x.n_tiles, self.plan.grid.y.n_tiles) == (3, 4)
        self.run()
        self.expected = self.output.read_bytes()
        self.clear()

    def run(self, plan: Plan | None = None) -> int:
        """Run to the end; returns the tile it began with."""
        first = []

        def note(event: ProgressEvent) -> None:
            if event.state == "started":
                first.append(event.tiles_done)

        run_job(plan or self.plan, note, time.monotonic(), StopRequest())
        return first[0]

    def run_until_cut(self, cut_at: int | None) -> SimulatedDisk:
        """Run on a simulated disk, until the power goes if it does."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        simulated = SimulatedDisk(
            [self.job_dir, self.folder], self.scratch, self.saved_tiles, cut_at
        )
        with pytest.MonkeyPatch.context() as patch:
            simulated.install(patch)
            try:
                self.run()
            except PowerCut:
                pass
        return simulated

    def saved_tiles(self) -> int:
        """What the last checkpoint on the disk speaks of."""
        try:
            job = digest(read_plan(self.job_dir))
        except (OSError, ValueError):
            return 0
        return max((c.next_tile for c in load_checkpoints(self.job_dir, job)), default=0)

    @property
    def done(self) -> bool:
        """Whether the output is there, and nothing that takes it for this job's any more."""
        return self.output.exists() and not (self.job_dir / "finished.json").exists()

    def assert_done(self) -> None:
        assert self.output.read_bytes() == self.expected
        assert sorted(p.name for p in self.folder.iterdir()) == ["out.tif"]

    def clear(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    return SmallJob(tmp_path)


def test_the_order_of_operations(job: SmallJob) -> None:
    """Pixels, seams, checkpoint, name, folder; the output is synced before it has its name."""
    points = job.run_until_cut(None).points
    job.assert_done()
    done = [point.removeprefix("after ") for point in points if point.startswith("after ")]
    checkpoints = 0
    for i, operation in enumerate(done):
        if operation.startswith("write_file checkpoint-"):
            new = operation.removeprefix("write_file ")
            assert new == f"checkpoint-{checkpoints % 2}.json.new"
            assert done[i - 2 : i + 4] == [
                "flush_map pixels.raw",
                "flush_map seams.raw",
                operation,
                f"sync_file {new}",
                f"rename {new}",
                "sync_folder out.tif.srpipe",
            ]
            checkpoints += 1
    assert checkpoints == job.plan.grid.n_tiles
    order = [
        "sync_file pixels.raw", "sync_file seams.raw", "rename plan.json.new",
        "flush_map pixels.raw", "sync_file output.part.tif", "rename finished.json.new",
        "link output.part.tif", "sync_folder work", "remove pixels.raw", "remove finished.json",
    ]  # fmt: skip
    last = {operation: i for i, operation in enumerate(done)}
    first = {operation: i for i, operation in reversed(list(enumerate(done)))}
    assert first["sync_folder out.tif.srpipe"] < first["flush_map pixels.raw"]
    positions = [last[o] if o.startswith(("remove", "sync_folder")) else first[o] for o in order]
    assert positions == sorted(positions)


def crash_points(n: int, stride: int) -> Iterator[int]:
    yield from range(0, n, stride)


@pytest.mark.parametrize("overlap", [8, 0])
def test_every_crash_point(tmp_path: Path, overlap: int) -> None:
    """As a kill leaves the disk: with everything that was written."""
    job = SmallJob(tmp_path, overlap)
    n = len(job.run_until_cut(None).points)
    job.assert_done()
    assert n > 150
    chance = random.Random(1)
    # Without seams, a few points tell what all do.
    for point in range(0, n, 1 if overlap else 7):
        job.clear()
        job.run_until_cut(point)
        saved = job.saved_tiles()
        if point % 3 == 0 and not job.done:  # and once more on the way
            job.run_until_cut(chance.randrange(n))
            saved = max(saved, job.saved_tiles())
        assert not job.output.exists() or job.output.read_bytes() == job.expected
        if job.done:
            continue
        assert job.run() >= saved
        job.assert_done()


def lose_power_and_go_on(job: SmallJob, seed: int, points: int, outcomes: Counter[str]) -> None:
    chance = random.Random(seed)
    garbage = chance.random() < 0.3
    promised = 0
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if job.done:
            break
        simulated = job.run_until_cut(chance.randrange(points))
        if not simulated.dead:
            break
        promised = max(promised, simulated.promised_tiles)
        simulated.lose_power(chance, garbage=garbage)
        whole = not job.output.exists() or job.output.read_bytes() == job.expected
        assert whole, f"seed {seed}: an output that is not whole"
    if job.done:
        outcomes["done before"] += 1
        return
    try:
        first = job.run()
    except SrpipeError as error:
        assert "--fresh" in str(error), f"seed {seed}: {error}"
        outcomes["clear error"] += 1
        first = job.run(replace(job.plan, fresh=True))
    else:
        if not garbage:
            assert first >= promised, f"seed {seed}: tile {first} of {promised} promised"
        outcomes["resumed" if first else "began again"] += 1
    assert job.output.read_bytes() == job.expected, f"seed {seed}: wrong bytes"


def test_power_cuts(job: SmallJob, cuts: int = 150) -> None:
    points = len(job.run_until_cut(None).points)
    outcomes: Counter[str] = Counter()
    for seed in range(cuts):
        job.clear()
        lose_power_and_go_on(job, seed, points, outcomes)
    assert outcomes["resumed"] > cuts // 3
    assert outcomes["clear error"] < cuts // 10
