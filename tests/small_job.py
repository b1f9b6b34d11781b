"""A job small enough to be interrupted at every point there is."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srpipe.api import prepare
from srpipe.errors import JobError, OutputError
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
        source = write_pixels(folder / "in.tif", photograph_pixels(112, 86))
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
        records = [self.job_dir / name for name in ("plan.json", "finished.json")]
        return self.output.exists() and not any(record.exists() for record in records)

    def assert_done(self) -> None:
        assert self.output.read_bytes() == self.expected
        assert sorted(p.name for p in self.folder.iterdir()) == ["out.tif"]

    def clear(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()


_NUMBER = re.compile(rb"(?<=[ \[])\d+")
_RECORDS = ("plan.json", "finished.json", "checkpoint-0.json", "checkpoint-1.json")


def changed_numbers(record: bytes) -> Iterator[bytes]:
    """A record with one of its numbers changed, which stays JSON: each number in turn."""
    for match in _NUMBER.finditer(record):
        begin = match.start()
        digit = b"1" if match[0][:1] != b"1" else b"2"
        yield record[:begin] + digit + record[begin + 1 :]


def decay(job_dir: Path, chance: random.Random) -> set[str]:
    """Damage what was synced long ago, as a failing disk does: numbers of records, seams, pixels.

    Returns:
        The records.
    """
    records = [job_dir / name for name in _RECORDS if (job_dir / name).exists()]
    changed = set()
    for record in records:
        damaged = list(changed_numbers(record.read_bytes()))
        if damaged and chance.random() < 0.7:
            record.write_bytes(chance.choice(damaged))
            changed.add(record.name)
    for canvas in (job_dir / "seams.raw", job_dir / "pixels.raw"):
        if canvas.exists() and chance.random() < 0.4:
            data = bytearray(canvas.read_bytes())
            for at in chance.sample(range(len(data)), len(data) // 500):
                data[at] ^= 0x10
            canvas.write_bytes(data)
    return changed


def lose_power_and_go_on(job: SmallJob, seed: int, points: int, outcomes: Counter[str]) -> None:
    """Cut the power now and then at random, then let the job end, and check it.

    Some disks also write garbage where they are cut off, and some damage what they have long had.
    """
    chance = random.Random(seed)
    kind = chance.choices(["", "garbage", "decay"], [5, 3, 2])[0]
    garbage = kind == "garbage"
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
    damaged = decay(job.job_dir, chance) if kind == "decay" else set()
    try:
        first = job.run()
    except (JobError, OutputError) as error:
        # A record of the whole output that is damaged leaves a file that might be anybody's.
        expected = {
            "": "nothing: synced data is whole",
            "garbage": "--fresh",
            "decay": "is damaged.*--fresh" if "plan.json" in damaged else "--fresh|--overwrite",
        }
        if not re.search(expected[kind], str(error)):
            raise
        outcomes["clear error"] += 1
        first = job.run(replace(job.plan, fresh=True, overwrite=True))
    else:
        if not kind:
            assert first >= promised, f"seed {seed}: tile {first} of {promised} promised"
        outcomes["resumed" if first else "began again"] += 1
    assert job.output.read_bytes() == job.expected, f"seed {seed}: wrong bytes"
