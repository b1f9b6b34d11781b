"""One job, one owner: on one host by the kernel's lock, on others by name and heartbeat."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from srpipe.errors import JobError
from srpipe.io import job_lock
from srpipe.io.job_lock import LOCK_FILE, JobLock, Owner, is_locked, read_owner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "job"


def forge(folder: Path, owner: Owner, silent_s: float) -> None:
    """Leave a lock file as an owner leaves it that was heard of so long ago."""
    folder.mkdir()
    (folder / LOCK_FILE).write_text(json.dumps(dataclasses.asdict(owner)))
    then_s = time.time() - silent_s
    os.utime(folder / LOCK_FILE, (then_s, then_s))


def test_the_owner_is_known_while_it_holds_the_lock(folder: Path) -> None:
    lock = JobLock(folder)
    owner = read_owner(folder)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert is_locked(folder)
    lock.release()
    assert not is_locked(folder)
    assert read_owner(folder) is None


def test_another_host_that_was_heard_of_lately_is_respected(folder: Path) -> None:
    """Its file system may not have passed the lock on to us."""
    forge(folder, Owner("elsewhere", "another kernel", 42), silent_s=20)
    with pytest.raises(JobError, match=r"process 42 on elsewhere worked in .* \d+ seconds ago"):
        JobLock(folder)
    assert not is_locked(folder)
    assert read_owner(folder) is not None


def test_another_host_that_fell_silent_is_dead(folder: Path) -> None:
    forge(folder, Owner("elsewhere", "another kernel", 42), silent_s=61)
    JobLock(folder).release()


def test_a_dead_owner_on_this_host_does_not_count(folder: Path) -> None:
    forge(folder, dataclasses.replace(job_lock._myself(), pid=2**22 + 1), silent_s=0)
    JobLock(folder).release()


def test_the_heartbeat_is_the_files_time(folder: Path) -> None:
    lock = JobLock(folder)
    begin_s = (folder / LOCK_FILE).stat().st_mtime
    os.utime(folder / LOCK_FILE, (0, 0))
    lock.beat()
    assert (folder / LOCK_FILE).stat().st_mtime >= begin_s
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b'{"host": 1}', b"\xff\x00"])
def test_a_damaged_lock_file_holds_nobody_up(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / LOCK_FILE).write_bytes(content)
    JobLock(folder).release()


def test_somebody_who_only_looks_does_not_keep_an_owner_out(folder: Path) -> None:
    folder.mkdir()
    descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looker = threading.Timer(0.2, os.close, [descriptor])
    looker.start()
    JobLock(folder).release()
    looker.join()
