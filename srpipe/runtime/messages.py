"""Everything that travels between the supervisor and the stages: small integers, never pixels."""

from __future__ import annotations

from dataclasses import dataclass

from srpipe.errors import SrpipeError
from srpipe.plan.job import Plan


@dataclass(frozen=True, slots=True)
class Read:
    """Reader: put a tile's pixels into a tile slot."""

    tile: int
    tile_slot: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Batcher: pad tiles and turn them into a batch."""

    batch: int
    tiles: tuple[int, ...]
    tile_slots: tuple[int, ...]
    batch_slot: int


@dataclass(frozen=True, slots=True)
class Run:
    """Worker: run the model from a batch slot into a result slot."""

    worker: int
    batch: int
    batch_slot: int
    result_slot: int


@dataclass(frozen=True, slots=True)
class Blend:
    """Accumulator: blend a batch's results into the pixels, in raster order."""

    batch: int
    tiles: tuple[int, ...]
    tile_slots: tuple[int, ...]
    """Where the tiles' input pixels are kept; empty if they are not needed."""
    result_slot: int


@dataclass(frozen=True, slots=True)
class Write:
    """Writer: encode the final rows up to ``stop_row``, output pixels; ``last`` finishes the file."""

    stop_row: int
    last: bool


Instruction = Read | Pack | Run | Blend | Write


@dataclass(frozen=True, slots=True)
class Done:
    """A stage has carried out an instruction."""

    instruction: Instruction
    busy_s: float
    finished_rows_px: int = 0
    """Blend: output rows from the top that no later tile changes."""
    stored_px: int = 0
    """Blend: output pixels stored so far."""


@dataclass(frozen=True, slots=True)
class Setup:
    """First message to a stage's process: what it is and what it works on."""

    stage: str
    plan: Plan
    slots_descriptor: int
    partial_output: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage cannot go on."""

    error: SrpipeError
    traceback: str
    """Empty where the error is the user's to mend."""
