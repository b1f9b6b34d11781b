"""Every stage a process of its own, on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.messages import Done, Failed, Instruction, Lost
from srpipe.runtime.supervisor import Supervisor

logger = logging.getLogger(__name__)


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
        supervisor.send(conductor.start())
        for event in supervisor.events():
            if event is not None:
                supervisor.send(_react(event, supervisor, conductor))
            supervisor.send(conductor.beat())
            if conductor.over:
                conductor.close()
                supervisor.finish()
                return


def _react(
    event: Done | Failed | Lost, supervisor: Supervisor, conductor: Conductor
) -> list[Instruction]:
    match event:
        case Done() as done:
            return conductor.on_done(done)
        case Failed(OutOfMemoryError() as error, _, _, int(worker)):
            return _replace(worker, error, supervisor, conductor, out_of_memory=True)
        case Failed(error, traceback, instruction, _):
            if traceback:
                logger.debug("%s", traceback)
            return conductor.fail(error, instruction)
        case Lost(_, error, int(worker), out_of_memory):
            return _replace(worker, error, supervisor, conductor, out_of_memory=out_of_memory)
        case Lost("accumulator", error):
            raise error
        case Lost(_, error):
            return conductor.fail(error, None)


def _replace(
    worker: int, error: StageError | OutOfMemoryError, supervisor: Supervisor, conductor: Conductor,
    *, out_of_memory: bool,
) -> list[Instruction]:  # fmt: skip
    before = conductor.scheduler.tiles_at_once
    try:
        instructions = conductor.scheduler.on_worker_lost(worker, out_of_memory=out_of_memory)
    except StageError as too_many:
        return conductor.fail(StageError(f"{error} {too_many}"), None)
    after = conductor.scheduler.tiles_at_once
    fewer = f", with {after} instead of {before} tiles at once" if after < before else ""
    logger.warning("%s The worker is replaced, and its tiles run again%s.", error, fewer)
    supervisor.replace_worker(worker)
    return instructions
