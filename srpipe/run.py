"""Carries a plan out, in its job folder, from the last checkpoint on if there is one."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from srpipe import __version__
from srpipe.errors import Interrupted, ReadError, RunError, SrpipeError
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.identity import check_unchanged, recorded_content
from srpipe.io.job_folder import JobFolder, lock_folder
from srpipe.io.job_lock import JobLock
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.vips import libvips_version
from srpipe.plan.fingerprint import fingerprint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.events import Monitor, ProgressCallback, Report
from srpipe.runtime.warm import Warm
from srpipe.stop import StopRequest


def run_job(
    plan: Plan,
    progress: ProgressCallback | None,
    begin_s: float,
    stop: StopRequest,
    warm: Warm | None = None,
    deliver: Callable[[Report], None] | None = None,
    lock: JobLock | None = None,
) -> Report:
    """Carry out a plan, from the last checkpoint on if there is one.

    Args:
        plan: as :func:`prepare` made it.
        progress: called with every progress event.
        begin_s: when the request was made, monotonic clock.
        stop: how the run can be asked to stop.
        warm: what other jobs of this process left, or share; None: nothing.
        deliver: called when the output is in place; if it fails, a repeated job is found finished, and
            only this is done again.
        lock: of the job folder, which the caller has taken; it is released here. None: it is taken.

    Raises:
        RequestError: too little space, or the job folder is in use or holds another job.
        RunError: the run failed.
        Interrupted: ``stop`` asked for it.
    """
    warm = warm or Warm()
    with warm.whole_machine(stop) if plan.own_processes else contextlib.nullcontext():
        return _run_in_folder(plan, progress, begin_s, stop, warm, deliver, lock)


def _run_in_folder(
    plan: Plan,
    progress: ProgressCallback | None,
    begin_s: float,
    stop: StopRequest,
    warm: Warm,
    deliver: Callable[[Report], None] | None,
    lock: JobLock | None,
) -> Report:
    lock = lock or lock_folder(Path(plan.job_dir))
    folder = JobFolder(plan, fingerprint(plan, software_versions()), lock)
    monitor = Monitor(plan, progress, begin_s)
    try:
        at = folder.prepare()
        if at is None:
            monitor.started(plan.grid.n_tiles)
        else:
            monitor.started(at.next_tile)
            try:
                with recorded_content(plan.image.path, plan.image.identity, folder.path):
                    _run(plan, at, folder, monitor, stop, warm)
            except BaseException as error:
                tiles = folder.keep_or_remove()
                if tiles and isinstance(error, RunError | Interrupted):
                    _add_how_to_go_on(error, plan, tiles)
                raise
            _check_input(plan, folder)
        folder.publish()
        if deliver is not None:
            deliver(monitor.report())
        folder.remove_if_possible()
        return monitor.finished()
    finally:
        stop.heeded = False
        folder.release()


def _run(
    plan: Plan,
    at: Checkpoint,
    folder: JobFolder,
    monitor: Monitor,
    stop: StopRequest,
    warm: Warm,
) -> None:
    partial_output = os.fspath(folder.partial_output)
    conductor = Conductor(plan, at, monitor, stop, folder.beat)
    stop.heeded = True
    if plan.engine == "serial":
        from srpipe.engines.serial import run_serial

        run_serial(plan, at, partial_output, conductor, warm)
    elif plan.engine == "threads":
        from srpipe.engines.threads import run_threads

        run_threads(plan, at, partial_output, conductor, warm)
    else:
        from srpipe.engines.local import run_local

        run_local(plan, at, partial_output, folder.log_path, folder.lock_descriptor, conductor)


def _check_input(plan: Plan, folder: JobFolder) -> None:
    """See that all pixels and metadata are of the same input; keep nothing if not.

    Raises:
        ReadError: it was changed meanwhile.
    """
    try:
        check_unchanged(plan.image.path, plan.image.identity, folder.path)
    except ReadError:
        with contextlib.suppress(OSError):
            folder.remove()
        raise


def _add_how_to_go_on(error: SrpipeError, plan: Plan, tiles: int) -> None:
    kept = f"{tiles} of {plan.grid.n_tiles} tiles are kept in {plan.job_dir}"
    error.args = (f"{error} {kept}: repeat the command to go on.",)


@functools.cache
def software_versions() -> dict[str, str]:
    """Versions of everything whose arithmetic decides the bytes of a result."""
    versions = {
        "srpipe": __version__,
        "libvips": libvips_version(),
        "onnxruntime": onnx_runtime_version(),
    }
    for package in ("numba", "numpy", "opencv-python-headless"):
        with contextlib.suppress(PackageNotFoundError):  # another build of the same
            versions[package] = version(package)
    return versions
