"""Power cuts on a simulated disk: whatever it keeps, a job ends with the right bytes."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.small_job import SmallJob, lose_power_and_go_on


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("power", help="power cuts on a simulated disk")
    parser.add_argument("--cuts", type=int, default=2000, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first; default 0")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign; the first finding ends it with an AssertionError that names its seed."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        job = SmallJob(Path(folder))
        points = len(job.run_until_cut(None).points)
        for seed in range(options.seed, options.seed + options.cuts):
            job.clear()
            lose_power_and_go_on(job, seed, points, outcomes)
    print(f"{options.cuts} jobs, {points} crash points each, 0 wrong:")
    for outcome, n in outcomes.most_common():
        print(f"  {n:6}  {outcome}")
    return 0
