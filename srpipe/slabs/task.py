"""Computes one slab, on whatever machine: a job of its own, whose folder all machines see."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srpipe.errors import ClusterError, JobError, ModelError, SrpipeError
from srpipe.io.external_data import hash_model
from srpipe.io.job_folder import lock_folder
from srpipe.io.processor import processor_name
from srpipe.io.slabs_folder import read_done, write_done
from srpipe.models.zoo import find_model
from srpipe.plan.fingerprint import differences
from srpipe.plan.job import Plan
from srpipe.plan.plain import rebuild
from srpipe.plan.slabs import Slab
from srpipe.run import run_job, software_versions
from srpipe.runtime.events import ProgressCallback, Report
from srpipe.stop import StopRequest

# What another host has locked is free a minute after it was last heard of.
_PATIENCE_S = 75.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabTask:
    """One slab, and what a machine must have to compute it."""

    plan: Plan
    """Of the slab."""
    slab: Slab
    count: int
    """Slabs of the whole."""
    job: str
    """Digest of the whole."""
    model: str
    """As the request names it."""
    versions: Mapping[str, str]
    """Of the software whose arithmetic decides the result, where the plan was made."""

    @property
    def name(self) -> str:
        """For people: its number, and its rows of the image."""
        rows = self.plan.frame.in_image(self.plan.frame.crop)
        return (
            f"slab {self.slab.index + 1} of {self.count} (rows {rows.top} to "
            f"{rows.top + rows.height - 1} of {self.plan.image.path})"
        )


def run_slab(task: SlabTask, progress: ProgressCallback | None, stop: StopRequest) -> Report:
    """Compute a slab, from its last checkpoint on; nothing is done where its part is there.

    Args:
        task: which slab.
        progress: called with every progress event of the slab.
        stop: how it can be asked to stop.

    Returns:
        What was done for it, by this run or another.

    Raises:
        ClusterError: this machine has other software, or another model.
        SrpipeError: as :func:`srpipe.run.run_job`; messages begin with the slab's number and rows.
    """
    folder, index = Path(task.plan.job_dir).parent, task.slab.index
    done = read_done(folder, index, task.job)
    if done is not None:
        return report_of(done)

    def write(report: Report) -> None:
        write_done(folder, index, task.job, _record(report))

    try:
        plan = plan_here(task.plan, task.model, task.versions)
        lock = lock_folder(Path(plan.job_dir), _PATIENCE_S)
        done = read_done(folder, index, task.job)
        if done is not None:  # by whoever had the lock before
            lock.release()
            return report_of(done)
        return run_job(plan, progress, time.monotonic(), stop, deliver=write, lock=lock)
    except SrpipeError as error:
        error.args = (f"{task.name}: {error}",)
        raise


def plan_here(plan: Plan, model: str, versions: Mapping[str, str]) -> Plan:
    """A plan that was made elsewhere, with the model where it is on this machine.

    Raises:
        ClusterError: this machine has other software, or another model.
    """
    check_software(versions)
    try:
        path = os.path.abspath(find_model(model))
        sha256 = hash_model(path)
    except (ModelError, OSError) as error:
        raise ClusterError(f"{os.uname().nodename} lacks the model: {error}") from None
    if sha256 != plan.model.sha256:
        raise ClusterError(
            f"{os.uname().nodename} has another model as {model} ({sha256[:16]}, not "
            f"{plan.model.sha256[:16]}): copy the same file to every machine."
        )
    return replace(plan, model=replace(plan.model, path=path))


def check_software(versions: Mapping[str, str]) -> None:
    """See that results are the same here as where a request was made.

    Args:
        versions: of the software there.

    Raises:
        ClusterError: this machine has other software.
    """
    changed = differences(
        {f"{name} version": version for name, version in versions.items()},
        {f"{name} version": version for name, version in software_versions().items()},
    )
    if changed:
        raise ClusterError(
            f"{os.uname().nodename} has other software ({'; '.join(changed)}): install the same "
            "version on every node."
        )


def report_of(record: dict[str, Any]) -> Report:
    """The report that was written down of a slab.

    Raises:
        JobError: it is damaged.
    """
    try:
        report: Report = rebuild(Report, record)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise JobError(
            "what was written down of a slab is damaged: remove its slab-*.json from the job folder, "
            "and compute it again."
        ) from None
    return report


def _record(report: Report) -> dict[str, Any]:
    return report.as_dict() | {"processor": processor_name(), "host": os.uname().nodename}
