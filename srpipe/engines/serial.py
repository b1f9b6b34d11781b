"""All stages in this process, one after the other: the reference, and quick for small images."""

from __future__ import annotations

import logging
from collections import deque

from srpipe.errors import OutOfMemoryError, RunError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.messages import Instruction
from srpipe.runtime.sessions import Sessions
from srpipe.runtime.slots import Slots
from srpipe.runtime.stages import STAGES, Stage, make_stage, stage_of
from srpipe.runtime.warm import Warm

logger = logging.getLogger(__name__)


def run_serial(
    plan: Plan, at: Checkpoint, partial_output: str, conductor: Conductor, warm: Warm
) -> None:
    """Carry out ``plan`` from ``at`` on and leave the finished file at ``partial_output``.

    Args:
        plan: the job.
        at: how far its canvas is.
        partial_output: the file to write.
        conductor: of the job.
        warm: what is there from earlier jobs, or shared with others.

    Raises:
        RunError: a stage failed; the unfinished file is removed.
        Interrupted: the run was asked to stop; likewise.
    """
    with warm.memory.slots(plan) as slots:
        _run(plan, at, partial_output, conductor, slots, warm.sessions)


def _run(
    plan: Plan, at: Checkpoint, partial_output: str, conductor: Conductor, slots: Slots,
    sessions: Sessions,
) -> None:  # fmt: skip
    stages: dict[str, Stage] = {}
    try:
        for name in STAGES:
            stages[name] = make_stage(name, plan, slots, partial_output, at, 0, sessions)
        todo: deque[Instruction] = deque(conductor.start())
        while not conductor.over:
            todo.extend(conductor.beat())
            if not todo:
                continue
            instruction = todo.popleft()
            name, out_of_memory = stage_of(instruction), ""
            try:
                if name not in stages:
                    stages[name] = make_stage(name, plan, slots, partial_output, at, 0, sessions)
                done = stages[name].handle(instruction)
            except OutOfMemoryError as error:
                # Not kept, nor handled here: its traceback holds on to the session and its memory.
                out_of_memory = str(error)
            except RunError as error:
                todo.extend(conductor.fail(error, instruction))
            else:
                todo.extend(conductor.on_done(done))
            if out_of_memory:
                stages.pop("worker", None)
                todo.extend(_run_again(out_of_memory, conductor))
        conductor.close()
    except BaseException:
        for stage in stages.values():
            stage.abort()
        raise


def _run_again(reason: str, conductor: Conductor) -> list[Instruction]:
    """What to do after the worker ran out of memory, and is gone."""
    try:
        instructions = conductor.scheduler.on_worker_lost(0, out_of_memory=True)
    except StageError as too_many:
        return conductor.fail(StageError(f"{reason} {too_many}"), None)
    logger.warning(
        "%s The model is loaded again, for %d tiles at once.",
        reason,
        conductor.scheduler.tiles_at_once,
    )
    return instructions
