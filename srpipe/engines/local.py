"""Every stage a process of its own, on this machine."""

from __future__ import annotations

from pathlib import Path

from srpipe.engines.lead import lead
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.supervisor import Supervisor


def run_local(
    plan: Plan,
    at: Checkpoint,
    partial_output: str,
    log_path: Path,
    lock_descriptor: int,
    conductor: Conductor,
) -> None:
    """Carry out ``plan`` from ``at`` on and leave the finished file at ``partial_output``.

    Raises:
        SpaceError: too little memory for the tiles in flight.
        RunError: a stage failed or its process died.
        Interrupted: the run was asked to stop.
    """
    with Supervisor(plan, partial_output, at, log_path, lock_descriptor) as supervisor:
        lead(supervisor, conductor)
