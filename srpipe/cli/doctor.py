"""``srpipe doctor``: what a bug report needs, and what to do about what is amiss."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from srpipe.doctor import Diagnosis, examine
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "doctor",
        help="what a bug report needs to know of this machine",
        description="Tell versions, formats, limits and folders, try the models in the box, and say "
        "what to do about what is amiss. Exit code 0: all is well; 1: something needs attention.",
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    diagnosis = examine()
    print(json.dumps(diagnosis.as_dict()) if options.json else describe(diagnosis))
    return 0 if diagnosis.ok else 1


def run_alone(arguments: Sequence[str]) -> int:
    """Carry the command out where the other commands cannot be imported."""
    parser = argparse.ArgumentParser(prog="srpipe doctor")
    _add_arguments(parser)
    return run(parser.parse_args(arguments))


def describe(diagnosis: Diagnosis) -> str:
    """A diagnosis as people read it."""
    width = max(len(finding.name) for finding in diagnosis.findings)
    lines = []
    for finding in diagnosis.findings:
        mark = "ok       " if finding.ok else "attention"
        lines.append(f"{mark}  {finding.name:<{width}}  {finding.value}")
        if not finding.ok:
            lines.append(f"{'':11}{'':{width}}  -> {finding.advice}")
    amiss = sum(not finding.ok for finding in diagnosis.findings)
    lines += ["", f"{amiss} of them need attention." if amiss else "All is well."]
    return as_lines(lines)
