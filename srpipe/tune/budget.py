"""What a job may take of the memory, and what it takes."""

from __future__ import annotations

from srpipe.io.space import available_memory_bytes
from srpipe.plan.job import Plan
from srpipe.plan.memory import rows_bytes, seen_tiles

DEFAULT_SHARE = 0.5
"""Of the memory that is free, for a job that is given no budget."""
# Measured with scripts/memory, tiles of 256 to 1024: interpreters with their libraries, and what stages
# make of the slots' content while they work.
_PIPELINE_BYTES = 160_000_000
_ONE_PROCESS_BYTES = 120_000_000
_WORKER_BYTES = 40_000_000
_SLOTS_FACTOR = 1.8


def job_budget_bytes(wanted_bytes: int | None) -> int | None:
    """What a job may take: what was asked for, or a share of what is free; None if nobody can tell.

    Limits of cgroups count as they do for everybody: nothing beyond what is free is promised.
    """
    free_bytes = available_memory_bytes()
    if wanted_bytes is None:
        return None if free_bytes is None else int(DEFAULT_SHARE * free_bytes)
    return wanted_bytes if free_bytes is None else min(wanted_bytes, free_bytes)


def pipeline_bytes(plan: Plan) -> int:
    """What a job takes beside its model: processes, slots, and the rows that libvips holds."""
    if plan.own_processes:
        processes = _PIPELINE_BYTES + _WORKER_BYTES * plan.workers
        slots = round(_SLOTS_FACTOR * plan.slot_bytes)
    else:
        processes, slots = _ONE_PROCESS_BYTES, plan.slot_bytes
    pixel_bytes = plan.image.bands * plan.image.sample_bytes
    rows = rows_bytes(plan.image.size.width * pixel_bytes, plan.writer_row_bytes)
    tile_bytes = plan.grid.tile.pixels * pixel_bytes
    seen = 2 * seen_tiles(tile_bytes) * tile_bytes if plan.reuse else 0
    beyond_px = plan.frame.whole.y.length_px - plan.image.size.height
    kept = beyond_px * plan.image.size.width * pixel_bytes
    return processes + slots + rows + seen + (kept if plan.frame.edges == "wrap" else 0)
