"""The job folder of a job in slabs: what each slab has given so far, and whether there is room.

plan.json                   the plan of the whole, and its slabs
slab-0001/                  the job folder of the first slab, while it is worked on
slab-0001.tif, .zarr, .raw  its part of the output, whole
slab-0001.json              what was done for it; written when its part is there
slab-0000.stop              asks those who work on slabs to stop, for a moment
output.part.tif             the output while parts are joined

One process at a time may hold the lock of the folder: it makes the plan, or joins the parts. The slabs
are worked on beside it, by whoever has the lock of a slab's own folder; the only files they share are
the plan, which they read, and a slab's part, which is put in place whole by whoever has its lock.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srpipe.errors import SpaceError
from srpipe.io import disk
from srpipe.io.checkpoint import Checkpoint, load_checkpoints
from srpipe.io.job_folder import SLABS_FACT, JobFolder
from srpipe.io.job_lock import JobLock
from srpipe.io.small_files import read_json
from srpipe.io.space import format_bytes, free_disk_bytes, same_disk
from srpipe.plan.fingerprint import Fingerprint
from srpipe.plan.job import Plan
from srpipe.plan.slabs import Cut, part_output, slab_name, slab_plan


def in_slabs(facts: Fingerprint, cut: Cut) -> Fingerprint:
    """The fingerprint of a job in slabs, from that of the same job in one piece."""
    return facts | {SLABS_FACT: str(len(cut.slabs))}


class SlabsFolder(JobFolder):
    """The folder of a job in slabs, locked for as long as this object holds it."""

    def __init__(self, plan: Plan, facts: Fingerprint, lock: JobLock, cut: Cut) -> None:
        """Take over the folder.

        Args:
            plan: of the whole.
            facts: its fingerprint.
            lock: of the folder; it is released with the job.
            cut: the plan in slabs.
        """
        super().__init__(plan, in_slabs(facts, cut), lock)
        self._cut = cut

    def _last_good_state(self) -> Checkpoint | None:
        return Checkpoint(job=self._digest, next_tile=0, stored_px=0)

    def _reserve(self) -> None:
        """Each slab takes the room of its own canvas."""

    def _more_facts(self) -> dict[str, Any]:
        return {"slabs": [asdict(slab) for slab in self._cut.slabs]}

    def _remove_partial(self) -> None:
        # Rows of chunks that have been moved into a Zarr are nowhere else.
        if self._plan.output.format.name != "Zarr" or self._cut.part == "pixels":
            super()._remove_partial()

    def _check_space(self, *, going_on: bool) -> None:
        plan, cut = self._plan, self._cut
        raw_bytes = plan.cropped_size.pixels * plan.image.bands * plan.written.sample_bytes
        parts_bytes = raw_bytes if cut.part == "pixels" else plan.output_bytes
        canvas_bytes = max(slab_plan(plan, cut, slab, "").pixels_bytes for slab in cut.slabs)
        there_bytes = sum(self._taken_bytes(slab.index) for slab in cut.slabs)
        places = {os.fspath(self.path): max(parts_bytes - there_bytes, 0) + canvas_bytes}
        if not _moves_parts(plan, cut):
            beside = os.fspath(Path(plan.output.path).parent)
            place = os.fspath(self.path) if same_disk(beside, os.fspath(self.path)) else beside
            places[place] = places.get(place, 0) + plan.output_bytes
        for place, needed in places.items():
            free = free_disk_bytes(place)
            if needed > free:
                raise SpaceError(
                    f"{place} needs {format_bytes(needed)} ({needed} bytes) for the slabs' parts and "
                    f"the output, and has {format_bytes(free)} free: make room, write elsewhere, or "
                    "put the job's files on another disk with --job-dir."
                )

    def _taken_bytes(self, index: int) -> int:
        """What the part of a slab takes, or its canvas while it is being worked on."""
        own = self.path / slab_name(index)
        taken = sum(file.lstat().st_blocks * 512 for file in own.glob("*")) if own.is_dir() else 0
        if read_done(self.path, index, self._digest) is None:
            return taken
        path = Path(part_output(self._cut, self._cut.slabs[index], os.fspath(self.path)).path)
        if path.is_dir():  # of many small files: what they were expected to take
            rows_px = self._cut.slabs[index].height_px
            return self._plan.output_bytes * rows_px // self._plan.frame.crop.height
        return path.stat().st_size if path.exists() else 0

    def keep_or_remove(self) -> int:
        """Leave an ended job's folder as it is if there is something to go on with.

        Returns:
            Tiles that need not be computed again; 0: the folder is gone.
        """
        tiles = sum(tiles_done(self.path, slab.index, self._digest) for slab in self._cut.slabs)
        if not tiles:
            with contextlib.suppress(OSError):  # what has ended the job is the error to tell of
                self.remove()
        return tiles


def _moves_parts(plan: Plan, cut: Cut) -> bool:
    return plan.output.format.name == "Zarr" and cut.part == "encoded"


def read_done(folder: Path, index: int, job: str) -> dict[str, Any] | None:
    """What was done for a slab whose part is there; None: it is not.

    Args:
        folder: the job's.
        index: of the slab.
        job: digest of the whole; a part of another job, which a straggler has finished, is none.
    """
    try:
        record: dict[str, Any] = read_json(folder / f"{slab_name(index)}.json", follow=False)
        return record if record["job"] == job and isinstance(record["tiles"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_done(folder: Path, index: int, job: str, record: dict[str, Any]) -> None:
    """Say that a slab's part is there.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(record | {"job": job})
    disk.replace_file(folder / f"{slab_name(index)}.json", text.encode())


def stop_file(folder: Path) -> Path:
    """The file that tells slabs on other machines to stop; it is there for a moment only."""
    return folder / "slab-0000.stop"


def tiles_done(folder: Path, index: int, job: str) -> int:
    """Tiles of a slab that need not be computed again, whoever works on it."""
    done = read_done(folder, index, job)
    if done is not None:
        tiles: int = done["tiles"]
        return tiles
    found = load_checkpoints(folder / slab_name(index), None)
    return max((checkpoint.next_tile for checkpoint in found), default=0)
