"""Foretells what a job takes, from a timed sample of its own tiles; writes nothing that stays."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srpipe.api import PathLike, prepare
from srpipe.errors import RequestError, SrpipeError
from srpipe.forecast.report import PlanReport
from srpipe.forecast.sample import Cells, read_cells, sample_plan
from srpipe.forks import note_work
from srpipe.io.space import available_memory_bytes, format_bytes, free_disk_bytes
from srpipe.models.rewrite.verdict import Rewritten, graph_info
from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from srpipe.plan.url import is_url, redact_url
from srpipe.run import run_job
from srpipe.runtime.events import ProgressEvent
from srpipe.settings import Settings
from srpipe.stop import StopRequest
from srpipe.tune.budget import pipeline_bytes
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

DEFAULT_SAMPLE_S = 4.0
# Beyond this a user may want a larger tile or a smaller overlap.
_MUCH_REDUNDANCY = 0.5
_MOST_CELLS_BYTES = 100_000_000
_MOST_PREPARING_S = 0.4


@dataclass(frozen=True, slots=True)
class _Timing:
    """What a run of a sample shows."""

    tiles: int
    first_s: float
    """Until the first tiles were done."""
    tile_s: float
    """From one tile to the next."""
    end_s: float
    """From the last tile to the file in place."""
    output_bytes: int
    raw_bytes: int
    first_tiles: int


def estimate(
    src: PathLike,
    dst: PathLike,
    *,
    sample_s: float = DEFAULT_SAMPLE_S,
    stop: StopRequest | None = None,
    **settings: Any,
) -> PlanReport:
    """Tell what :func:`srpipe.enhance` would do for the same arguments, and what it would take.

    Tiles spread over the picture go through the job's own pipeline, with its model, arrangement and
    output format, in a temporary folder. What is found out about the model and the machine is kept
    in the cache, as a job keeps it; nothing else is written.

    Args:
        src: the input.
        dst: the output; not written.
        sample_s: about how long the sample may take to decode, and again to compute, seconds.
        stop: lets a signal handler or another thread ask to stop.
        settings: as for :func:`srpipe.enhance`.

    Raises:
        RequestError: the job cannot be carried out.
        RunError: the sample failed, as the job would.
        Interrupted: ``stop`` asked for it.
    """
    note_work()
    for end in (src, dst):
        if is_url(os.fspath(end)):
            raise RequestError(
                f"{redact_url(os.fspath(end))} is a URL: copy the input here to plan for it, and name "
                "a file as its output."
            )
    for name in ("model", "job_dir", "mask"):
        if settings.get(name) is not None:
            settings[name] = os.fspath(settings[name])
    wanted = Settings(**settings)
    stop = stop or StopRequest()
    with _warnings() as warnings:
        begin_s = time.perf_counter()
        plan = prepare(os.fspath(src), os.fspath(dst), wanted)
        prepare_s = time.perf_counter() - begin_s
    # What was found out in more time than that is known to the job that follows.
    prepare_s = min(prepare_s, _MOST_PREPARING_S)
    tile_bytes = plan.grid.tile.pixels * plan.image.bands * plan.image.sample_bytes
    cells = read_cells(plan, max(_MOST_CELLS_BYTES // tile_bytes, _least_tiles(plan)), sample_s)
    timing = _time_sample(plan, cells, sample_s, stop)
    model_bytes = _model_bytes(plan)
    return _report(plan, cells, timing, prepare_s, model_bytes, warnings)


def _time_sample(plan: Plan, cells: Cells, sample_s: float, stop: StopRequest) -> _Timing:
    """Run few tiles, and if they were quick, more."""
    with tempfile.TemporaryDirectory(prefix="srpipe-plan-") as folder:
        timing = _run(sample_plan(plan, cells, _least_tiles(plan), Path(folder)), stop)
        tiles = int(sample_s / max(timing.tile_s, 1e-4))
        if tiles > 2 * timing.tiles and timing.tiles < min(len(cells.pixels), plan.grid.n_tiles):
            timing = _run(sample_plan(plan, cells, tiles, Path(folder)), stop)
    return timing


def _at_once(plan: Plan) -> int:
    """Tiles that the runners of all sessions work on at the same time."""
    return plan.workers * plan.runners * plan.batch_size


def _least_tiles(plan: Plan) -> int:
    return 3 * _at_once(plan)


def _run(plan: Plan, stop: StopRequest) -> _Timing:
    done: list[tuple[float, int]] = []

    def note(event: ProgressEvent) -> None:
        if event.tiles_done and event.state == "running":
            done.append((time.monotonic(), event.tiles_done))

    def is_of_others(record: logging.LogRecord) -> bool:
        """Whether a warning is of no sample, whose file nobody knows."""
        return plan.image.path not in (record.args or ())

    begin_s = time.monotonic()
    events = logging.getLogger("srpipe.runtime.events")
    events.addFilter(is_of_others)
    try:
        run_job(plan, note, begin_s, stop)
    finally:
        events.removeFilter(is_of_others)
    end_s = time.monotonic()
    # Runners bring their first tiles at the same time.
    first_s, first = next((d for d in done if d[1] >= _at_once(plan)), done[-1])
    last_s, last = done[-1]
    rate_s = (last_s - first_s) / (last - first) if last > first else (last_s - begin_s) / last
    return _Timing(
        tiles=last,
        first_s=first_s - begin_s,
        first_tiles=first,
        tile_s=rate_s,
        end_s=end_s - last_s,
        output_bytes=_size_bytes(Path(plan.output.path)),
        raw_bytes=plan.pixels_bytes,
    )


def _size_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    return path.stat().st_size if path.exists() else 0


def _model_bytes(plan: Plan) -> int | None:
    """What the sessions take, measured in a process of its own; None where that fails."""
    info = graph_info(plan.model, Rewritten(plan.rewrites, plan.graph_sha256))
    arrangement = Arrangement(plan.device, 1, plan.runners, plan.run_threads)
    try:
        with Stopwatch(info, 2**62, plan.model.path) as timer:
            loaded = timer.load(Candidate(arrangement, plan.grid.tile, plan.batch_size))
    except SrpipeError as error:
        logger.debug("The model's memory cannot be measured: %s", error)
        return None
    return loaded.worker_bytes * plan.workers


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what is warned of."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    root, collector = logging.getLogger("srpipe"), Collector()
    root.addHandler(collector)
    try:
        yield said
    finally:
        root.removeHandler(collector)


def _report(
    plan: Plan,
    cells: Cells,
    timing: _Timing,
    prepare_s: float,
    model_bytes: int | None,
    warnings: list[str],
) -> PlanReport:
    grid, image = plan.grid, plan.image
    ratio = timing.output_bytes / timing.raw_bytes
    output_bytes = round(plan.pixels_bytes * ratio) if ratio else plan.output_bytes
    decode_s = cells.s_per_px * image.size.pixels
    # Stages that work at the same time share the cores.
    shared = 1 if plan.serial else max(1, plan.threads * plan.workers)
    model_s = timing.tile_s * (grid.n_tiles - timing.first_tiles)
    start_s = prepare_s + timing.first_s
    memory_bytes = pipeline_bytes(plan) + (model_bytes or 0) + image.decoder_bytes
    job_disk_bytes = plan.pixels_bytes + plan.seam_shapes.n_bytes
    folder = os.path.dirname(plan.output.path)
    report = PlanReport(
        input=image.path,
        output=plan.output.path,
        job_dir=plan.job_dir,
        model=plan.model.name,
        input_kind=image.kind,
        input_dtype=image.dtype,
        pages=image.pages,
        icc_bytes=image.icc_bytes,
        input_size=image.size,
        output_size=plan.output_size,
        output_format=plan.output.format.name,
        output_options=plan.output.options,
        tiles=grid.n_tiles,
        columns=grid.x.n_tiles,
        rows=grid.y.n_tiles,
        tile=grid.tile,
        stride=Size(grid.x.stride_px, grid.y.stride_px),
        overlap=Size(grid.x.overlap_px, grid.y.overlap_px),
        redundancy=plan.redundancy,
        blend=plan.blend,
        batch_size=plan.batch_size,
        workers=plan.workers,
        threads=plan.threads,
        runners=plan.runners,
        device=plan.device,
        engine=plan.engine,
        rewrites=plan.rewrites,
        seconds=start_s + model_s + decode_s / shared + timing.end_s,
        start_s=start_s,
        decode_s=decode_s,
        tile_s=timing.tile_s,
        end_s=timing.end_s,
        sample_tiles=timing.tiles,
        memory_bytes=memory_bytes,
        model_memory_bytes=model_bytes or 0,
        job_disk_bytes=job_disk_bytes,
        output_bytes=output_bytes,
        free_disk_bytes=free_disk_bytes(folder),
        warnings=(),
    )
    more = _think_of(report, plan, measured=model_bytes is not None)
    return replace(report, warnings=(*warnings, *more))


def _think_of(report: PlanReport, plan: Plan, *, measured: bool) -> Iterator[str]:
    free_bytes = available_memory_bytes()
    if free_bytes is not None and report.memory_bytes > free_bytes:
        yield (
            f"the job takes about {format_bytes(report.memory_bytes)} of memory and "
            f"{format_bytes(free_bytes)} is free: use --memory, or a smaller --tile-size."
        )
    if not measured:
        yield "what the model takes of the memory could not be measured, and is not counted."
    if report.job_disk_bytes + report.output_bytes > report.free_disk_bytes:
        yield (
            f"job folder and output take about "
            f"{format_bytes(report.job_disk_bytes + report.output_bytes)}, and "
            f"{format_bytes(report.free_disk_bytes)} is free where the output goes."
        )
    if report.redundancy > _MUCH_REDUNDANCY and report.tiles > 1:
        yield (
            f"{report.redundancy:.0%} of the model's work is done twice: use larger tiles, or a "
            "smaller --overlap."
        )
    if plan.image.decoded_whole:
        yield (
            f"the input is of a kind that is decoded whole, which takes "
            f"{format_bytes(plan.image.decoder_bytes)} of memory."
        )
    if os.path.isdir(plan.job_dir) and not plan.fresh:
        yield (
            f"{plan.job_dir} holds an earlier run: the job would go on from there, and take less."
        )
