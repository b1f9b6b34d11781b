"""Every crash point of a small job, and a disk that loses its power: right bytes or a clear error."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.job_record import is_finished_output, read_plan
from srpipe.plan.fingerprint import digest
from tests.small_job import SmallJob, changed_numbers, lose_power_and_go_on


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    return SmallJob(tmp_path)


def test_the_order_of_operations(job: SmallJob) -> None:
    """Pixels, seams, checkpoint; the output is synced before it has its name."""
    points = job.run_until_cut(None).points
    job.assert_done()
    done = [point.removeprefix("after ") for point in points if point.startswith("after ")]
    checkpoints = 0
    for i, operation in enumerate(done):
        if operation.startswith("overwrite_file checkpoint-"):
            name = operation.removeprefix("overwrite_file ")
            assert name == f"checkpoint-{checkpoints % 2}.json"
            assert done[i - 2 : i + 2] == [
                "flush_map pixels.raw",
                "flush_map seams.raw",
                operation,
                f"sync_file {name}",
            ]
            checkpoints += 1
    assert checkpoints == job.plan.grid.n_tiles
    order = [
        "sync_file pixels.raw", "sync_file seams.raw", "sync_file checkpoint-0.json",
        "sync_file checkpoint-1.json", "rename plan.json.new",
        "flush_map pixels.raw", "sync_file output.part.tif", "rename finished.json.new",
        "link output.part.tif", "sync_folder work", "remove pixels.raw", "remove finished.json",
    ]  # fmt: skip
    last = {operation: i for i, operation in enumerate(done)}
    first = {operation: i for i, operation in reversed(list(enumerate(done)))}
    assert first["sync_folder out.tif.srpipe"] < first["flush_map pixels.raw"]
    positions = [last[o] if o.startswith(("remove", "sync_folder")) else first[o] for o in order]
    assert positions == sorted(positions)


@pytest.mark.parametrize("overlap", [8, 0])
def test_every_crash_point(tmp_path: Path, overlap: int) -> None:
    """As a kill leaves the disk: with everything that was written."""
    job = SmallJob(tmp_path, overlap)
    n = len(job.run_until_cut(None).points)
    job.assert_done()
    assert n > 150
    chance = random.Random(1)
    # Without seams, a few points tell what all do; the long form cuts at every one.
    for point in range(0, n, 3 if overlap else 7):
        job.clear()
        job.run_until_cut(point)
        saved = job.saved_tiles()
        if point % 2 == 0 and not job.done:  # and once more on the way
            job.run_until_cut(chance.randrange(n))
            saved = max(saved, job.saved_tiles())
        assert not job.output.exists() or job.output.read_bytes() == job.expected
        if job.done:
            continue
        assert job.run() >= saved
        job.assert_done()


def test_power_cuts(job: SmallJob) -> None:
    cuts = 60
    points = len(job.run_until_cut(None).points)
    outcomes: Counter[str] = Counter()
    for seed in range(cuts):
        job.clear()
        lose_power_and_go_on(job, seed, points, outcomes)
    assert outcomes["resumed"] > cuts // 3
    assert outcomes["clear error"] < cuts // 5


def test_no_number_of_a_record_changes_unseen(job: SmallJob) -> None:
    """Whatever may stand there instead: the job begins elsewhere, or it is refused."""
    points = job.run_until_cut(None).points
    job.clear()
    job.run_until_cut(points.index("after rename finished.json.new"))
    facts = read_plan(job.job_dir)
    for number in range(2):
        path = job.job_dir / f"checkpoint-{number}.json"
        whole = path.read_bytes()
        damaged = list(changed_numbers(whole))
        assert len(damaged) > 5
        before = set(load_checkpoints(job.job_dir, digest(facts)))
        for content in damaged:
            path.write_bytes(content)
            assert set(load_checkpoints(job.job_dir, digest(facts))) < before
        path.write_bytes(whole)
    plan = job.job_dir / "plan.json"
    damaged = list(changed_numbers(plan.read_bytes()))
    assert len(damaged) > 20
    for content in damaged:
        plan.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            read_plan(job.job_dir)
    finished = job.job_dir / "finished.json"
    (place,) = job.job_dir.glob("output.part*")
    assert is_finished_output(job.job_dir, str(place))
    for content in changed_numbers(finished.read_bytes()):
        finished.write_bytes(content)
        assert not is_finished_output(job.job_dir, str(place))


def test_a_job_too_short_for_a_checkpoint(tmp_path: Path) -> None:
    """It is done or begins again, whatever comes between; no checkpoint costs it anything."""
    job = SmallJob(tmp_path, checkpoint_every_s=100)
    points = job.run_until_cut(None).points
    job.assert_done()
    assert not [point for point in points if "overwrite_file checkpoint" in point]
    for point in range(0, len(points), 7):
        job.clear()
        job.run_until_cut(point)
        assert not job.output.exists() or job.output.read_bytes() == job.expected
        if not job.done:
            job.run()
            job.assert_done()
    outcomes: Counter[str] = Counter()
    for seed in range(20):
        job.clear()
        lose_power_and_go_on(job, seed, len(points), outcomes)
    assert outcomes["began again"] > 5
    assert outcomes["clear error"] < 5
