"""Progress on a screen (a bar) or for a program (JSON lines), from the same events."""

from __future__ import annotations

import json
import logging
from types import TracebackType
from typing import Any, Literal, Protocol, TextIO

from srpipe.errors import SrpipeError
from srpipe.runtime.events import ProgressEvent, Report
from srpipe.terminal import printable, say

ProgressKind = Literal["auto", "bar", "json", "none"]

_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} tiles{postfix}"


class Renderer(Protocol):
    """Shows one job."""

    def __call__(self, event: ProgressEvent) -> None:
        """Show how far the job is."""

    def report(self, report: Report) -> None:
        """Show what was done."""

    def error(self, error: SrpipeError, exit_code: int) -> None:
        """Show why it was not done."""

    def __enter__(self) -> Renderer: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class TextRenderer:
    """A progress bar where asked for, and one closing line."""

    def __init__(self, stream: TextIO, name: str, *, bar: bool, quiet: bool) -> None:
        """Write to ``stream``; ``name`` stands before the bar."""
        self._stream = stream
        self._name = name
        self._with_bar = bar
        self._quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> TextRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, event: ProgressEvent) -> None:
        """Move the bar."""
        if event.state == "started" and event.tiles_done and not self._quiet:
            say(
                f"srpipe: going on at tile {event.tiles_done} of {event.tiles_total} "
                f"({event.tiles_done / event.tiles_total:.0%} done).",
                self._stream,
            )
        if not self._with_bar:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=event.tiles_total, initial=event.tiles_done,
                desc=printable(self._name), file=self._stream, bar_format=_BAR,
                dynamic_ncols=True, leave=False, mininterval=0.2,
            )  # fmt: skip
        left = "" if event.remaining_s is None else f", {format_seconds(event.remaining_s)} left"
        self._bar.set_postfix_str(f"{event.output_mp_per_s:.2f} MP/s{left}", refresh=False)
        self._bar.update(event.tiles_done - self._bar.n)

    def report(self, report: Report) -> None:
        """Print the closing line."""
        self.__exit__()
        if report.filled:
            top = min(rect.top for rect in report.filled)
            bottom = max(rect.top + rect.height for rect in report.filled) - 1
            say(
                f"srpipe: rows {top} to {bottom} of {report.input} could not be read whole and were "
                f"filled with what could be ({len(report.filled)} tiles).",
                self._stream,
            )
        if not self._quiet:
            say(summary(report), self._stream)

    def error(self, error: SrpipeError, exit_code: int) -> None:
        """Print the error on one line."""
        self.__exit__()
        say(f"srpipe: {error}", self._stream)


class JsonRenderer:
    """One JSON object a line: ``{"event": "progress" | "report" | "error", …}``."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        self._stream = stream

    def __enter__(self) -> JsonRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __call__(self, event: ProgressEvent) -> None:
        """Print a progress event."""
        self._print("progress", event.as_dict())

    def report(self, report: Report) -> None:
        """Print the report."""
        self._print("report", report.as_dict())

    def error(self, error: SrpipeError, exit_code: int) -> None:
        """Print the error."""
        facts = {"type": type(error).__name__, "message": str(error), "exit_code": exit_code}
        self._print("error", facts)

    def _print(self, event: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"event": event} | facts), file=self._stream, flush=True)


class JsonLogFormatter(logging.Formatter):
    """Log records as JSON lines, so that every line on stderr is one object."""

    def format(self, record: logging.LogRecord) -> str:
        """``{"event": "log", "level": …, "message": …}``."""
        facts = {"event": "log", "level": record.levelname.lower()}
        return json.dumps(facts | {"message": record.getMessage()})


def make_renderer(kind: ProgressKind, stream: TextIO, name: str, *, quiet: bool) -> Renderer:
    """The renderer for ``--progress``; ``auto`` shows a bar on a terminal only."""
    if kind == "json":
        return JsonRenderer(stream)
    bar = kind == "bar" or (kind == "auto" and stream.isatty() and not quiet)
    return TextRenderer(stream, name, bar=bar, quiet=quiet)


def summary(report: Report) -> str:
    """One line with a job's totals."""
    workers = f"{report.workers} worker{'s' if report.workers > 1 else ''}"
    slabs = f"{report.slabs} slab{'s' if report.slabs > 1 else ''}"
    engine = {"local": workers, "slabs": slabs}.get(report.engine, "one process")
    reused = f", {report.reused_tiles} of them repeated" if report.reused_tiles else ""
    skipped = f", {report.skipped_tiles} of them left out" if report.skipped_tiles else ""
    # What was computed before, by others, has no speed.
    rate = f", {report.output_mp_per_s:.2f} MP/s" if report.resumed_tiles < report.tiles else ""
    return (
        f"{report.output}: {report.output_size} ({report.output_size.megapixels:.1f} MP) from "
        f"{report.input_size} in {format_seconds(report.seconds)}{rate} "
        f"({report.model} on {report.device}, {engine}, {report.threads} threads; {report.tiles} "
        f"tiles of {report.tile}{reused}{skipped}, stride {report.stride}, "
        f"{report.redundancy:.1%} redundant, batch {report.batch_size})"
    )


def stage_lines(report: Report) -> list[str]:
    """A line for each stage: shares of the time that it was busy, or waited; then the bottleneck."""
    lines = []
    for name, times in report.stages.items():
        busy, starved, blocked = (
            f"{seconds / max(report.seconds, 1e-9):4.0%}"
            for seconds in (times.busy_s, times.waiting_for_input_s, times.waiting_for_room_s)
        )
        lines.append(f"{name:11} busy {busy}, waiting for input {starved}, for room {blocked}")
    busiest = max(report.stage_s, key=lambda name: report.stage_s[name], default=None)
    return [*lines, f"the {busiest} was the busiest"] if busiest else lines


def format_seconds(seconds: float) -> str:
    """``4.2 s``, ``3:07``, ``1:02:45``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}" if hours else f"{minutes}:{whole_s:02}"
