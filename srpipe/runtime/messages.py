"""Everything that travels between the supervisor and the stages: small integers, never pixels."""

from __future__ import annotations

from dataclasses import dataclass

from srpipe.errors import SrpipeError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.plan.job import Plan


@dataclass(frozen=True, slots=True)
class Read:
    """Reader: put a tile's pixels into a tile slot."""

    tile: int
    tile_slot: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Batcher: turn tiles into a batch."""

    batch: int
    tile_slots: tuple[int, ...]
    batch_slot: int


@dataclass(frozen=True, slots=True)
class Run:
    """Worker: run the model from a batch slot into a result slot."""

    worker: int
    batch: int
    batch_slot: int
    result_slot: int
    tiles_at_once: int
    """Tiles that go through the model together: fewer than a batch where memory is short."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Accumulator: blend results of one row of tiles into the pixels, in raster order."""

    tiles: tuple[int, ...]
    places: tuple[tuple[int, int] | None, ...]
    """For each tile: the result slot that holds its result, and the place in the batch there. None: the
    model has not seen it."""
    tile_slots: tuple[int, ...]
    """Where the tiles' input pixels are kept; empty if they are not needed."""


@dataclass(frozen=True, slots=True)
class Save:
    """Accumulator: bring pixels and seams to the disk, and a checkpoint that speaks of them."""

    filled_tiles: tuple[int, ...]
    """Tiles whose input could not be read whole, of all that were read."""


@dataclass(frozen=True, slots=True)
class Write:
    """Writer: encode the final rows up to ``stop_row``, output pixels; ``last`` finishes the file."""

    stop_row: int
    last: bool


Instruction = Read | Pack | Run | Blend | Save | Write


@dataclass(frozen=True, slots=True)
class Done:
    """A stage has carried out an instruction."""

    instruction: Instruction
    busy_s: float
    finished_rows_px: int = 0
    """Blend: output rows from the top that no later tile changes."""
    stored_px: int = 0
    """Blend: output pixels stored so far."""
    filled: bool = False
    """Read: the tile could not be read whole."""
    same_as: int | None = None
    """Read: an earlier tile, of this run, that has the same pixels."""
    skipped: bool = False
    """Read: the tile is not worth the model."""
    beyond: int = 0
    """Read: float samples that lie beyond black and white, of those that no later tile has."""


@dataclass(frozen=True, slots=True)
class Setup:
    """First message to a stage's process: what it is and what it works on."""

    stage: str
    plan: Plan
    slots_descriptor: int
    partial_output: str
    at: Checkpoint
    """How far the canvas is."""
    worker: int
    """The stage's number, if it is a worker."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage cannot go on."""

    error: SrpipeError
    traceback: str
    """Empty where the error is the user's to mend."""
    instruction: Instruction | None
    """What could not be carried out; None: the stage could not be set up."""
    worker: int | None = None
    """Its number, if the stage is a worker."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A stage's process has ended."""

    stage: str
    error: StageError
    """Says how."""
    worker: int | None
    """Its number, if it was a worker."""
    out_of_memory: bool
    """The kernel ended it, as far as can be told, for want of memory."""
