"""A job small enough to be interrupted at every point there is."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from srpipe.api import prepare
from srpipe.errors import SrpipeError
from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.job_record import read_plan
from srpipe.plan.fingerprint import digest
from srpipe.plan.job import Plan
from srpipe.run import run_job
from srpipe.runtime.events import ProgressEvent
from srpipe.settings import Settings
from srpipe.stop import StopRequest
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.simulated_disk import PowerCut, SimulatedDisk


class SmallJob:
    """Twelve tiles in four rows, a checkpoint after each, run in this process."""

    def __init__(self, folder: Path, overlap: int = 8, *, checkpoint_every_s: float = 0) -> None:
        self.scratch = folder / "scratch"
        self.folder = folder / "work"
        self.folder.mkdir()
        source = write_pixels(folder / "in.tif", photograph_pixels(116, 90))
        settings = Settings(
            model=str(conv_model(folder / "x1.onnx", scale=1, features=2)),
            tile_size=36, overlap=overlap, engine="serial", checkpoint_every_s=checkpoint_every_s,
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
            with contextlib.suppress(PowerCut):
                self.run()
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


def lose_power_and_go_on(job: SmallJob, seed: int, points: int, outcomes: Counter[str]) -> None:
    """Cut the power now and then at random, then let the job end, and check it."""
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
        if "--fresh" not in str(error):
            raise
        outcomes["clear error"] += 1
        first = job.run(replace(job.plan, fresh=True))
    else:
        if not garbage:
            assert first >= promised, f"seed {seed}: tile {first} of {promised} promised"
        outcomes["resumed" if first else "began again"] += 1
    assert job.output.read_bytes() == job.expected, f"seed {seed}: wrong bytes"
