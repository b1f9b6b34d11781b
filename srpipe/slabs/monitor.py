"""Progress and report of a job in slabs, from what the slabs' folders hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from srpipe.io.slabs_folder import tiles_done
from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from srpipe.plan.slabs import Cut, Slab, redundancy
from srpipe.runtime.activity import StageTime
from srpipe.runtime.events import JobState, ProgressCallback, ProgressEvent, Report
from srpipe.runtime.pace import Pace


class SlabsMonitor:
    """Watches the slabs of a job from outside: each is known by its checkpoints."""

    def __init__(
        self, plan: Plan, cut: Cut, job: str, progress: ProgressCallback | None, begin_s: float
    ) -> None:
        """Watch a job.

        Args:
            plan: of the whole.
            cut: the plan in slabs.
            job: its digest.
            progress: called with a progress event of the whole.
            begin_s: when the request was made, monotonic clock.
        """
        self._plan, self._cut, self._job = plan, cut, job
        self._folder = Path(plan.job_dir)
        self._progress = progress
        self._begin_s = begin_s
        self._tiles = {slab.index: tiles_done(self._folder, slab.index, job) for slab in cut.slabs}
        self.resumed_tiles = sum(self._tiles.values())
        self._total = sum(slab.n_tiles for slab in cut.slabs)
        self._pace = Pace()
        self._told = -1

    def tell(self, state: JobState, slabs: Sequence[Slab] = ()) -> None:
        """Tell how far the job is, if that is news.

        Args:
            state: of the job.
            slabs: those that may have gone on since.
        """
        for slab in slabs:
            done = tiles_done(self._folder, slab.index, self._job)
            # A folder may be gone before what was done for it is seen here.
            self._tiles[slab.index] = max(self._tiles[slab.index], done)
        tiles = self._total if state == "finished" else sum(self._tiles.values())
        if self._progress is None or (state == "running" and tiles == self._told):
            return
        self._told = tiles
        self._progress(
            ProgressEvent.at(
                state,
                tiles,
                total=self._total,
                before=self.resumed_tiles,
                output_mp=self._plan.output_size.megapixels,
                elapsed_s=time.monotonic() - self._begin_s,
                pace=self._pace,
            )
        )

    def report(self, slabs: Sequence[Report], at_once: int) -> Report:
        """Sum up.

        Args:
            slabs: what was done for each.
            at_once: how many were computed at the same time.
        """
        plan, grid = self._plan, self._plan.grid
        return Report(
            input=plan.image.path,
            output=plan.output.path,
            model=plan.model.name,
            input_size=plan.input_size,
            output_size=plan.output_size,
            tiles=self._total,
            resumed_tiles=self.resumed_tiles,
            reused_tiles=sum(slab.reused_tiles for slab in slabs),
            skipped_tiles=sum(slab.skipped_tiles for slab in slabs),
            filled=tuple(dict.fromkeys(rect for slab in slabs for rect in slab.filled)),
            tile=grid.tile,
            stride=Size(grid.x.stride_px, grid.y.stride_px),
            redundancy=redundancy(plan, self._cut.slabs),
            batch_size=plan.batch_size,
            workers=at_once * plan.workers,
            threads=plan.threads,
            device=plan.device,
            engine="slabs",
            seconds=time.monotonic() - self._begin_s,
            stages=_summed([slab.stages for slab in slabs]),
            mask_share=None if plan.mask is None else plan.mask.share,
            slabs=len(self._cut.slabs),
        )


def _summed(stages: list[dict[str, StageTime]]) -> dict[str, StageTime]:
    names = dict.fromkeys(name for of_slab in stages for name in of_slab)
    return {
        name: StageTime(
            **{
                key: sum(getattr(of_slab[name], key) for of_slab in stages if name in of_slab)
                for key in ("busy_s", "waiting_for_input_s", "waiting_for_room_s")
            }
        )
        for name in names
    }
