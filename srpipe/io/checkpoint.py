"""The durable record of how far a job is.

Two files are replaced in turn, so that one is whole whatever happens to the other. A record speaks
of pixels and seams that are on the disk, and of the seams a resumed job will read again it holds
checksums. Those are, for the next tile in column c of its row:

    seam below this row    columns 0 … c - 1, written by this row's tiles
    seam above this row    columns c … n - 1, still to be read; all of them to begin the row again
    seam to the left       of the next tile, written by the one before it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from srpipe.io import disk

_FILES = ("checkpoint-0.json", "checkpoint-1.json")
CHECKPOINT_FILES = (*_FILES, *(f"{name}.new" for name in _FILES))
"""Every name a checkpoint may have in the job folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a job is."""

    job: str
    """Digest of the job's fingerprint."""
    next_tile: int
    """Tiles before it, in raster order, are in the pixels and seams."""
    stored_px: int
    """Output pixels stored so far."""
    above_crc: tuple[int, ...] = ()
    """CRC-32 of the seam above the next tile's row, by column; empty in the first row."""
    below_crc: tuple[int, ...] = ()
    """CRC-32 of the seam below the next tile's row, by column, for the columns done."""
    left_crc: int | None = None
    """CRC-32 of the seam to the left of the next tile; None in the first column."""
    row_stored_px: int = 0
    """Output pixels stored before the next tile's row."""
    filled_tiles: tuple[int, ...] = ()
    """Tiles whose input could not be read whole."""

    def at_row_start(self) -> Checkpoint:
        """The state this job was in before the first tile of the next tile's row."""
        row_start = self.next_tile - len(self.below_crc)
        return replace(
            self,
            next_tile=row_start,
            stored_px=self.row_stored_px,
            below_crc=(),
            left_crc=None,
            filled_tiles=tuple(tile for tile in self.filled_tiles if tile < row_start),
        )


def save_checkpoint(folder: Path, checkpoint: Checkpoint, sequence: int) -> None:
    """Write a checkpoint in place of the last but one; what it speaks of must be on the disk.

    Raises:
        OSError: it cannot be written; the last one is untouched.
    """
    body = json.dumps(asdict(checkpoint))
    record = {"checkpoint": body, "sha256": _sha256(body)}
    disk.replace_file(folder / _FILES[sequence % 2], json.dumps(record).encode())


def load_checkpoints(folder: Path, job: str | None) -> Iterator[Checkpoint]:
    """The whole checkpoints of the job with digest ``job``, or of any, the farthest first."""
    found = [_load(folder / name) for name in _FILES]
    whole = [checkpoint for checkpoint in found if checkpoint and job in (None, checkpoint.job)]
    yield from sorted(whole, key=lambda checkpoint: checkpoint.next_tile, reverse=True)


def _load(path: Path) -> Checkpoint | None:
    try:
        record = json.loads(path.read_bytes())
        body = record["checkpoint"]
        if record["sha256"] != _sha256(body):
            return None
        facts = json.loads(body)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    lists = ("above_crc", "below_crc", "filled_tiles")
    return Checkpoint(**facts | {name: tuple(facts[name]) for name in lists})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
