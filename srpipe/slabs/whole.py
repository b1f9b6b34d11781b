"""A job in slabs as a whole: its plan, made once; its slabs' tasks; its parts, joined at the end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srpipe.errors import InputError, JobError, OutputError
from srpipe.forks import note_work
from srpipe.io.identity import check_unchanged, identify_file
from srpipe.io.job_folder import REMOTE_FOLDER, lock_folder
from srpipe.io.job_lock import LOCK_FILE, JobLock
from srpipe.io.job_place import JobPlace, job_place
from srpipe.io.job_record import read_record
from srpipe.io.slabs_folder import SlabsFolder, in_slabs, read_done
from srpipe.io.space import same_disk
from srpipe.plan.fingerprint import Fingerprint, digest, fingerprint
from srpipe.plan.job import Plan, chosen_engine
from srpipe.plan.plain import rebuild
from srpipe.plan.slabs import Cut, Slab, cut, slab_plan
from srpipe.prepare import prepare
from srpipe.run import software_versions
from srpipe.runtime.events import ProgressCallback, Report
from srpipe.settings import Settings
from srpipe.slabs.joining import Joining
from srpipe.slabs.monitor import SlabsMonitor
from srpipe.slabs.task import SlabTask, report_of, run_slab
from srpipe.stop import StopRequest

logger = logging.getLogger(__name__)

# Others may be measuring what the model runs best with, or looking whether they are needed.
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A job in slabs."""

    plan: Plan
    cut: Cut
    facts: Fingerprint

    @classmethod
    def of(cls, plan: Plan, count: int, facts: Fingerprint | None = None) -> Whole:
        """Cut a plan into slabs.

        Args:
            plan: of the whole.
            count: how many slabs.
            facts: its fingerprint, if it was made elsewhere.

        Raises:
            SettingsError: the job has too few rows for so many.
        """
        beside = os.path.dirname(plan.output.path)
        whole = cut(plan, count, same_disk=same_disk(plan.job_dir, beside))
        return cls(plan=plan, cut=whole, facts=facts or fingerprint(plan, software_versions()))

    @property
    def job(self) -> str:
        """Digest that parts are told by from those of other jobs."""
        return digest(in_slabs(self.facts, self.cut))

    @property
    def path(self) -> Path:
        """Of the job folder."""
        return Path(self.plan.job_dir)

    def folder(self, lock: JobLock) -> SlabsFolder:
        """The job folder."""
        return SlabsFolder(self.plan, self.facts, lock, self.cut)

    def monitor(self, progress: ProgressCallback | None, begin_s: float) -> SlabsMonitor:
        """What tells of the job, which was asked for at ``begin_s`` on the monotonic clock."""
        return SlabsMonitor(self.plan, self.cut, self.job, progress, begin_s)

    def task(self, slab: Slab, settings: Settings) -> SlabTask:
        """What a machine needs to compute a slab, as settings ask for it."""
        engine = chosen_engine(settings)
        if settings.engine == "ray" and self.plan.workers * self.plan.threads == 1:
            # On one core, processes only take turns, and Ray repeats what crashes.
            engine = "threads"
        return SlabTask(
            plan=slab_plan(self.plan, self.cut, slab, self.plan.job_dir, engine),
            slab=slab,
            count=len(self.cut.slabs),
            job=self.job,
            model=settings.model,
            versions=software_versions(),
        )

    def not_done(self) -> list[Slab]:
        """The slabs whose parts are missing."""
        return [
            slab for slab in self.cut.slabs if read_done(self.path, slab.index, self.job) is None
        ]

    def begin_joining(self, folder: SlabsFolder, stop: StopRequest) -> Joining:
        """Begin to make the output of the parts that are there, and of others as they come."""
        partial = os.fspath(folder.partial_output)
        return Joining(self.plan, self.cut, self.job, partial, stop, folder.beat)

    def join(
        self,
        folder: SlabsFolder,
        monitor: SlabsMonitor,
        stop: StopRequest,
        at_once: int,
        joining: Joining | None = None,
        deliver: Callable[[object], None] | None = None,
        *,
        there: bool = False,
    ) -> Report:
        """Put the output in place, from the parts of all slabs, and remove the job folder.

        Args:
            folder: of the job.
            monitor: of the job.
            stop: how it can be asked to stop; the same request goes on with it.
            at_once: how many slabs were computed at the same time.
            joining: of the parts, where it has begun.
            deliver: called when the output is in place.
            there: the output is whole already, and only has to be put in place.

        Raises:
            JobError: parts are missing.
            WriteError: the output cannot be written.
            Interrupted: ``stop`` asked for it.
        """
        records = [read_done(self.path, slab.index, self.job) for slab in self.cut.slabs]
        done = [record for record in records if record is not None]
        if not there:
            missing = [str(i + 1) for i, record in enumerate(records) if record is None]
            if missing:
                raise JobError(
                    f"of the {len(records)} slabs of {self.plan.output.path} these are not done: "
                    f"{', '.join(missing)}; 'srpipe status' tells how far they are."
                )
            _compare_processors(done)
            (joining or self.begin_joining(folder, stop)).finish()
        check_unchanged(self.plan.image.path, self.plan.image.identity, self.path)
        folder.publish()
        report = monitor.report([report_of(record) for record in done], at_once)
        if deliver is not None:
            deliver(report)
        folder.remove_if_possible()
        monitor.tell("finished")
        return report


def _compare_processors(records: list[dict[str, Any]]) -> None:
    kinds = sorted({str(record.get("processor")) for record in records})
    if len(kinds) > 1:
        logger.warning(
            "slabs were computed on different processors (%s): the last bits of some pixels may not be "
            "those of one machine.",
            ", ".join(kinds),
        )


@contextmanager
def locked(place: JobPlace, patience_s: float) -> Iterator[JobLock]:
    """Hold the lock of a job folder; one that is new and has got no plan is removed."""
    lock = lock_folder(place.folder, patience_s)
    try:
        yield lock
    finally:
        with suppress(OSError):  # it is gone, or others have begun to use it
            if set(os.listdir(place.folder)) <= {LOCK_FILE, REMOTE_FOLDER}:
                os.unlink(place.folder / LOCK_FILE)
                os.rmdir(place.folder)
        lock.release()


def enhance_slab(
    src: str, dst: str, settings: Settings, progress: ProgressCallback | None, stop: StopRequest
) -> Report:
    """Compute one slab of a job whose other slabs are computed elsewhere.

    The first of them to begin plans for all.

    Raises:
        SrpipeError: as :func:`srpipe.enhance` does.
    """
    assert settings.slab is not None
    number, count = settings.slab
    with locked(job_place(dst, settings.job_dir), _PATIENCE_S) as lock:
        whole = Whole.of(prepare(src, dst, settings), count)
        if whole.folder(lock).prepare() is None:
            raise OutputError(
                f"{whole.plan.output.path} is whole already: 'srpipe assemble' removes its job folder."
            )
    return run_slab(whole.task(whole.cut.slabs[number - 1], settings), progress, stop)


def assemble(
    dst: str | os.PathLike[str],
    *,
    job_dir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    stop: StopRequest | None = None,
) -> Report:
    """Join the slabs of a job, all of which are done, to its output.

    Args:
        dst: the output, as the slabs' requests name it.
        job_dir: the job's folder, as they name it.
        progress: called when it is finished.
        stop: lets a signal handler or another thread ask it to stop.

    Raises:
        InputError: there is no job in slabs for ``dst``, or its input is another.
        JobError: slabs are missing.
        WriteError: the output cannot be written.
    """
    note_work()
    begin_s = time.monotonic()
    place = job_place(os.fspath(dst), None if job_dir is None else os.fspath(job_dir))
    stop = stop or StopRequest()
    if not place.folder.is_dir():
        raise _no_job(place)
    with locked(place, _PATIENCE_S) as lock, stop.heeding():
        plan, count, facts = _recorded(place)
        whole = Whole.of(plan, count, facts)
        folder = whole.folder(lock)
        there = folder.prepare() is None
        monitor = whole.monitor(progress, begin_s)
        return whole.join(folder, monitor, stop, 1, there=there)


def _no_job(place: JobPlace) -> InputError:
    there = " It is there: it may have been joined before." if place.output.exists() else ""
    return InputError(f"there is no job for {place.shown} in {place.folder}.{there}")


def _recorded(place: JobPlace) -> tuple[Plan, int, Fingerprint]:
    """The plan in a job folder, its number of slabs, and its fingerprint.

    Raises:
        InputError: there is none, it is not in slabs, or of another output, or its input is another.
    """
    try:
        record = read_record(place.folder)
        plan, count = rebuild(Plan, record["plan"]), len(record["slabs"])
        facts = dict(record["facts"])
    except OSError:
        raise _no_job(place) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise InputError(
            f"the job in {place.folder} is not in slabs: repeat its command to go on with it."
        ) from None
    if os.path.basename(plan.output.path) != place.output.name:
        raise InputError(
            f"the job in {place.folder} is for {plan.output.path}, not for {place.shown}: name that."
        )
    _check_input(plan)
    # Folders may be called otherwise where slabs are joined.
    output = replace(plan.output, path=os.fspath(place.output))
    plan = replace(plan, job_dir=os.fspath(place.folder), output=output, fresh=False)
    return plan, count, facts


def _check_input(plan: Plan) -> None:
    """See that the input, whose metadata the output gets, is still what it was.

    Raises:
        InputError: it is another, or gone.
    """
    identity = plan.image.identity
    try:
        stat = os.stat(plan.image.path)
    except OSError as error:
        raise InputError(
            f"{plan.image.path} cannot be read ({error.strerror}): the output takes over its metadata; "
            "put it back."
        ) from None
    touched = (stat.st_size, stat.st_mtime_ns) != (identity.size_bytes, identity.modified_ns)
    if touched and identify_file(plan.image.path).content != identity.content:
        raise InputError(f"{plan.image.path} has changed since its slabs were computed.")
