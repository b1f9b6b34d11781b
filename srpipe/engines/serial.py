"""All stages in this process, one after the other: the reference, and quick for small images."""

from __future__ import annotations

import logging
from collections import deque

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.failures import failed
from srpipe.runtime.messages import Done, Failed, Instruction
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

    def make(name: str) -> None:
        try:
            stages[name] = make_stage(name, plan, slots, partial_output, at, 0, sessions)
        except Exception as error:
            raise failed(error, name, None).error from None

    try:
        for name in STAGES:
            make(name)
        todo: deque[Instruction] = deque(conductor.start())
        while not conductor.over:
            todo.extend(conductor.beat())
            if not todo:
                continue
            instruction = todo.popleft()
            name = stage_of(instruction)
            try:
                if name not in stages:
                    make(name)
                event: Done | Failed = stages[name].handle(instruction)
            except Exception as error:
                # Handled below: the traceback of this one holds on to the session and its memory.
                event = failed(error, name, instruction)
            if isinstance(event, Done):
                todo.extend(conductor.on_done(event))
            elif name == "worker" and isinstance(event.error, OutOfMemoryError):
                del stages[name]
                todo.extend(_run_again(event.error, conductor))
            else:
                if event.traceback:
                    logger.debug("%s", event.traceback)
                todo.extend(conductor.fail(event.error, instruction))
        conductor.close()
    except BaseException:
        for stage in stages.values():
            stage.abort()
        raise


def _run_again(reason: OutOfMemoryError, conductor: Conductor) -> list[Instruction]:
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
