"""Every stage in threads of this process: no process starts, and all cores work on one image."""

from __future__ import annotations

from srpipe.engines.lead import lead
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.stage_threads import StageThreadsOfJob
from srpipe.runtime.warm import Warm


def run_threads(
    plan: Plan, at: Checkpoint, partial_output: str, conductor: Conductor, warm: Warm
) -> None:
    """Carry out ``plan`` from ``at`` on and leave the finished file at ``partial_output``.

    Args:
        plan: the job.
        at: how far its canvas is.
        partial_output: the file to write.
        conductor: of the job; it works in the calling thread.
        warm: what is there from earlier jobs, or shared with others.

    Raises:
        SpaceError: too little memory for the tiles in flight.
        RunError: a stage failed.
        Interrupted: the run was asked to stop.
    """
    with (
        warm.memory.slots(plan) as slots,
        StageThreadsOfJob(plan, slots, partial_output, at, warm.sessions) as stages,
    ):
        lead(stages, conductor)
