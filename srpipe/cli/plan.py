"""``srpipe plan INPUT OUTPUT``: what 'srpipe enhance' would do with the same arguments."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from srpipe.cli.enhance import add_job_arguments, job_settings
from srpipe.io.space import format_bytes
from srpipe.progress import format_seconds
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands
    from srpipe.forecast.report import PlanReport


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "plan",
        help="what enhancing an image would take",
        description="Tell what 'srpipe enhance' would do with the same arguments, and how long and how "
        "much memory and disk it would take, from a timed sample of INPUT's own tiles. Nothing is "
        "written to OUTPUT.",
    )
    add_job_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    from srpipe.forecast.estimate import estimate

    report = estimate(options.input, options.output, stop=options.stop, **job_settings(options))
    print(json.dumps(report.as_dict()) if options.json else describe(report))
    return 0


def describe(report: PlanReport) -> str:
    """A report as people read it."""
    profile = f"profile of {format_bytes(report.icc_bytes)}" if report.icc_bytes else "no profile"
    pages = f", {report.pages} pages (the first is enhanced)" if report.pages > 1 else ""
    rewrites = f", graph rewritten ({', '.join(report.rewrites)})" if report.rewrites else ""
    lines = [
        ("input", f"{report.input}: {report.input_size}, {report.input_kind}, "
                  f"{report.input_dtype}, {profile}{pages}"),
        ("output", f"{report.output}: {report.output_size} "
                   f"({report.output_size.megapixels:.3g} MP), {report.output_format}"
                   + (f" [{report.output_options}]" if report.output_options else "")),
        ("model", f"{report.model}{rewrites}"),
        ("tiles", f"{report.tiles} ({report.columns} x {report.rows}) of {report.tile}, overlap "
                  f"{report.overlap}, stride {report.stride}, {report.redundancy:.1%} redundant "
                  f"work, blend {report.blend}"),
        ("run", f"batch {report.batch_size}, {report.workers} x {report.threads} cores "
                f"(workers x threads), {report.runners} runs at once of each, on {report.device}, "
                f"engine {report.engine}"),
        ("time", f"about {format_seconds(report.seconds)} ({report.output_mp_per_s:.2f} output "
                 f"MP/s): {report.sample_tiles} tiles timed at {report.tile_s:.3g} s each with "
                 f"blending and encoding; start {report.start_s:.1f} s, end {report.end_s:.1f} s, "
                 f"decoding {report.decode_s:.1f} core-s"),
        ("memory", f"about {format_bytes(report.memory_bytes)}, of which the model "
                   f"{format_bytes(report.model_memory_bytes)}"),
        ("disk", f"{format_bytes(report.job_disk_bytes)} in {report.job_dir} until it is done, "
                 f"output about {format_bytes(report.output_bytes)}; "
                 f"{format_bytes(report.free_disk_bytes)} free"),
    ]  # fmt: skip
    text = [f"{name + ':':<8} {value}" for name, value in lines]
    return as_lines(text + [f"warning: {warning}" for warning in report.warnings])
