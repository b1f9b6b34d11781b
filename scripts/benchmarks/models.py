"""The bare speed of several models side by side, on ready batches of one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from srpipe.api import prepare
from srpipe.plan.job import Plan
from srpipe.settings import Settings

from .raw_session import RawSession, find_fastest, ready_batches
from .table import markdown_table

_ROUND_S = 1.0


@dataclass(frozen=True)
class ModelSpeed:
    """One model's speed, medians over the rounds."""

    model: str
    mp_per_s: float
    """Megapixels of input a second."""
    relative: float
    """To the first model: the median of the rounds' ratios."""


def compare_models(
    models: Sequence[str], source: Path, folder: Path, rounds: int, say: Callable[[str], None]
) -> list[ModelSpeed]:
    """Run every model for about a second in turn, ``rounds`` times, each in its best arrangement.

    Args:
        models: names of bundled models, or .onnx files; the first is what others are compared with.
        source: the picture.
        folder: where the output would go; nothing is written.
        rounds: how often.
        say: is told what is being done.
    """
    plans = [_plan(model, source, folder) for model in models]
    runs: list[tuple[RawSession, int]] = []
    for model, plan in zip(models, plans, strict=True):
        say(f"{model}: finding the best arrangement")
        batches = ready_batches(plan)
        arrangement = find_fastest(plan, batches)
        session = RawSession(plan, arrangement, batches)
        callers = arrangement.callers
        guess_s = session.time_s(callers) / callers
        runs.append((session, callers * max(1, round(_ROUND_S / guess_s / callers))))
    speeds: list[list[float]] = [[] for _ in models]
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for plan, (session, count), found in zip(plans, runs, speeds, strict=True):
            megapixels = count * plan.batch_size * plan.grid.tile.megapixels
            found.append(megapixels / session.time_s(count))
    return [
        ModelSpeed(
            model,
            median(found),
            median(own / first for own, first in zip(found, speeds[0], strict=True)),
        )
        for model, found in zip(models, speeds, strict=True)
    ]


def models_table(speeds: Sequence[ModelSpeed]) -> str:
    """Speeds as Markdown."""
    head = ("model", "MP/s of input", f"relative to {speeds[0].model}")
    rows = [(s.model, f"{s.mp_per_s:.3f}", f"{s.relative:.2f}") for s in speeds]
    return markdown_table(head, rows)


def _plan(model: str, source: Path, folder: Path) -> Plan:
    settings = Settings(model=model, overwrite=True)
    return prepare(str(source), str(folder / "out.tif"), settings)
