"""``srpipe compare BEFORE AFTER -o page.html``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from srpipe.cli.types import NEEDS_OVERWRITE
from srpipe.terminal import say

if TYPE_CHECKING:
    from srpipe.cli.types import Commands


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "compare",
        help="show a picture before and after",
        description="Make a page with a slider that works without a network (TARGET ends in .html), or "
        "a picture of crops side by side (.png, .jpg …).",
    )
    add = parser.add_argument
    add("before", metavar="BEFORE", help="the picture that was enhanced")
    add("after", metavar="AFTER", help="its enhanced version")
    add("-o", "--output", metavar="TARGET", required=True, help="a .html or .png file")
    add(
        "--crop", action="append", default=[], metavar="X,Y,W,H",
        help="what a picture of crops shows, pixels of BEFORE; may be repeated; default the most "
        "detailed places",
    )  # fmt: skip
    add(
        "--openseadragon", metavar="FILE.tgz",
        help="the viewer's npm package, if it cannot be fetched here (once; it is kept in the cache)",
    )  # fmt: skip
    add("--overwrite", action="store_true", help=NEEDS_OVERWRITE)
    add("--allow-untrusted", action="store_true", help="as for 'srpipe enhance'")
    add("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    from srpipe.compare.pair import parse_crop
    from srpipe.comparison import compare

    made = compare(
        options.before,
        options.after,
        options.output,
        crops=[parse_crop(text) for text in options.crop],
        overwrite=options.overwrite,
        openseadragon=options.openseadragon,
        allow_untrusted=options.allow_untrusted,
    )
    if options.json:
        print(json.dumps(made.as_dict()))
    else:
        say(made.output + (f" and {made.folder}" if made.folder else ""), sys.stdout)
    return 0
