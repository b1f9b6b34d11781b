"""Which of the measured ways to run a model suits a job best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from srpipe.errors import SettingsError
from srpipe.plan.job import Plan
from srpipe.settings import Settings
from srpipe.tune.budget import pipeline_bytes
from srpipe.tune.candidates import Candidate
from srpipe.tune.search import Row

# Among those that are nearly as fast as the best, the one that takes least memory.
_AS_GOOD = 0.98
# Another provider must be faster by more than noise.
_FOREIGN_COST = 1.03

Planner = Callable[[Settings, str], Plan]
"""Makes a job's plan from settings and a device."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A row as a job would use it."""

    row: Row
    plan: Plan
    seconds: float
    """The model's time for the whole job."""
    job_bytes: int
    """What the job takes of the memory in all."""


def with_candidate(settings: Settings, candidate: Candidate) -> Settings:
    """Settings that leave nothing open which a candidate decides."""
    square = candidate.tile.width == candidate.tile.height
    arrangement = candidate.arrangement
    return replace(
        settings,
        tile_size=candidate.tile.width if square else settings.tile_size,
        batch_size=candidate.batch,
        workers=arrangement.workers,
        threads=arrangement.session_threads,
        runners=arrangement.runners,
    )


def as_asked(candidate: Candidate, settings: Settings, devices: Iterable[str]) -> bool:
    """Whether a candidate agrees with all that settings fix."""
    arrangement = candidate.arrangement
    wanted = (
        (settings.tile_size, candidate.tile.width),
        (settings.batch_size, candidate.batch),
        (settings.workers, arrangement.workers),
        (settings.runners, arrangement.runners),
    )
    if any(fixed not in (None, value) for fixed, value in wanted):
        return False
    # Cores that do not divide evenly among runners are left over.
    threads = settings.threads
    if threads is not None:
        share = max(1, threads // arrangement.runners)
        if share != arrangement.threads or arrangement.session_threads > threads:
            return False
    return arrangement.device in devices


def consider(row: Row, settings: Settings, plan_for: Planner) -> Choice | None:
    """What a row means for a job; None if it cannot be."""
    candidate = row.candidate
    arrangement = candidate.arrangement
    try:
        plan = plan_for(with_candidate(settings, candidate), arrangement.device)
    except SettingsError:  # the overlap is too large for the tile
        return None
    # So few tiles that one process would take them, which is another arrangement.
    if plan.serial and arrangement.runs > 1:
        return None
    runs = plan.workers * plan.runners
    batches = -(-plan.grid.n_tiles // plan.batch_size)
    # The last runs may leave some runners without work.
    model_pixels = -(-batches // runs) * runs * plan.batch_size * plan.grid.tile.pixels
    seconds = model_pixels / 1e6 / row.mp_s
    job_bytes = pipeline_bytes(plan) + arrangement.workers * row.worker_bytes
    return Choice(row, plan, seconds, job_bytes)


def choose(choices: Iterable[Choice], budget_bytes: int | None) -> Choice | None:
    """The fastest that fits; of several as fast, the one that takes least memory."""
    fitting = [c for c in choices if budget_bytes is None or c.job_bytes <= budget_bytes]
    if not fitting:
        return None

    def cost_s(choice: Choice) -> float:
        foreign = choice.row.candidate.arrangement.device != "cpu"
        return choice.seconds * (_FOREIGN_COST if foreign else 1.0)

    best_s = min(map(cost_s, fitting))
    return min(
        (c for c in fitting if cost_s(c) * _AS_GOOD <= best_s),
        key=lambda choice: (choice.job_bytes, cost_s(choice)),
    )
