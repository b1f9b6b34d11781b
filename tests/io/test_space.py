from __future__ import annotations

import dataclasses
import fcntl
import mmap
import os
from pathlib import Path

import pytest

from srpipe.errors import JobError, OutputError, SpaceError, WriteError
from srpipe.io import job_folder, space
from srpipe.io.job_folder import JobFolder, lock_folder
from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from tests.factories import make_test_plan

FACTS = {"model": "m"}


def open_folder(plan: Plan) -> JobFolder:
    return JobFolder(plan, FACTS, lock_folder(Path(plan.job_dir)))


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 bytes"), (999, "999 bytes"), (64_000_000, "64 MB"), (2.5e12, "2.5 TB")]
)
def test_format_bytes(n: float, text: str) -> None:
    assert space.format_bytes(n) == text


def test_reserved_file_is_really_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    space.reserve_file(str(path), 1 << 20)
    assert path.stat().st_blocks * 512 >= 1 << 20


def test_shared_memory_has_no_name_and_is_shared() -> None:
    descriptor = space.reserve_shared_memory(8192, "/nowhere")
    with mmap.mmap(descriptor, 8192) as one, mmap.mmap(descriptor, 8192) as other:
        one[5000] = 7
        assert other[5000] == 7
    os.close(descriptor)


def test_too_little_memory_says_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(space, "available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(SpaceError, match=r"2 MB \(2000000 bytes\).*1 MB is free"):
        space.reserve_shared_memory(2_000_000, str(tmp_path))


def test_cgroup_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 300000\n")
    assert space._cgroup_room(tmp_path, "memory.max", "memory.current") == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert space._cgroup_room(tmp_path, "memory.max", "memory.current") is None
    assert space.available_memory_bytes() is not None


def test_too_little_disk_is_known_before_the_first_tile(tmp_path: Path) -> None:
    free = space.free_disk_bytes(str(tmp_path))
    side = int((free / 3) ** 0.5)
    plan = make_test_plan(tmp_path, image={"size": Size(side, side)})
    folder = open_folder(plan)
    with pytest.raises(SpaceError, match=r"needs .* bytes\) and has .* bytes\) free"):
        folder.prepare()
    folder.release()
    assert not Path(plan.job_dir).exists()


def test_a_reservation_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="--job-dir"):
        space.reserve_file(str(tmp_path / "a"), 1 << 55)
    assert not list(tmp_path.iterdir())


def test_two_runs_cannot_share_a_job_folder(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path)
    first = open_folder(plan)
    with pytest.raises(JobError, match="is working in"):
        open_folder(plan)
    first.remove()
    first.release()
    open_folder(plan).release()


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path: Path) -> None:
    """Another run may remove the folder between our open and our lock."""
    plan = make_test_plan(tmp_path)
    first = open_folder(plan)
    real_flock, calls = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            first.remove()
            first.release()
        calls.append(descriptor)
        real_flock(descriptor, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        second = open_folder(plan)
    assert len(calls) == 2
    with pytest.raises(JobError, match="is working in"):
        open_folder(plan)
    second.release()


def test_publishing_never_replaces_what_has_appeared(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path)
    folder = open_folder(plan)
    folder.partial_output.write_text("new")
    Path(plan.output.path).write_text("precious")
    with pytest.raises(WriteError, match="the finished file is"):
        folder.publish()
    assert Path(plan.output.path).read_text() == "precious"
    assert folder.partial_output.read_text() == "new"
    folder.release()
    allowed = open_folder(dataclasses.replace(plan, overwrite=True))
    allowed.publish()
    assert Path(plan.output.path).read_text() == "new"
    allowed.release()


def test_output_on_another_disk_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_test_plan(tmp_path)
    monkeypatch.setattr(job_folder, "same_disk", lambda a, b: False)
    rooms = {plan.job_dir: 10**12, str(tmp_path): plan.output_bytes - 1}
    monkeypatch.setattr(job_folder, "free_disk_bytes", lambda folder: rooms[folder])
    folder = open_folder(plan)
    with pytest.raises(SpaceError, match=f"{tmp_path} needs"):
        folder.prepare()
    folder.release()
    rooms[str(tmp_path)] = plan.output_bytes
    folder = open_folder(plan)
    folder.prepare()
    folder.remove()
    folder.release()


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path)
    precious = Path(plan.job_dir, "thesis.txt")
    precious.write_text("years of work")
    with pytest.raises(OutputError, match="no srpipe job"):
        open_folder(plan)
    assert precious.exists()
