"""What a job may take of the memory, and what it takes."""

from __future__ import annotations

from srpipe.io.space import available_memory_bytes
from srpipe.plan.job import Plan
from srpipe.plan.memory import rows_bytes

DEFAULT_SHARE = 0.5
"""Of the memory that is free, for a job that is given no budget."""
# Measured (README): interpreters with their libraries, queues, and libvips' own buffers.
_PIPELINE_BYTES = 260_000_000
_SERIAL_BYTES = 120_000_000
_WORKER_BYTES = 45_000_000


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
    processes = _SERIAL_BYTES if plan.serial else _PIPELINE_BYTES + _WORKER_BYTES * plan.workers
    pixel_bytes = plan.image.bands * plan.image.sample_bytes
    rows = rows_bytes(plan.image.size.width * pixel_bytes, plan.output_size.width * pixel_bytes)
    return processes + plan.slot_bytes + rows
