"""Every stage a process of its own, on this machine."""

from __future__ import annotations

from pathlib import Path

from srpipe.plan.job import Plan
from srpipe.runtime.events import Monitor
from srpipe.runtime.scheduler import Scheduler
from srpipe.runtime.supervisor import Supervisor


def run_local(plan: Plan, partial_output: str, log_path: Path, monitor: Monitor) -> None:
    """Carry out ``plan`` and leave the finished file at ``partial_output``.

    Raises:
        SpaceError: too little memory for the tiles in flight.
        RunError: a stage failed or its process died.
    """
    scheduler = Scheduler.for_plan(plan)
    with Supervisor(plan, partial_output, log_path) as supervisor:
        for instruction in scheduler.start():
            supervisor.send(instruction)
        for done in supervisor.events():
            if done is None:
                continue
            for instruction in scheduler.on_done(done):
                supervisor.send(instruction)
            monitor.on_done(done, scheduler)
            if scheduler.finished:
                supervisor.finish()
                return
