"""Text on its way to a terminal: what strangers named must not move the cursor or begin a new line.

File names, models' nodes, metadata and the words of libraries may hold escape sequences, newlines,
marks that turn the direction of writing, and bytes that are no text. Everything that commands print
for people passes through here; JSON is escaped by nature.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TextIO


def keep_standard_descriptors() -> None:
    """Open descriptors 0 to 2 that are closed: a file that got one would get what is printed."""
    for number in range(3):
        if not _is_open(number):
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)


def open_standard_streams() -> None:
    """Have all three streams, and their descriptors, whatever a shell has closed."""
    keep_standard_descriptors()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def printable(text: object) -> str:
    """A text with all that does not print as itself escaped, as Python's ``repr`` does it."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def as_lines(lines: Iterable[object]) -> str:
    """Lines under each other, each printable."""
    return "\n".join(map(printable, lines))


def say(line: object, stream: TextIO | None = None) -> None:
    """Print one line, on standard error unless another stream is named."""
    print(printable(line), file=stream or sys.stderr, flush=True)


class LineFormatter(logging.Formatter):
    """Log records as one printable line each; only what is for debugging has more, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """``srpipe: message``."""
        message = record.getMessage()
        first, *others = message.split("\n") if record.levelno <= logging.DEBUG else [message]
        if record.exc_info:
            others += self.formatException(record.exc_info).split("\n")
        return as_lines([f"srpipe: {first}", *(f"  {line}" for line in others)])


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is no text, as Python keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
