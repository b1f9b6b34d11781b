"""All stages in this process, one after the other: the reference, and quick for small images."""

from __future__ import annotations

from collections import deque

from srpipe.plan.job import Plan
from srpipe.runtime.events import Monitor
from srpipe.runtime.messages import Instruction
from srpipe.runtime.scheduler import Scheduler
from srpipe.runtime.slots import local_slots
from srpipe.runtime.stages import STAGES, make_stage, stage_of


def run_serial(plan: Plan, partial_output: str, monitor: Monitor) -> None:
    """Carry out ``plan`` and leave the finished file at ``partial_output``.

    Raises:
        RunError: a stage failed; the unfinished file is removed.
    """
    slots = local_slots(plan)
    scheduler = Scheduler.for_plan(plan)
    stages = {}
    try:
        for name in STAGES:
            stages[name] = make_stage(name, plan, slots, partial_output)
        todo: deque[Instruction] = deque(scheduler.start())
        while not scheduler.finished:
            instruction = todo.popleft()
            done = stages[stage_of(instruction)].handle(instruction)
            todo.extend(scheduler.on_done(done))
            monitor.on_done(done, scheduler)
    except BaseException:
        for stage in stages.values():
            stage.abort()
        raise
