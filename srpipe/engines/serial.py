"""All stages in this process, one after the other: the reference, and quick for small images."""

from __future__ import annotations

import logging
from collections import deque

from srpipe.errors import OutOfMemoryError, RunError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.messages import Instruction
from srpipe.runtime.slots import local_slots
from srpipe.runtime.stages import STAGES, Stage, make_stage, stage_of

logger = logging.getLogger(__name__)


def run_serial(plan: Plan, at: Checkpoint, partial_output: str, conductor: Conductor) -> None:
    """Carry out ``plan`` from ``at`` on and leave the finished file at ``partial_output``.

    Raises:
        RunError: a stage failed; the unfinished file is removed.
        Interrupted: the run was asked to stop; likewise.
    """
    slots = local_slots(plan)
    stages: dict[str, Stage] = {}
    try:
        for name in STAGES:
            stages[name] = make_stage(name, plan, slots, partial_output, at)
        todo: deque[Instruction] = deque(conductor.start())
        while not conductor.over:
            todo.extend(conductor.beat())
            if not todo:
                continue
            instruction = todo.popleft()
            try:
                done = stages[stage_of(instruction)].handle(instruction)
            except OutOfMemoryError as error:
                logger.warning("%s The model is loaded again.", error)
                stages["worker"] = make_stage("worker", plan, slots, partial_output, at)
                todo.extend(conductor.scheduler.on_worker_lost(0, out_of_memory=True))
            except RunError as error:
                todo.extend(conductor.fail(error, instruction))
            else:
                todo.extend(conductor.on_done(done))
        conductor.close()
    except BaseException:
        for stage in stages.values():
            stage.abort()
        raise
