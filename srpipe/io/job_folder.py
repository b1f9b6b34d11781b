"""A job's folder on disk: what it holds, whether a job can go on there, the output's way into place.

srpipe.lock                 who works here
plan.json                   what the job is; written after the space is taken
pixels.raw, seams.raw       the canvas
checkpoint-0.json, -1.json  how far it is, in turn; their room is taken with the canvas
output.part.tif             the output while it is encoded, always from its first row
input.json                  hash of all of a large input, once it is known
finished.json               which file is the whole output; written before that is put in place
stages.log                  what the processes had to say
remote/                     copies of what is behind URLs (io/staging.py)
slab-0001/, slab-0001.*     a slab's own job folder, and the part of the output that it gives (slabs/)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srpipe.errors import JobError, OutputError, SpaceError, WriteError
from srpipe.io import disk
from srpipe.io.canvas_files import PIXELS_FILE, SEAMS_FILE, CanvasFiles, reserve_canvas
from srpipe.io.checkpoint import CHECKPOINT_FILES, Checkpoint, load_checkpoints
from srpipe.io.identity import CONTENT_FILE, has_recorded_content
from srpipe.io.job_lock import LOCK_FILE, JobLock, has_owner_elsewhere, is_locked
from srpipe.io.job_record import (
    FINISHED_FILE,
    PLAN_FILE,
    is_finished_output,
    read_plan,
    write_record,
)
from srpipe.io.output_place import identity, put_in_place, refuse_existing, remove_output
from srpipe.io.space import format_bytes, free_disk_bytes, same_disk
from srpipe.plan.fingerprint import INPUT_TIME, Fingerprint, differences, digest
from srpipe.plan.job import Plan

logger = logging.getLogger(__name__)

LOG_FILE = "stages.log"
REMOTE_FOLDER = "remote"
SLABS_FACT = "slabs"
SLAB_NAME = re.compile(r"slab-\d{4}(\.(tif|zarr|raw|raw\.json|json|json\.new|stop)(\.old)?)?")


class JobFolder:
    """The folder of one job, locked for as long as this object holds it."""

    def __init__(self, plan: Plan, facts: Fingerprint, lock: JobLock) -> None:
        """Take over the folder.

        Args:
            plan: the job.
            facts: its fingerprint.
            lock: of the folder; it is released with the job.
        """
        self._plan = plan
        self._facts = facts
        self._digest = digest(facts)
        self._lock = lock
        self.path = Path(plan.job_dir)
        beside = Path(plan.output.path).parent
        suffix = Path(plan.output.path).suffix.lower()
        if same_disk(os.fspath(self.path), os.fspath(beside)):
            self.partial_output = self.path / f"output.part{suffix}"
        else:
            self.partial_output = beside / f".{Path(plan.output.path).name}.part{suffix}"

    @property
    def lock_descriptor(self) -> int:
        """To be inherited by the processes of the job."""
        return self._lock.descriptor

    @property
    def log_path(self) -> Path:
        """Where the processes of the job say what they have to say."""
        return self.path / LOG_FILE

    def prepare(self) -> Checkpoint | None:
        """Find out how far the job is; start over where there is none, or it is asked for.

        Returns:
            What the canvas holds; None if the whole output is there and only has to be published.

        Raises:
            JobError: the folder holds another job, or cannot be made sense of.
            SpaceError: too little room for pixels, seams and the output; says how much is missing.
            OutputError: the folder cannot be written to, or the output is there already.
        """
        try:
            if self._finished and not self._plan.fresh:
                return None
            if not self._plan.overwrite:
                refuse_existing(self._plan.output.path)
            if not self._plan.fresh and (self.path / PLAN_FILE).exists():
                self._check_same_job()
                self._remove_partial()
                found = self._last_good_state()
                if found:
                    self._check_space(going_on=True)
                    return found
            return self._start_over()
        except (SpaceError, OutputError):
            if not (self.path / PLAN_FILE).exists():
                self.remove()
            raise
        except OSError as error:
            raise _unusable(self.path, error) from None

    def _check_same_job(self) -> None:
        try:
            facts = read_plan(self.path)
        except ValueError:
            raise JobError(
                f"{self.path / PLAN_FILE} is damaged: the job cannot go on; start over with --fresh."
            ) from None
        changed = differences(facts, self._facts)
        if len(changed) == 1 and facts.get(INPUT_TIME) != self._facts.get(INPUT_TIME):
            image = self._plan.image
            if has_recorded_content(image.path, image.identity, self.path):
                self._facts = self._facts | {INPUT_TIME: facts[INPUT_TIME]}
                self._digest = digest(self._facts)
                return
        if len(changed) == 1 and facts.get(SLABS_FACT) != self._facts.get(SLABS_FACT):
            raise JobError(_other_slabs(self.path, facts.get(SLABS_FACT)))
        if changed:
            raise JobError(
                f"{self.path} holds another job ({'; '.join(changed)}): repeat the earlier command "
                "to go on with it, or start over with --fresh."
            )

    def _last_good_state(self) -> Checkpoint | None:
        checkpoints = list(load_checkpoints(self.path, self._digest))
        states = [s for checkpoint in checkpoints for s in (checkpoint, checkpoint.at_row_start())]
        try:
            files = CanvasFiles(self._plan, writable=False)
            found = next((state for state in states if files.agrees_with(state)), None)
        except (OSError, ValueError):
            found = None
        if checkpoints and found != checkpoints[0]:
            where = f"goes on at tile {found.next_tile}" if found else "starts over"
            logger.warning("Files in %s are damaged: the job %s.", self.path, where)
        return found

    def _start_over(self) -> Checkpoint:
        self._remove_work()
        disk.remove(self.path / FINISHED_FILE)
        self._check_space(going_on=False)
        self._reserve()
        record = {"facts": self._facts, "plan": asdict(self._plan)} | self._more_facts()
        write_record(self.path, record)
        disk.sync_folder(self.path.parent)
        return Checkpoint(job=self._digest, next_tile=0, stored_px=0)

    def _check_space(self, *, going_on: bool) -> None:
        check_space(self._plan, reserved=going_on)

    def _reserve(self) -> None:
        reserve_canvas(self._plan)

    def _more_facts(self) -> dict[str, Any]:
        """What else the record of the plan holds."""
        return {}

    def _remove_partial(self) -> None:
        """Remove what a writer that was killed has left."""
        remove_output(self.partial_output)

    @property
    def _finished(self) -> bool:
        """Whether the whole output of this very job is there, in its place or on its way."""
        places = (self._plan.output.path, os.fspath(self.partial_output))
        return any(is_finished_output(self.path, place, self._digest) for place in places)

    def publish(self) -> None:
        """Put the finished output in place, whole and for good.

        Raises:
            WriteError: it cannot be put there, or, without ``overwrite``, something has appeared
                there; the finished file stays where it is.
        """
        output = Path(self._plan.output.path)
        try:
            if not self._finished:
                if not self.partial_output.exists():
                    raise WriteError(
                        f"{self.partial_output}, the finished file, has been removed: repeat the "
                        "command, and leave the job folder alone."
                    )
                record = {"job": self._digest} | identity(os.fspath(self.partial_output))
                disk.replace_file(self.path / FINISHED_FILE, json.dumps(record).encode())
            if self.partial_output.exists():
                put_in_place(self.partial_output, output, replace=self._plan.overwrite)
            disk.sync_folder(output.parent)
        except OSError as error:
            raise WriteError(
                f"{output} cannot be put in place ({error.strerror}): the finished file is "
                f"{self.partial_output}; move it by hand."
            ) from None

    def keep_or_remove(self) -> int:
        """Leave an ended job's folder as it is if there is something to go on with.

        Returns:
            Tiles that need not be computed again; 0: the folder is gone.
        """
        found = load_checkpoints(self.path, self._digest)
        tiles = max((checkpoint.next_tile for checkpoint in found), default=0)
        with contextlib.suppress(OSError):  # what has ended the job is the error to tell of
            if not tiles:
                self.remove()
            else:
                self._remove_partial()
        return tiles

    def beat(self) -> None:
        """Show other hosts that the job is being worked on."""
        self._lock.beat()

    def remove(self) -> None:
        """Remove the job's files, and the folder if nothing else is in it."""
        self._remove_work()
        # Last of all what says that the output is whole.
        for name in (LOCK_FILE, FINISHED_FILE):
            disk.remove(self.path / name)
        with contextlib.suppress(OSError):  # somebody else's files may be in it
            self.path.rmdir()

    def remove_if_possible(self) -> None:
        """Remove the job's files when its output is in place; a warning if they stay."""
        try:
            self.remove()
        except OSError as error:
            logger.warning(
                "%s is whole, but the job folder %s cannot be removed (%s): remove it by hand.",
                self._plan.output.path,
                self.path,
                error.strerror,
            )

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.release()

    def _remove_work(self) -> None:
        _remove_slabs(self.path)  # while the plan still says whose they are
        for name in (PLAN_FILE, f"{PLAN_FILE}.new", *CHECKPOINT_FILES):
            disk.remove(self.path / name)
        # No plan or checkpoint may come back after a power cut and speak of another canvas.
        disk.sync_folder(self.path)
        for name in (PIXELS_FILE, SEAMS_FILE):
            disk.remove(self.path / name)
        remove_output(self.partial_output)
        for name in (f"{FINISHED_FILE}.new", LOG_FILE, CONTENT_FILE, f"{CONTENT_FILE}.new"):
            disk.remove(self.path / name)


def _other_slabs(folder: Path, count: str | None) -> str:
    if count is None:
        return (
            f"{folder} holds this job in one piece: go on with it as it was begun, or remove the "
            "folder to begin it in slabs."
        )
    return (
        f"{folder} holds this job in {count} slabs: go on with them, by --slab K/{count} or by "
        "--engine ray, or remove the folder to begin otherwise."
    )


def lock_folder(folder: Path, patience_s: float = 0.0) -> JobLock:
    """Make or take over a job folder, and lock it.

    Args:
        folder: of a job.
        patience_s: how long to wait for one that another process has, or had.

    Raises:
        OutputError: it holds something else or cannot be made.
        JobError: another process works in it.
    """
    try:
        _check_content(folder)
        return JobLock(folder, patience_s)
    except OSError as error:
        raise _unusable(folder, error) from None


def _check_content(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is no folder: choose another with --job-dir.")
    if (folder / LOCK_FILE).exists() or not folder.is_dir():
        return
    # A power cut may have taken the lock file alone.
    known = {PIXELS_FILE, SEAMS_FILE, PLAN_FILE, f"{PLAN_FILE}.new", LOG_FILE, FINISHED_FILE}
    known |= {REMOTE_FOLDER, CONTENT_FILE, *CHECKPOINT_FILES}
    names = {entry.name for entry in folder.iterdir()}
    if names & {PLAN_FILE, FINISHED_FILE}:
        names = {name for name in names if not SLAB_NAME.fullmatch(name)}
    if not names <= known:
        raise OutputError(
            f"{folder} holds files that are no srpipe job: choose another with --job-dir."
        )


def _remove_slabs(folder: Path) -> None:
    """Remove what slabs have left, but for those that are being worked on."""
    for entry in folder.iterdir():
        at_work = is_locked(entry) or has_owner_elsewhere(entry)
        if SLAB_NAME.fullmatch(entry.name) and not at_work:
            disk.remove(entry)


def _unusable(folder: Path, error: OSError) -> OutputError:
    name = os.path.basename(error.filename or "")
    what = f"{name}: {error.strerror}" if name not in ("", folder.name) else error.strerror
    return OutputError(
        f"the job folder {folder} cannot be used ({what}): choose another with --job-dir."
    )


def check_space(plan: Plan, *, reserved: bool = False) -> None:
    """See whether the disks have room for a job.

    Args:
        plan: the job.
        reserved: its pixels and seams have their room already.

    Raises:
        SpaceError: too little; says how much.
    """
    job_bytes = 0 if reserved else plan.pixels_bytes + plan.seam_shapes.n_bytes
    beside = os.fspath(Path(plan.output.path).parent)
    # Before the folder is made, where it will be.
    folders = (plan.job_dir, *map(os.fspath, Path(plan.job_dir).parents))
    folder = next(filter(os.path.isdir, folders), beside)
    places = {folder: job_bytes}
    if same_disk(beside, folder):
        places[folder] += plan.output_bytes
    else:
        places[beside] = plan.output_bytes
    for place, needed in places.items():
        free = free_disk_bytes(place)
        if needed > free:
            raise SpaceError(
                f"{place} needs {format_bytes(needed)} ({needed} bytes) and has "
                f"{format_bytes(free)} ({free} bytes) free: make room, write elsewhere, or put "
                "the job's files on another disk with --job-dir."
            )
