"""A job's folder on disk: what it holds, whether a job can go on there, the output's way into place.

srpipe.lock                 who works here
plan.json                   what the job is; written after the space is taken
pixels.raw, seams.raw       the canvas
checkpoint-0.json, -1.json  how far it is, in turn
output.part.tif             the output while it is encoded, always from its first row
finished.json               which file is the whole output; written before that is put in place
stages.log                  what the processes had to say
remote/                     copies of what is behind URLs (io/staging.py)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srpipe.errors import JobError, OutputError, SpaceError, WriteError
from srpipe.io import disk
from srpipe.io.canvas_files import PIXELS_FILE, SEAMS_FILE, CanvasFiles, reserve_canvas
from srpipe.io.checkpoint import CHECKPOINT_FILES, Checkpoint, load_checkpoints
from srpipe.io.job_lock import LOCK_FILE, JobLock
from srpipe.io.output_place import identity, put_in_place, refuse_existing, remove_output
from srpipe.io.space import format_bytes, free_disk_bytes, same_disk
from srpipe.plan.fingerprint import Fingerprint, differences, digest
from srpipe.plan.job import Plan
from srpipe.plan.kept import Kept

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
FINISHED_FILE = "finished.json"
LOG_FILE = "stages.log"
REMOTE_FOLDER = "remote"


class JobFolder:
    """The folder of one job, locked for as long as this object holds it."""

    def __init__(self, plan: Plan, facts: Fingerprint) -> None:
        """Make or take over the folder and lock it.

        Args:
            plan: the job.
            facts: its fingerprint.

        Raises:
            OutputError: it holds something else or cannot be made.
            JobError: another process works in it.
        """
        self._plan = plan
        self._facts = facts
        self._digest = digest(facts)
        self.path = Path(plan.job_dir)
        beside = Path(plan.output.path).parent
        for folder in (beside, Path(plan.image.path).parent):
            if os.path.realpath(folder) == os.path.realpath(self.path):
                raise OutputError(
                    f"{self.path} holds the input or the output: choose another --job-dir."
                )
        try:
            self._check_content()
            self._lock = JobLock(self.path)
        except OSError as error:
            raise self._unusable(error) from None
        suffix = Path(plan.output.path).suffix.lower()
        if same_disk(os.fspath(self.path), os.fspath(beside)):
            self.partial_output = self.path / f"output.part{suffix}"
        else:
            self.partial_output = beside / f".{Path(plan.output.path).name}.part{suffix}"

    def _check_content(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is no folder: choose another with --job-dir.")
        if (self.path / LOCK_FILE).exists() or not self.path.is_dir():
            return
        # A power cut may have taken the lock file alone.
        known = {PIXELS_FILE, SEAMS_FILE, PLAN_FILE, f"{PLAN_FILE}.new", LOG_FILE, FINISHED_FILE}
        known.add(REMOTE_FOLDER)
        if not {entry.name for entry in self.path.iterdir()} <= known:
            raise OutputError(
                f"{self.path} holds files that are no srpipe job: choose another with --job-dir."
            )

    def _unusable(self, error: OSError) -> OutputError:
        return OutputError(
            f"the job folder {self.path} cannot be used ({error.strerror}): "
            "choose another with --job-dir."
        )

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
            if not self._plan.fresh:
                if self._finished:
                    return None
                if (self.path / PLAN_FILE).exists():
                    self._check_same_job()
                    remove_output(self.partial_output)
                    found = self._last_good_state()
                    if found:
                        check_space(self._plan, reserved=True)
                        return found
            if not self._plan.overwrite:
                refuse_existing(self._plan.output.path)
            return self._start_over()
        except (SpaceError, OutputError):
            if not (self.path / PLAN_FILE).exists():
                self.remove()
            raise
        except OSError as error:
            raise self._unusable(error) from None

    def _check_same_job(self) -> None:
        try:
            facts = read_plan(self.path)
        except ValueError:
            raise JobError(
                f"{self.path / PLAN_FILE} is damaged: the job cannot go on; start over with --fresh."
            ) from None
        changed = differences(facts, self._facts)
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
        check_space(self._plan)
        reserve_canvas(self._plan)
        plan = json.dumps({"facts": self._facts, "plan": asdict(self._plan)}, default=list)
        record = {"plan": plan, "sha256": _sha256(plan)}
        disk.replace_file(self.path / PLAN_FILE, json.dumps(record).encode())
        disk.sync_folder(self.path.parent)
        return Checkpoint(job=self._digest, next_tile=0, stored_px=0)

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
            if self.partial_output.exists():
                record = {"job": self._digest} | identity(os.fspath(self.partial_output))
                disk.replace_file(self.path / FINISHED_FILE, json.dumps(record).encode())
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
        if not tiles:
            self.remove()
        else:
            remove_output(self.partial_output)  # a writer that was killed has left it
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

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.release()

    def _remove_work(self) -> None:
        for name in (PLAN_FILE, f"{PLAN_FILE}.new", *CHECKPOINT_FILES):
            disk.remove(self.path / name)
        # No plan or checkpoint may come back after a power cut and speak of another canvas.
        disk.sync_folder(self.path)
        for name in (PIXELS_FILE, SEAMS_FILE):
            disk.remove(self.path / name)
        remove_output(self.partial_output)
        for name in (f"{FINISHED_FILE}.new", LOG_FILE):
            disk.remove(self.path / name)


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


def read_plan(folder: Path) -> Fingerprint:
    """The fingerprint of the job in ``folder``.

    Raises:
        OSError: there is none.
        ValueError: its record is damaged.
    """
    try:
        facts: Fingerprint = _read_record(folder)["facts"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / PLAN_FILE} is damaged") from None
    return facts


def read_kept(folder: Path) -> Kept | None:
    """What the job in ``folder`` has fixed; None if there is none, or its record is damaged."""
    try:
        return Kept.parse(_read_record(folder)["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_record(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / PLAN_FILE).read_bytes())
    if record["sha256"] != _sha256(record["plan"]):
        raise ValueError
    plan: dict[str, Any] = json.loads(record["plan"])
    return plan


def is_finished_output(folder: Path, path: str, job: str | None = None) -> bool:
    """Whether the file at ``path`` is the whole output of the job in ``folder``.

    Args:
        folder: a job's.
        path: any file, there or not.
        job: the job must have this digest; None: any.
    """
    try:
        record = json.loads((folder / FINISHED_FILE).read_bytes())
        return job in (None, record.pop("job")) and bool(record == identity(path))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
