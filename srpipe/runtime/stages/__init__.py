"""The stages of the pipeline, in the order a pixel travels.

Reader, batcher, worker, accumulator, writer: each carries out one kind of instruction. A stage is a
plain object that knows slots and one io object, no processes and no queues. Each is imported only
where it is made: a process loads what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from srpipe.errors import SrpipeError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Save, Write
from srpipe.runtime.slots import Slots

if TYPE_CHECKING:
    from srpipe.runtime.sessions import Sessions


class Stage(Protocol):
    """What an engine needs of a stage."""

    runners: int
    """Instructions that may be carried out at the same time."""

    def handle(self, instruction: Instruction) -> Done:
        """Carry out one instruction.

        Raises:
            SrpipeError: it cannot be done; the job cannot go on.
        """

    def abort(self) -> None:
        """Leave nothing unfinished behind."""


STAGES = ("reader", "batcher", "worker", "accumulator", "writer")
"""Names of the stages, in the order a pixel travels."""


def stage_of(instruction: Instruction) -> str:
    """The stage that carries out an instruction."""
    match instruction:
        case Read():
            return "reader"
        case Pack():
            return "batcher"
        case Run():
            return "worker"
        case Blend() | Save():
            return "accumulator"
        case Write():
            return "writer"


def make_stage(
    name: str,
    plan: Plan,
    slots: Slots,
    partial_output: str,
    at: Checkpoint,
    worker: int = 0,
    sessions: Sessions | None = None,
) -> Stage:
    """Set a stage up.

    Args:
        name: one of :data:`STAGES`.
        plan: the job.
        slots: mapped in this process.
        partial_output: the file the writer begins.
        at: how far the canvas is.
        worker: the stage's number, if it is a worker.
        sessions: where a worker's session comes from; None: it loads one of its own.

    Raises:
        SrpipeError: the input, the model or the output cannot be opened.
    """
    match name:
        case "reader":
            from srpipe.runtime.stages.reader import Reader

            return Reader(plan, slots, at)
        case "batcher":
            from srpipe.runtime.stages.batcher import Batcher

            return Batcher(plan, slots)
        case "worker":
            from srpipe.runtime.stages.worker import Worker

            return Worker(plan, slots, worker, sessions)
        case "accumulator":
            from srpipe.runtime.stages.accumulator import Accumulator

            return Accumulator(plan, slots, at)
        case "writer":
            from srpipe.runtime.stages.writer import Writer

            return Writer(plan, partial_output)
    raise SrpipeError(f"there is no stage {name!r}.")
