"""``srpipe assemble OUTPUT``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, get_args

from srpipe.errors import SrpipeError
from srpipe.plan.url import redact_url
from srpipe.progress import ProgressKind, make_renderer
from srpipe.slabs.whole import assemble

if TYPE_CHECKING:
    from srpipe.cli.types import Commands


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "assemble",
        help="join the slabs of an image",
        description="Make OUTPUT of the slabs that 'srpipe enhance INPUT OUTPUT --slab K/N' has "
        "computed, when all N are done.",
    )
    add = parser.add_argument
    add("output", metavar="OUTPUT", help="as it was given to 'srpipe enhance'")
    add("--job-dir", metavar="DIR", help="default OUTPUT.srpipe")
    add(
        "--progress",
        choices=get_args(ProgressKind),
        default="auto",
        help="json: one object a line on stderr",
    )
    add("-q", "--quiet", action="store_true", help="say nothing but errors")
    add("-v", "--verbose", action="count", default=0, help="say more")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    renderer = make_renderer(
        options.progress, sys.stderr, redact_url(options.output), quiet=options.quiet
    )
    with renderer:
        try:
            report = assemble(
                options.output,
                job_dir=options.job_dir,
                progress=None if options.progress == "none" else renderer,
                stop=options.stop,
            )
        except SrpipeError as error:
            exit_code = options.stop.exit_code if options.stop.times else error.exit_code
            renderer.error(error, exit_code)
            return int(exit_code)
        renderer.report(report)
    return 0
