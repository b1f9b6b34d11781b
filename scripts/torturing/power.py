"""Power cuts on a simulated disk: whatever it keeps, a job ends with the right bytes."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from srpipe.errors import SrpipeError
from tests.small_job import SmallJob, lose_power_and_go_on


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("power", help="power cuts on a simulated disk")
    parser.add_argument("--cuts", type=int, default=2000, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first; default 0")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign; the first finding ends it."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        job = SmallJob(Path(folder))
        points = len(job.run_until_cut(None).points)
        for seed in range(options.seed, options.seed + options.cuts):
            job.clear()
            try:
                lose_power_and_go_on(job, seed, points, outcomes)
            except (AssertionError, SrpipeError) as finding:
                print(f"FINDING: seed {seed}: {type(finding).__name__}: {finding}")
                return 1
    if outcomes["resumed"] < options.cuts // 3:
        print(f"FINDING: only {outcomes['resumed']} of {options.cuts} jobs went on: {outcomes}")
        return 1
    print(f"{options.cuts} jobs, {points} crash points each, 0 wrong:")
    for outcome, n in outcomes.most_common():
        print(f"  {n:6}  {outcome}")
    return 0
