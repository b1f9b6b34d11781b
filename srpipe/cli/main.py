"""``srpipe``: finds the command, and turns its outcome into an exit code.

Exit codes: 0 done; 1 failed while running; 2 the request cannot be carried out; 130 and 143
interrupted by SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from srpipe import __version__
from srpipe.cli import (
    assemble,
    compare,
    convert,
    doctor,
    enhance,
    inspect,
    models,
    plan,
    quantize,
    status,
    tune,
)
from srpipe.errors import SrpipeError
from srpipe.plan.url import redact_text
from srpipe.progress import JsonLogFormatter
from srpipe.stop import StopRequest
from srpipe.terminal import LineFormatter, say


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments on one line, and takes whole names only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"allow_abbrev": False}))

    def error(self, message: str) -> NoReturn:
        say(f"srpipe: {redact_text(message)}; see '{self.prog} --help'.")
        self.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = _Parser(
        prog="srpipe",
        description="Enhance images that are too large for memory.",
    )
    parser.add_argument("--version", action="version", version=f"srpipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        enhance,
        assemble,
        status,
        inspect,
        models,
        convert,
        quantize,
        tune,
        plan,
        compare,
        doctor,
    ):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None, stop: StopRequest | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        arguments: without the program's name; None: the process's own.
        stop: how the run can be asked to stop.
    """
    for stream in (sys.stdout, sys.stderr):  # whatever the terminal's encoding
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = build_parser().parse_args(
        _join_ranges(sys.argv[1:] if arguments is None else arguments)
    )
    options.stop = stop or StopRequest()
    _set_up_logging(options)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except SrpipeError as error:
        _say_at_last(f"srpipe: {error}")
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has gone
        _say_at_last("")
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _say_at_last(f"srpipe: {place}{error.strerror or error}.")
        return 1


def _say_at_last(line: str) -> None:
    """Print a line, if there is one and it can be done, and let Python end without complaint."""
    try:
        if line:
            say(line)
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # What the streams still hold would be tried again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)


def _join_ranges(arguments: Sequence[str]) -> list[str]:
    """Make ``--range -1,1`` one word, because argparse takes ``-1,1`` for an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--range" and re.match(r"-[\d.]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _set_up_logging(options: argparse.Namespace) -> None:
    verbosity = getattr(options, "verbose", 0)
    json_lines = getattr(options, "progress", "") == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLogFormatter() if json_lines else LineFormatter())
    handler.addFilter(_redact)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    # Of srpipe alone: clients of object stores log signed requests when they are asked to say more.
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.getLogger("srpipe").setLevel(level)


def _redact(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact_text(record.getMessage()), ()
    if record.name.partition(".")[0] != "srpipe":
        record.exc_info = record.exc_text = None  # clients log what they raise as well
    return True
