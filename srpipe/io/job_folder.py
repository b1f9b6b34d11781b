"""A job's folder on disk: its lock, its files, and the output's way into place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from srpipe.errors import OutputError, SpaceError, WriteError
from srpipe.io.canvas_files import PIXELS_FILE, SEAMS_FILE, reserve_canvas
from srpipe.io.space import format_bytes, free_disk_bytes, same_disk
from srpipe.plan.job import Plan

PLAN_FILE = "plan.json"
LOCK_FILE = "srpipe.lock"
LOG_FILE = "stages.log"


class JobFolder:
    """The folder of one job, locked for as long as this object holds it."""

    def __init__(self, plan: Plan) -> None:
        """Make or take over the folder and lock it.

        Raises:
            OutputError: it holds something else, cannot be made, or another process works in it.
        """
        self._plan = plan
        self.path = Path(plan.job_dir)
        beside = Path(plan.output.path).parent
        for folder in (beside, Path(plan.image.path).parent):
            if os.path.realpath(folder) == os.path.realpath(self.path):
                raise OutputError(
                    f"{self.path} holds the input or the output: choose another --job-dir."
                )
        try:
            self._check_content()
            self._lock = self._take_lock()
        except BlockingIOError:
            raise OutputError(
                f"another srpipe is working in {self.path}: wait for it, or write elsewhere."
            ) from None
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
        foreign = self.path.is_dir() and not (self.path / LOCK_FILE).exists()
        if foreign and any(self.path.iterdir()):
            raise OutputError(
                f"{self.path} holds files that are no srpipe job: choose another with --job-dir."
            )

    def _take_lock(self) -> int:
        """A descriptor of the locked lock file.

        Raises:
            BlockingIOError: another process has it.
        """
        while True:
            self.path.mkdir(exist_ok=True)
            lock_path = self.path / LOCK_FILE
            try:
                lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # its last holder has just removed the folder
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(lock_path)):
                    return lock
            except FileNotFoundError:
                pass  # removed between open and lock: what is locked is no longer the file
            except BlockingIOError:
                os.close(lock)
                raise
            os.close(lock)

    def _unusable(self, error: OSError) -> OutputError:
        return OutputError(
            f"the job folder {self.path} cannot be used ({error.strerror}): "
            "choose another with --job-dir."
        )

    @property
    def log_path(self) -> Path:
        """Where the processes of the job say what they have to say."""
        return self.path / LOG_FILE

    def prepare(self) -> None:
        """Start over in this folder: take the space, write the plan down.

        Raises:
            SpaceError: too little room for pixels, seams and the output; says how much is missing.
            OutputError: the folder cannot be written to.
        """
        try:
            self._remove_work()
            self._check_space()
            reserve_canvas(self._plan)
            plan = json.dumps(asdict(self._plan), indent=1, default=list)
            (self.path / PLAN_FILE).write_text(plan)
        except OSError as error:
            raise self._unusable(error) from None

    def publish(self) -> None:
        """Put the finished output in place, whole.

        Raises:
            WriteError: it cannot be put there, or, without ``overwrite``, something has appeared
                there; the finished file stays where it is.
        """
        output = Path(self._plan.output.path)
        try:
            if self._plan.overwrite:
                os.replace(self.partial_output, output)
            else:
                _move_without_replacing(self.partial_output, output)
        except OSError as error:
            raise WriteError(
                f"{output} cannot be put in place ({error.strerror}): the finished file is "
                f"{self.partial_output}; move it by hand."
            ) from None
        with contextlib.suppress(OSError):  # some network file systems cannot
            _sync_folder(output.parent)

    def discard_output(self) -> None:
        """Remove an unfinished output file."""
        self.partial_output.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the job's files, and the folder if nothing else is in it."""
        self._remove_work()
        (self.path / LOCK_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files may be in it
            self.path.rmdir()

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)

    def _remove_work(self) -> None:
        self.discard_output()
        for name in (PIXELS_FILE, SEAMS_FILE, PLAN_FILE, LOG_FILE):
            (self.path / name).unlink(missing_ok=True)

    def _check_space(self) -> None:
        plan = self._plan
        job_bytes = plan.pixels_bytes + plan.seam_shapes.n_bytes
        places = {os.fspath(self.path): job_bytes}
        beside = os.fspath(Path(plan.output.path).parent)
        if same_disk(beside, os.fspath(self.path)):
            places[os.fspath(self.path)] += plan.output_bytes
        else:
            places[beside] = plan.output_bytes
        for folder, needed in places.items():
            free = free_disk_bytes(folder)
            if needed > free:
                raise SpaceError(
                    f"{folder} needs {format_bytes(needed)} ({needed} bytes) and has "
                    f"{format_bytes(free)} ({free} bytes) free: make room, write elsewhere, or put "
                    "the job's files on another disk with --job-dir."
                )


def _move_without_replacing(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.replace(source, target)
    else:
        source.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
