"""What a job folder holds, told without touching it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from srpipe.errors import InputError
from srpipe.io.checkpoint import CHECKPOINT_FILES, load_checkpoints
from srpipe.io.job_lock import LOCK_FILE, Owner, has_owner_elsewhere, is_locked, read_owner
from srpipe.io.job_place import job_place
from srpipe.io.job_record import (
    FINISHED_FILE,
    PLAN_FILE,
    is_finished_output,
    read_plan,
    read_record,
)
from srpipe.io.slabs_folder import read_done, tiles_done
from srpipe.plan.fingerprint import Fingerprint, digest
from srpipe.plan.plain import rebuild
from srpipe.plan.slabs import Slab, slab_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabStatus:
    """One slab of a job in slabs."""

    number: int
    """From 1 on."""
    top: int
    """Its first row, input pixels."""
    height: int
    state: Literal["waiting", "running", "interrupted", "done"]
    owner: Owner | None
    """Who works on it, if that can be told here."""
    tiles_done: int
    """As of its last checkpoint."""
    tiles_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One job folder."""

    folder: str
    state: Literal["running", "interrupted", "finished", "damaged"]
    """interrupted: the same request goes on; finished: it only tidies up; damaged: start over."""
    owner: Owner | None
    """Who works there, if somebody does."""
    tiles_done: int
    """As of the last checkpoint."""
    tiles_total: int
    checkpoint_age_s: float | None
    """Since the last checkpoint; None without one."""
    folder_bytes: int
    """Disk space the folder takes."""
    job: Fingerprint
    """What decides the result: a request that differs in any of it starts another job."""
    slabs: tuple[SlabStatus, ...] = ()
    """Of a job in slabs."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def read_job_status(output: str, job_dir: str | None = None) -> JobStatus:
    """Find out about the job that writes, or wrote, ``output``.

    Args:
        output: as it was given to the job, a path or a URL; options in brackets do not matter.
        job_dir: the job's folder; None: ``output`` + ``.srpipe``, or in the user's cache.

    Raises:
        InputError: there is no job.
        OutputError: ``output`` has no ending that srpipe writes.
    """
    place = job_place(output, job_dir)
    folder, path = place.folder, os.fspath(place.output)
    if not (folder / LOCK_FILE).exists():
        done = " It is there: its job is done, or was another's." if os.path.exists(path) else ""
        raise InputError(f"there is no job for {place.shown} in {folder}.{done}")
    running = is_locked(folder)
    damaged = False
    facts: Fingerprint = {}
    columns = rows = 0
    try:
        facts = read_plan(folder)
        columns, rows = map(int, facts["tiles"].split("x"))
    except (ValueError, KeyError):
        damaged = True
    except OSError:
        pass  # a job that has not begun yet, or is being tidied up
    slabs = _read_slabs(folder)
    found = list(load_checkpoints(folder, digest(facts)))
    tiles_done, tiles_total = max((c.next_tile for c in found), default=0), columns * rows
    if slabs:
        running = running or any(slab.state == "running" for slab in slabs)
        tiles_done = sum(slab.tiles_done for slab in slabs)
        tiles_total = sum(slab.tiles_total for slab in slabs)
    finished = (folder / FINISHED_FILE).exists() and (
        is_finished_output(folder, path) or not (folder / PLAN_FILE).exists()
    )
    interrupted: Literal["damaged", "finished", "interrupted"] = (
        "damaged" if damaged else "finished" if finished else "interrupted"
    )
    return JobStatus(
        folder=os.fspath(folder),
        state="running" if running else interrupted,
        owner=read_owner(folder) if running else None,
        tiles_done=tiles_done,
        tiles_total=tiles_total,
        checkpoint_age_s=_checkpoint_age_s(folder) if found else None,
        folder_bytes=_folder_bytes(folder),
        job=facts,
        slabs=slabs,
    )


def _read_slabs(folder: Path) -> tuple[SlabStatus, ...]:
    try:
        record = read_record(folder)
        frame = record["plan"]["frame"]
        top_px = int(frame["top"] + frame["crop"]["top"])
        slabs = [rebuild(Slab, slab) for slab in record["slabs"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ()
    job = digest(record["facts"])
    return tuple(_read_slab(folder, slab, top_px, job) for slab in slabs)


def _read_slab(folder: Path, slab: Slab, top_px: int, job: str) -> SlabStatus:
    index, own = slab.index, folder / slab_name(slab.index)
    tiles = tiles_done(folder, index, job)
    state: Literal["waiting", "running", "interrupted", "done"] = "waiting"
    if read_done(folder, index, job) is not None:
        state = "done"
    elif is_locked(own) or has_owner_elsewhere(own):
        state = "running"
    elif own.is_dir():
        state = "interrupted"
    return SlabStatus(
        number=index + 1,
        top=top_px + slab.top_px,
        height=slab.height_px,
        state=state,
        owner=read_owner(own) if state == "running" else None,
        tiles_done=tiles,
        tiles_total=slab.n_tiles,
    )


def _checkpoint_age_s(folder: Path) -> float | None:
    try:
        times = [(folder / name).lstat().st_mtime for name in CHECKPOINT_FILES]
    except OSError:  # the job ends meanwhile
        return None
    return time.time() - max(times)


def _folder_bytes(folder: Path) -> int:
    # Blocks, not lengths: what the reserved files really take.
    total = 0
    for entry in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the job goes on meanwhile
            total += entry.lstat().st_blocks * 512
    return total
