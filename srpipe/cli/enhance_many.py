"""``srpipe enhance`` where INPUT is a folder, or ``-`` for a list on standard input."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from srpipe.errors import InputError, OutputError
from srpipe.folders import DEFAULT_NAME, MANIFEST_FILE, enhance_pairs, find_pairs, list_pairs
from srpipe.manifest import FileOutcome
from srpipe.plan.output import FORMATS
from srpipe.terminal import printable, say

LIST = "-"
_WORDS = {
    "done": "done",
    "skipped": "done before",
    "failed": "failed",
    "interrupted": "interrupted",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only many images have."""
    group = parser.add_argument_group(
        "many images", "INPUT is a folder, or - for paths on standard input; OUTPUT is a folder"
    )
    add = group.add_argument
    add("--glob", action="append", metavar="PATTERN", default=[],
        help="which files of the folder, such as '*.tif' or '**/*.png'; may be repeated; default: all "
        "images, with those in folders of the folder")  # fmt: skip
    add("--name", metavar="NAME", default=DEFAULT_NAME,
        help="an output's name, of {stem}, {suffix} and {name} of the input, such as '{stem}-x2.tif'; "
        "default %(default)s")  # fmt: skip
    add(
        "--at-once",
        type=int,
        metavar="N",
        help="images under way; default 2, and 1 for every 8 cores",
    )
    add("--manifest", metavar="FILE", help=f"default OUTPUT/{MANIFEST_FILE}")
    add("--null", action="store_true", help="paths on standard input end with a NUL byte")


def run_many(options: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Carry the command out."""
    suffix = Path(options.output).suffix.lower()
    if any(suffix in fmt.suffixes for fmt in FORMATS):
        raise OutputError(
            f"{options.input} stands for many images, and {options.output} has the ending of one: "
            "name a folder as the output."
        )
    if options.input == LIST:
        pairs = list_pairs(_listed(options.null), options.output, name=options.name)
    else:
        pairs = find_pairs(options.input, options.output, globs=options.glob, name=options.name)
    if not pairs:
        raise InputError(f"{options.input} holds no images: name another folder, or a --glob.")
    outcomes = enhance_pairs(
        pairs, options.output, at_once=options.at_once, manifest=options.manifest,
        stop=options.stop, **settings,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    with closing(_Screen(options, len(pairs))) as screen:
        try:
            for outcome in outcomes:
                counts[outcome.status] += 1
                screen.show(outcome)
        except KeyboardInterrupt:
            # It came between two images; those under way have ended by now, and are written down.
            counts["interrupted"] += 1
    if not options.quiet and options.progress != "json":
        said = ", ".join(
            f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status]
        )
        say(f"{options.output}: {said or 'no images'} of {len(pairs)}.")
    if options.stop.times:
        say("srpipe: interrupted: repeat the command to go on.")
        return int(options.stop.exit_code)
    return 1 if counts["failed"] else 0


def _listed(null: bool) -> Iterator[str]:
    content = sys.stdin.buffer.read().split(b"\0" if null else b"\n")
    return (path.decode(errors="surrogateescape") for path in content if path.strip())


class _Screen:
    """A bar of images, or a line of JSON for each; what fails is said."""

    def __init__(self, options: argparse.Namespace, total: int) -> None:
        self._json = options.progress == "json"
        self._bar: Any = None
        shown = options.progress == "bar" or (options.progress == "auto" and sys.stderr.isatty())
        if shown and not options.quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="image", file=sys.stderr)

    def show(self, outcome: FileOutcome) -> None:
        if self._json:
            print(
                json.dumps({"event": outcome.status} | outcome.as_dict()),
                file=sys.stderr,
                flush=True,
            )
        elif outcome.error is not None:
            line = printable(f"srpipe: {outcome.file}: {outcome.error}")
            say(line) if self._bar is None else self._bar.write(line, sys.stderr)
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
