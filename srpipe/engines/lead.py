"""What the engines whose stages work at the same time have in common: events in, instructions out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.runtime.conductor import Conductor
from srpipe.runtime.messages import Done, Failed, Instruction, Lost

logger = logging.getLogger(__name__)


class Crew(Protocol):
    """The stages of a job, wherever they are."""

    def send(self, instructions: list[Instruction]) -> None:
        """Pass instructions to the stages that carry them out."""

    def replace_worker(self, worker: int) -> None:
        """End a worker, if it has not ended, and start another in its place."""

    def events(self) -> Iterator[Done | Failed | Lost | None]:
        """What the stages report, as it comes; None at least twice a second."""

    def finish(self) -> None:
        """Take note that the job is complete, so that the stages have nothing to undo."""


def lead(crew: Crew, conductor: Conductor) -> None:
    """Carry the job out.

    Raises:
        RunError: a stage failed or was lost.
        Interrupted: the run was asked to stop.
    """
    crew.send(conductor.start())
    for event in crew.events():
        if event is not None:
            crew.send(_react(event, crew, conductor))
        crew.send(conductor.beat())
        if conductor.over:
            conductor.close()
            crew.finish()
            return


def _react(event: Done | Failed | Lost, crew: Crew, conductor: Conductor) -> list[Instruction]:
    match event:
        case Done() as done:
            return conductor.on_done(done)
        case Failed(OutOfMemoryError() as error, _, _, int(worker)):
            return _replace(worker, error, crew, conductor, out_of_memory=True)
        case Failed(error, traceback, instruction, _):
            if traceback:
                logger.debug("%s", traceback)
            return conductor.fail(error, instruction)
        case Lost(_, error, int(worker), out_of_memory):
            return _replace(worker, error, crew, conductor, out_of_memory=out_of_memory)
        case Lost("accumulator", error):
            raise conductor.reason or error
        case Lost(_, error):
            return conductor.fail(error, None)


def _replace(
    worker: int, error: StageError | OutOfMemoryError, crew: Crew, conductor: Conductor,
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
    crew.replace_worker(worker)
    return instructions
