"""``srpipe tune``: everything that was measured of a model here, and what is chosen of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from srpipe.errors import RunError
from srpipe.plan.geometry import Size
from srpipe.plan.model_info import ModelInfo
from srpipe.settings import Settings
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.choice import consider
from srpipe.tune.job import Task, devices_to_try
from srpipe.tune.nominal import nominal_planner

_SWEEP_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way to run the model, measured."""

    arrangement: Arrangement
    tile: Size
    """Input pixels."""
    batch: int
    model_mp_s: float
    """Megapixels of input that the model computes in a second."""
    useful_mp_s: float
    """The same less what neighbouring tiles compute twice, on a large image."""
    gain: float
    """Useful speed against the usual tile, batch and arrangement."""
    model_bytes: int
    """What all sessions take, measured."""
    job_bytes: int
    """What a job on an image of 16384x16384 takes in all, about."""
    fits: bool
    """Whether that is within the memory."""
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """What runs a model best on this machine."""

    model: str
    device: str
    """That of the choice."""
    cores: int
    budget_bytes: int | None
    lines: tuple[Line, ...]
    """By useful speed, ascending."""
    swept: bool
    """Whether everything was to be measured, and not only what looked promising."""
    complete: bool
    """Whether a sweep had time for everything."""
    choice_of_best: float
    """Useful speed of the choice as a share of the best that fits."""

    @property
    def chosen(self) -> Line:
        """The choice."""
        return next(line for line in self.lines if line.chosen)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def tune_model(
    info: ModelInfo,
    settings: Settings,
    device: str,
    cores: int,
    original_path: str,
    *,
    sweep: bool = False,
) -> TuneReport:
    """Measure what runs a model best, whatever was measured before, and keep it for later jobs.

    Args:
        info: the model, probed, with the file for the plain processor.
        settings: device, memory, and what else is fixed.
        device: resolved.
        cores: processor cores there are.
        original_path: the file for other devices.
        sweep: then measure everything else too.

    Raises:
        SpaceError: nothing fits into the memory.
        RunError: the model cannot be measured.
    """
    task = Task(info, settings, devices_to_try(settings, device), cores, original_path)
    plan_for = nominal_planner(info, cores)
    task.search(anew=True)
    choice = task.choose(plan_for)
    if choice is None:
        raise RunError(f"{info.name} cannot be measured here: run it with -v to see why.")
    chosen = choice.row.candidate
    complete = sweep and task.sweep(chosen, _SWEEP_S)
    usual = Candidate(task.choices.arrangements[0], task.choices.base, task.choices.batches[0])
    rows = task.table.rows
    merits = {c: row.mp_s * task.useful(c.tile) for c, row in rows.items()}
    chosen_merit = merits.get(chosen, choice.row.mp_s * task.useful(chosen.tile))
    lines = []
    for candidate in sorted(rows, key=merits.__getitem__):
        option = consider(rows[candidate], settings, plan_for)
        if option is None:
            continue
        lines.append(
            Line(
                arrangement=candidate.arrangement,
                tile=candidate.tile,
                batch=candidate.batch,
                model_mp_s=rows[candidate].mp_s,
                useful_mp_s=merits[candidate],
                gain=merits[candidate] / merits.get(usual, chosen_merit),
                model_bytes=rows[candidate].worker_bytes * candidate.arrangement.workers,
                job_bytes=option.job_bytes,
                fits=task.budget_bytes is None or option.job_bytes <= task.budget_bytes,
                chosen=candidate == chosen,
            )
        )
    best = max((line.useful_mp_s for line in lines if line.fits), default=chosen_merit)
    return TuneReport(
        model=info.name,
        device=chosen.arrangement.device,
        cores=cores,
        budget_bytes=task.budget_bytes,
        lines=tuple(lines),
        swept=sweep,
        complete=complete,
        choice_of_best=chosen_merit / best,
    )
