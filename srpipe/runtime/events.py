"""What a caller hears of a job: progress while it runs, a report at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from srpipe.plan.geometry import Rect, Size
from srpipe.plan.job import Plan, ResolvedEngine
from srpipe.runtime.activity import Activity, StageTime
from srpipe.runtime.messages import Blend, Done
from srpipe.runtime.pace import Pace
from srpipe.runtime.scheduler import Scheduler

logger = logging.getLogger(__name__)

JobState = Literal["started", "running", "finished"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a job is."""

    state: JobState
    tiles_done: int
    tiles_total: int
    output_mp_done: float
    """Megapixels of the output whose tiles are blended."""
    output_mp_total: float
    elapsed_s: float
    output_mp_per_s: float
    remaining_s: float | None
    """None until it can be told."""

    @classmethod
    def at(
        cls, state: JobState, tiles_done: int, *, total: int, before: int, output_mp: float,
        elapsed_s: float, pace: Pace,
    ) -> ProgressEvent:  # fmt: skip
        """How far a job is with so many tiles done.

        Args:
            state: of the job.
            tiles_done: by earlier runs too.
            total: tiles of the job.
            before: tiles that earlier runs had done.
            output_mp: megapixels of the output.
            elapsed_s: since the request.
            pace: of this run.
        """
        now = tiles_done - before
        return cls(
            state=state,
            tiles_done=tiles_done,
            tiles_total=total,
            output_mp_done=output_mp * tiles_done / total,
            output_mp_total=output_mp,
            elapsed_s=elapsed_s,
            output_mp_per_s=output_mp * now / total / max(elapsed_s, 1e-9),
            remaining_s=pace.remaining_s(elapsed_s, now, total - tiles_done),
        )

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


ProgressCallback = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a finished job did."""

    input: str
    output: str
    model: str
    input_size: Size
    """Of the part that was enhanced, which is all of it unless a region was asked for."""
    output_size: Size
    tiles: int
    resumed_tiles: int
    """Tiles that an earlier, interrupted run had done."""
    reused_tiles: int
    """Tiles of this run that had the pixels of another, and got its result."""
    skipped_tiles: int
    """Tiles of this run that were resized plainly: outside of the mask, or background."""
    filled: tuple[Rect, ...]
    """Parts of the input, input pixels, that could not be read whole, and were filled."""
    tile: Size
    """Input pixels."""
    stride: Size
    """Largest distance of two tiles' origins, input pixels."""
    redundancy: float
    """Share of the model's work beyond one computation per input pixel."""
    batch_size: int
    workers: int
    threads: int
    device: str
    engine: ResolvedEngine | Literal["slabs"]
    """How the stages ran; slabs: each slab by an engine of its own."""
    seconds: float
    """The whole job, from plan to file in place."""
    stages: dict[str, StageTime] = field(default_factory=dict)
    """What each stage did with the time, in the order a pixel travels. The writer is busy where others
    wait for it; in a process of its own, while its processor is."""

    mask_share: float | None = None
    """How much of the image, or of the part that was enhanced, its mask is white in; None: no mask."""
    slabs: int = 1
    """Bands of rows that were computed apart."""

    @property
    def stage_s(self) -> dict[str, float]:
        """Seconds each stage was busy, the mean over those of its hands that work at the same time."""
        return {name: times.busy_s for name, times in self.stages.items()}

    @property
    def output_mp_per_s(self) -> float:
        """Megapixels of output per second of this run."""
        return self.output_size.megapixels * self._share_done_now / max(self.seconds, 1e-9)

    @property
    def input_mp_per_s(self) -> float:
        """Megapixels of input per second of this run."""
        return self.input_size.megapixels * self._share_done_now / max(self.seconds, 1e-9)

    @property
    def _share_done_now(self) -> float:
        return 1 - self.resumed_tiles / self.tiles

    def as_dict(self) -> dict[str, Any]:
        """All fields and rates as plain values, for JSON."""
        rates = {"output_mp_per_s": self.output_mp_per_s, "input_mp_per_s": self.input_mp_per_s}
        return asdict(self) | rates


class Monitor:
    """Turns what stages report into progress events and the final report."""

    def __init__(self, plan: Plan, callback: ProgressCallback | None, begin_s: float) -> None:
        """Watch a job that began at ``begin_s`` on the monotonic clock."""
        self._plan = plan
        self._callback = callback
        self._begin_s = begin_s
        self._activity = Activity({"worker": plan.workers * plan.runners})
        self._first_tile = 0
        self._filled_tiles: tuple[int, ...] = ()
        self._reused_tiles = self._skipped_tiles = self._beyond = 0
        self._pace = Pace()

    def started(self, first_tile: int) -> None:
        """Tell that the job has begun, or goes on at ``first_tile``."""
        self._first_tile = first_tile
        self._tell("started", first_tile)

    def on_done(self, done: Done, scheduler: Scheduler) -> None:
        """Take note of a carried-out instruction."""
        self._activity.done(done)
        self._beyond += done.beyond
        self._filled_tiles = scheduler.filled_tiles
        self._reused_tiles = scheduler.reused_tiles
        self._skipped_tiles = scheduler.skipped_tiles
        if isinstance(done.instruction, Blend):
            self._tell("running", scheduler.tiles_done)

    def note_loads(self, scheduler: Scheduler) -> None:
        """Take note of what the stages have to do from now on."""
        self._activity.note(scheduler.loads())

    def finished(self) -> Report:
        """Tell that all is done, and sum up."""
        self._tell("finished", self._plan.grid.n_tiles)
        self._warn()
        return self.report()

    def _warn(self) -> None:
        plan = self._plan
        if not self._beyond:
            return
        share = 100 * self._beyond / (plan.input_size.pixels * plan.colour.colours)
        logger.warning(
            "%.3g%% of the values of %s lie beyond black, %g, and white, %g, which the model is made "
            "for: say with --black and --white what they are.",
            share, plan.image.path, plan.black, plan.white,
        )  # fmt: skip

    def report(self) -> Report:
        """Sum up."""
        plan, grid = self._plan, self._plan.grid
        return Report(
            input=plan.image.path,
            output=plan.output.path,
            model=plan.model.name,
            input_size=plan.input_size,
            output_size=plan.output_size,
            tiles=grid.n_tiles,
            resumed_tiles=self._first_tile,
            reused_tiles=self._reused_tiles,
            skipped_tiles=self._skipped_tiles,
            filled=tuple(plan.source_of(tile) for tile in self._filled_tiles),
            tile=grid.tile,
            stride=Size(grid.x.stride_px, grid.y.stride_px),
            redundancy=plan.redundancy,
            batch_size=plan.batch_size,
            workers=plan.workers,
            threads=plan.threads,
            device=plan.device,
            engine=plan.engine,
            seconds=time.monotonic() - self._begin_s,
            stages=self._activity.times(),
            mask_share=None if plan.mask is None else plan.mask.share,
        )

    def _tell(self, state: JobState, tiles_done: int) -> None:
        if self._callback is None:
            return
        self._callback(
            ProgressEvent.at(
                state,
                tiles_done,
                total=self._plan.grid.n_tiles,
                before=self._first_tile,
                output_mp=self._plan.output_size.megapixels,
                elapsed_s=time.monotonic() - self._begin_s,
                pace=self._pace,
            )
        )
