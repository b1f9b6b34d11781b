"""URLs as input and output: copies on the disk while a job runs.

A job reads its input several times, in several processes, and must find the same bytes when it goes on
after an interruption; a TIFF's head is written last. So a remote input is copied into the job's folder
before the job is planned, and a remote output is written there and uploaded when it is whole:

OUTPUT.srpipe/remote/           the job's folder is --job-dir, or in the user's cache if OUTPUT is a URL
    srpipe.lock                 who works here
    input.json                  which object, in which version, the copy is of
    input-NAME, input-NAME.part the copy; .part while it is on its way, and goes on there
    output-NAME                 the result, until it has been uploaded
    upload.json                 the upload of which file has begun; before, nothing was at the URL

The upload comes before the job's folder is removed: repeated after an interruption, the job is found
finished, and only the upload is done again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from srpipe.errors import (
    Interrupted,
    OutputError,
    ReadError,
    RequestError,
    SpaceError,
    SrpipeError,
    WriteError,
)
from srpipe.io import disk
from srpipe.io.job_folder import REMOTE_FOLDER
from srpipe.io.job_lock import HEARTBEAT_S, JobLock
from srpipe.io.job_place import job_place, split_options, strip_file_scheme
from srpipe.io.job_record import PLAN_FILE, is_finished_output
from srpipe.io.output_place import refuse_existing
from srpipe.io.remote import RemoteInfo, RemoteObject
from srpipe.io.small_files import read_json
from srpipe.io.space import format_bytes, free_disk_bytes
from srpipe.plan.output import parse_output
from srpipe.plan.url import is_url, url_key, url_name
from srpipe.settings import Settings
from srpipe.stop import StopRequest

logger = logging.getLogger(__name__)

_INPUT_RECORD = "input.json"
_UPLOAD_RECORD = "upload.json"
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Input and output of a job as files."""

    src: str
    dst: str
    """With options in brackets behind it."""
    settings: Settings
    deliver: Callable[[object], None] | None = None
    """To be called when the output is in place, before the job's folder is removed."""
    shown: dict[str, str] = field(default_factory=dict)
    """What stands for a URL, and the URL without credentials."""

    def show(self, text: str) -> str:
        """A text with URLs in place of what stands for them."""
        for path, url in self.shown.items():
            text = text.replace(path, url)
        return text


@contextlib.contextmanager
def local_ends(src: str, dst: str, settings: Settings, stop: StopRequest) -> Iterator[Ends]:
    """Files that stand for ``src`` and ``dst`` for as long as a job runs; paths stay what they are.

    Args:
        src: a path or a URL.
        dst: a path or a URL, options in brackets behind it.
        settings: of the job.
        stop: how the transfers can be asked to stop.

    Raises:
        InputError, OutputError, SettingsError: a URL cannot be used.
        SpaceError: too little room for the copy.
        JobError: another process works on the same output.
        ReadError, WriteError: a server cannot be reached, or fails.
        Interrupted: ``stop`` asked for it.
    """
    src = strip_file_scheme(src)
    url, options = split_options(strip_file_scheme(dst))
    if not is_url(src) and not is_url(url):
        yield Ends(src=src, dst=url + options, settings=settings)
        return
    staging = _Staging(src, url, options, settings, stop)
    try:
        ends = staging.open()
        try:
            yield ends
        except SrpipeError as error:
            error.args = (ends.show(str(error)),)
            raise
        staging.remove()
    except SrpipeError as error:
        # A request that is refused will be another one next time.
        if not staging.has_job and (isinstance(error, RequestError) or not staging.has_copy):
            staging.remove()
        raise
    finally:
        staging.release()


class _Staging:
    """The copies of one job."""

    def __init__(
        self, src: str, url: str, options: str, settings: Settings, stop: StopRequest
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._src = src
        self._url = url
        self._dst = url + options
        self._options = options
        self._lock: JobLock | None = None
        self._source = RemoteObject(src, settings.storage_options) if is_url(src) else None
        self._target = RemoteObject(url, settings.storage_options) if is_url(url) else None
        place = job_place(self._dst, settings.job_dir)
        self._job, self._output = place.folder, place.output
        self.folder = self._job / REMOTE_FOLDER
        self._copy = self.folder / f"input-{url_name(src) if self._source else ''}"
        self._part = self._copy.with_name(f"{self._copy.name}.part")

    @property
    def has_job(self) -> bool:
        """Whether the job has begun."""
        return (self._job / PLAN_FILE).exists()

    @property
    def has_copy(self) -> bool:
        """Whether something of the input has been downloaded."""
        return self._copy.exists() or self._part.exists()

    def open(self) -> Ends:
        """Lock the folder, see that the output may be written, and fetch the input."""
        self._check_output()
        try:
            self._job.mkdir(parents=self._target is not None, exist_ok=True)
            self._lock = JobLock(self.folder)
        except OSError as error:
            raise OutputError(
                f"the job folder {self._job} cannot be used ({error.strerror}): "
                "choose another with --job-dir."
            ) from None
        shown = {}
        src, dst, settings = self._src, self._dst, replace(self._settings, job_dir=str(self._job))
        if self._source:
            self._fetch(self._source)
            src = os.fspath(self._copy)
            shown[src] = self._source.shown
        if self._target:
            dst = os.fspath(self._output) + self._options
            settings = replace(settings, overwrite=True)  # what is there is the job's own
            shown[os.fspath(self._output)] = self._target.shown
        deliver = self._deliver if self._target else None
        return Ends(src=src, dst=dst, settings=settings, deliver=deliver, shown=shown)

    def remove(self) -> None:
        """Remove the copies, and the job's folder if nothing else is in it."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._job.rmdir()

    def release(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()

    def _check_output(self) -> None:
        if self._target and is_url(self._src) and url_key(self._src) == url_key(self._url):
            raise OutputError(
                f"input and output are the same object, {self._target.shown}: write to another one."
            )
        if self._target is not None and not parse_output(url_name(self._url)).is_one_file:
            raise OutputError(
                f"{self._target.shown} would be more than one file, and only one is uploaded: write it "
                "to a folder here, and copy that."
            )
        if self._settings.overwrite:
            return
        if self._target is None:
            if not self._output.parent.is_dir():
                raise OutputError(
                    f"the folder {self._output.parent} does not exist: make it first."
                )
            if not is_finished_output(self._job, os.fspath(self._output)):
                refuse_existing(os.fspath(self._output))
            return
        there = self._target.find()
        if there is not None and not self._is_ours(there):
            raise OutputError(
                f"{self._target.shown} exists: choose another name, or allow it with --overwrite."
            )

    def _is_ours(self, there: RemoteInfo) -> bool:
        """Whether what is at the URL came by an upload that broke off after it was done."""
        if self._settings.fresh or not self.has_job:
            return False
        try:
            same = _read_json(self.folder / _UPLOAD_RECORD) == self._upload_record()
            return same and there.size_bytes == self._output.stat().st_size
        except OSError:
            return False

    def _upload_record(self) -> dict[str, Any]:
        assert self._target is not None
        stat = self._output.stat()
        file = {"inode": stat.st_ino, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
        return {"url": self._target.shown} | file

    def _fetch(self, source: RemoteObject) -> None:
        info = source.read_info()
        record = {"object": url_key(self._src), "version": info.version}
        part = self._part
        if info.version is None or _read_json(self.folder / _INPUT_RECORD) != record:
            for path in (self._copy, part):
                disk.remove(path)
            disk.replace_file(self.folder / _INPUT_RECORD, json.dumps(record).encode())
        if self._copy.exists() and self._copy.stat().st_size == info.size_bytes:
            return
        self._check_room(source, info)
        transfer = self._transfer(f"downloading {source.shown}", info.size_bytes)
        try:
            source.download(part, info, transfer)
        except SrpipeError as error:
            if part.exists():
                error.args = (
                    f"{error} What has been downloaded is kept in {self.folder}: repeat the command "
                    "to go on.",
                )
            raise
        if source.read_info().version != info.version:
            disk.remove(part)
            raise ReadError(f"{source.shown} changed while it was downloaded: try again.")
        # The copy is as old as the object, so that a job knows it again after another download.
        os.utime(part, ns=(info.modified_ns, info.modified_ns))
        disk.sync_file(part)
        disk.rename(part, self._copy)
        disk.sync_folder(self.folder)

    def _check_room(self, source: RemoteObject, info: RemoteInfo) -> None:
        needed = (info.size_bytes or 0) - (self._part.stat().st_size if self._part.exists() else 0)
        free = free_disk_bytes(os.fspath(self.folder))
        if needed > free:
            raise SpaceError(
                f"{self.folder} needs {format_bytes(needed)} ({needed} bytes) for {source.shown} and "
                f"has {format_bytes(free)} ({free} bytes) free: make room, or put the job's files on "
                "another disk with --job-dir."
            )

    def _deliver(self, _: object) -> None:
        assert self._target is not None
        self._stop.heeded = True
        kept = f"The finished file is kept in {self.folder}: repeat the command to upload it."
        try:
            there = None if self._settings.overwrite else self._target.find()
            if there is not None and self._is_ours(there):
                return
            if there is not None:
                raise WriteError(
                    f"{self._target.shown} has appeared while the job was running: move it away, or "
                    "allow it with --overwrite."
                )
            record = self._upload_record()
            disk.replace_file(self.folder / _UPLOAD_RECORD, json.dumps(record).encode())
            transfer = self._transfer(f"uploading {self._target.shown}", record["bytes"])
            _run_heeding(partial(self._target.upload, self._output, transfer), self._stop)
        except OutputError as error:
            raise WriteError(f"{error} {kept}") from None
        except SrpipeError as error:
            error.args = (f"{error} {kept}",)
            raise

    def _transfer(self, what: str, total_bytes: int | None) -> Callable[[int], None]:
        """What hears of transferred bytes: tells of them, shows life, and heeds a wish to stop."""
        assert self._lock is not None
        lock, stop, done = self._lock, self._stop, 0
        total = "unknown size" if total_bytes is None else format_bytes(total_bytes)
        told_s = time.monotonic()
        logger.info("%s, %s.", what, total)

        def note(n_bytes: int) -> None:
            nonlocal done, told_s
            if stop.times:
                raise Interrupted(f"interrupted while {what}.")
            done += n_bytes
            if time.monotonic() - told_s > HEARTBEAT_S:
                told_s = time.monotonic()
                lock.beat()
                logger.info("%s: %s of %s.", what, format_bytes(done), total)

        return note


def _run_heeding(upload: Callable[[], None], stop: StopRequest) -> None:
    """Run it in a thread: asked to stop once, it ends by itself; asked again, it is left alone."""
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            upload()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, name="srpipe-upload", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        if stop.times > 1:
            raise Interrupted("interrupted while uploading.")
    if ended[0] is not None:
        raise ended[0]


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, follow=False)
    except (OSError, ValueError):
        return None
