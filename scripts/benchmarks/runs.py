"""One measurement of one kind, and how far apart two pictures are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyvips

from .processes import Usage
from .task import Request, run_task


@dataclass(frozen=True)
class Run:
    """One measurement."""

    seconds: float
    cpu_s: float
    """Processor seconds of all its processes."""
    stages: dict[str, dict[str, float]]
    """What the pipeline's stages did with the time, from its report."""
    usage: Usage


def measure(request: Request) -> Run:
    """Carry out a request in a process of its own.

    Raises:
        TaskError: it failed.
    """
    answer, usage = run_task(request)
    return Run(answer["seconds"], answer["cpu_s"], answer.get("stages", {}), usage)


def median_s(runs: Sequence[Run]) -> float:
    """Seconds of wall time."""
    return median(run.seconds for run in runs)


def median_ratio(above: Sequence[Run], below: Sequence[Run]) -> float:
    """Of the rounds' ratios of seconds."""
    return median(a.seconds / b.seconds for a, b in zip(above, below, strict=True))


def median_cpu_ratio(above: Sequence[Run], below: Sequence[Run]) -> float:
    """Of the rounds' ratios of processor seconds, which other programs disturb little."""
    return median(a.cpu_s / b.cpu_s for a, b in zip(above, below, strict=True))


def psnr(a: Path, b: Path) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures, dB; streamed."""
    first, second = (pyvips.Image.new_from_file(str(path), access="sequential") for path in (a, b))
    error: Any = ((first - second) ** 2).avg()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def db_cell(db: float | None) -> str:
    """A PSNR in a table."""
    if db is None:
        return "–"
    return "same" if db == math.inf else f"{db:.1f}"


def db_json(db: float | None) -> float | None:
    """A PSNR in JSON, which knows no infinity: 999 where the pictures are the same."""
    return 999.0 if db == math.inf else db
