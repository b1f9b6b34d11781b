"""The durable record of how far a job is.

Two files are overwritten in turn, so that one is whole whatever happens to the other; their blocks are
taken with the canvas, so that a disk that has filled up since does not keep a job from saving its work.
A record speaks of pixels and seams that are on the disk, and holds checksums of what a resumed job will
read again. Of pixels that is all; of seams, for the next tile in column c of its row:

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
from srpipe.io.small_files import parse_json, read_small
from srpipe.plan.plain import rebuild

CHECKPOINT_FILES = ("checkpoint-0.json", "checkpoint-1.json")
_MAX_BYTES = 256_000_000
_END = b"\0"  # behind it may be the rest of an earlier, longer record


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
    pixels_crcs: tuple[int, ...] = ()
    """CRC-32 of what the tiles of each row before the next tile's have stored, tile after tile."""
    pixels_crc: int = 0
    """The same of the next tile's row, for the columns done."""
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
            pixels_crc=0,
            filled_tiles=tuple(tile for tile in self.filled_tiles if tile < row_start),
        )


def checkpoint_bytes(columns: int, rows: int, *, fills: bool) -> int:
    """The most that a checkpoint of a job takes.

    Args:
        columns, rows: of its tiles.
        fills: it goes on where its input cannot be read, and lists those tiles.
    """
    numbers = 2 * columns + rows + (columns * rows if fills else 0)
    return 4096 + numbers * len("4294967295, ")


def free_slot(folder: Path, at: Checkpoint) -> int:
    """Which of the files to overwrite first: not the one with the state that a run begins at."""
    first = _load(folder / CHECKPOINT_FILES[0])
    return 1 if first is not None and at in (first, first.at_row_start()) else 0


def save_checkpoint(folder: Path, checkpoint: Checkpoint, slot: int) -> None:
    """Overwrite one of the two checkpoints; what it speaks of must be on the disk.

    Raises:
        OSError: it cannot be written; the other one is untouched.
    """
    body = json.dumps(asdict(checkpoint))
    record = {"checkpoint": body, "sha256": _sha256(body)}
    path = folder / CHECKPOINT_FILES[slot % 2]
    disk.overwrite_file(path, json.dumps(record).encode() + _END)
    disk.sync_file(path)


def load_checkpoints(folder: Path, job: str | None) -> Iterator[Checkpoint]:
    """The whole checkpoints of the job with digest ``job``, or of any, the farthest first."""
    found = [_load(folder / name) for name in CHECKPOINT_FILES]
    whole = [checkpoint for checkpoint in found if checkpoint and job in (None, checkpoint.job)]
    yield from sorted(whole, key=lambda checkpoint: checkpoint.next_tile, reverse=True)


def _load(path: Path) -> Checkpoint | None:
    try:
        content, _, _ = read_small(path, _MAX_BYTES, follow=False).partition(_END)
        record = parse_json(content)
        body = record["checkpoint"]
        if record["sha256"] != _sha256(body):
            return None
        checkpoint = rebuild(Checkpoint, parse_json(body))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    possible = all(0 <= tile < checkpoint.next_tile for tile in checkpoint.filled_tiles)
    return checkpoint if possible else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
