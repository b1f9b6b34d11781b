"""``srpipe tune MODEL``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from srpipe.settings import DEFAULT_MODEL, Settings, parse_bytes
from srpipe.terminal import as_lines, say

if TYPE_CHECKING:
    from srpipe.cli.types import Commands
    from srpipe.tune.report import Line, TuneReport

_COLUMNS = (
    "",
    "device",
    "tile",
    "batch",
    "runs",
    "MP/s",
    "useful MP/s",
    "speed-up",
    "model",
    "job",
)


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "tune",
        help="measure the best tile, batch and threads for a model here",
        description="Measure which tile, batch, and runs at once are best for MODEL on this machine, "
        "and keep it for 'srpipe enhance'.",
    )
    add = parser.add_argument
    add(
        "model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL,
        help="a bundled model, or an .onnx file; default %(default)s",
    )  # fmt: skip
    add("-d", "--device", default="auto", metavar="NAME", help="as for 'srpipe enhance'")
    add("--memory", metavar="SIZE", help="as for 'srpipe enhance'")
    add(
        "--full", action="store_true",
        help="then measure all there is (minutes), and tell how far the choice is from the best",
    )  # fmt: skip
    add("--plot", metavar="FILE.png", help="draw what was measured")
    add("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    from srpipe.api import tune_model
    from srpipe.tune.plot import check_plot, draw

    settings = Settings(
        model=options.model,
        device=options.device,
        memory_bytes=None if options.memory is None else parse_bytes(options.memory),
    )
    if options.plot is not None:
        check_plot(options.plot)
    if not options.json:
        limit = "a few minutes" if options.full else "some 20 seconds"
        say(f"Measuring {options.model}: {limit} …")
    report = tune_model(settings, sweep=options.full)
    if options.plot is not None:
        draw(report, options.plot)
    print(json.dumps(report.as_dict()) if options.json else describe(report))
    return 0


def describe(report: TuneReport) -> str:
    """A report as people read it."""
    rows = [_COLUMNS, *(_cells(line) for line in report.lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    text = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    chosen = report.chosen
    text += [
        "",
        f"{report.model}: tiles of {chosen.tile}, batch {chosen.batch}, {chosen.arrangement} "
        f"(runs at once x cores of each) on {report.device}, {chosen.gain:.2f} times as fast as "
        "where nothing is measured.",
        "Useful is what is left of the speed on a large image when pixels that two tiles compute "
        "count once.",
    ]
    if report.budget_bytes is not None:
        text.append(f"A job may take {report.budget_bytes / 1e6:.0f} MB; - is what does not fit.")
    if report.swept:
        all_there_is = (
            "all" if report.complete else f"{len(report.lines)}, for more there was no time"
        )
        text.append(
            f"The choice has {report.choice_of_best:.1%} of the speed of the best of {all_there_is}."
        )
    return as_lines(text)


def _cells(line: Line) -> tuple[str, ...]:
    return (
        "*" if line.chosen else "" if line.fits else "-",
        line.arrangement.device,
        str(line.tile),
        str(line.batch),
        str(line.arrangement),
        f"{line.model_mp_s:.3g}",
        f"{line.useful_mp_s:.3g}",
        f"{line.gain:.2f}",
        f"{line.model_bytes / 1e6:.0f} MB",
        f"{line.job_bytes / 1e6:.0f} MB",
    )
