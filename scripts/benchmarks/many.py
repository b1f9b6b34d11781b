"""``bench many``: many small pictures through one Enhancer, against their raw session time."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyvips

import srpipe
from srpipe.api import prepare
from srpipe.settings import Settings

from .pictures import default_pictures
from .raw_session import Arrangement, RawSession, n_batches, ready_batches
from .report import machine_line, save_json, say
from .runs import Run, measure, median_cpu_ratio, median_ratio, median_s
from .table import markdown_table
from .task import Kind, Request, run_task
from .weights import model_file

_JPEG_OPTIONS = "[Q=95]"
_ONE_BY_ONE_RUNS = 1
_NOTES = """\
Raw session: ready batches of all the pictures' tiles through the fastest arrangement. One Enhancer: \
from its construction to its end, files to files. One by one: a call of srpipe.enhance for each. \
Ratios to the raw session: medians of the rounds'."""


@dataclass(frozen=True)
class Outcome:
    """Ways to enhance the same pictures."""

    model: str
    n_pictures: int
    picture_mp: float
    runs: dict[str, list[Run]]
    """By way; the raw session is among them."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        raw = self.runs["raw session"]
        ratios = {name: median_ratio(runs, raw[: len(runs)]) for name, runs in self.runs.items()}
        return asdict(self) | {"times_raw": ratios}


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "many",
        help="many small pictures through one Enhancer",
        description="Cuts pictures out of a photograph, and enhances them through one Enhancer, and "
        "one after the other by srpipe.enhance, beside the raw session time of all their tiles.",
    )
    add = parser.add_argument
    add("--model", default="lite-x2", metavar="NAME|FILE", help="default %(default)s")
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--count", type=int, default=100, metavar="N", help="pictures; default %(default)s")
    add("--side", type=int, default=1000, metavar="N", help="pixels; default %(default)s")
    add("--callers", type=int, default=2, metavar="N", help="threads; default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        sources, outputs = Path(name, "in"), Path(name, "out")
        sources.mkdir()
        outputs.mkdir()
        picture = options.picture or default_pictures()[0]
        cut_pictures(picture, sources, options.count, options.side)
        outcome = measure_many(
            options.model, model_file(options.model, Path(name)), sources, outputs,
            callers=options.callers, rounds=options.runs,
        )  # fmt: skip
    print(f"{machine_line()}\n\n{many_table(outcome)}")
    if options.json:
        save_json(options.json, "many", [outcome.as_dict()])


def cut_pictures(photograph: Path, folder: Path, count: int, side_px: int) -> None:
    """Write ``count`` square crops, each from another place, the same every time."""
    image: Any = pyvips.Image.new_from_file(str(photograph)).copy_memory()
    side_px = min(side_px, image.width, image.height)
    random = np.random.default_rng(0)
    for number in range(count):
        left = int(random.integers(image.width - side_px + 1))
        top = int(random.integers(image.height - side_px + 1))
        crop = image.crop(left, top, side_px, side_px)
        crop.write_to_file(f"{folder / f'{number:04}.jpg'}{_JPEG_OPTIONS}")


def measure_many(
    name: str, model: Path, sources: Path, outputs: Path, *, callers: int, rounds: int
) -> Outcome:
    """Raw session, Enhancer and single calls in turn; single calls only once, for they are slow.

    Args:
        name: what the model is called.
        model: its file.
        sources: folder of pictures, all of one size.
        outputs: folder for the results.
        callers: threads that call the Enhancer.
        rounds: how often.

    Raises:
        TaskError: a measurement failed.
    """
    files = pictures_in(sources)
    plan = _plan(files[0], outputs / "plan.tif", str(model))
    request = Request("calibrate", str(files[0]), str(outputs / "raw.tif"), str(model))
    arrangement = Arrangement(**run_task(request)[0])
    ways: dict[str, tuple[Kind, int, int]] = {
        "raw session": ("raw many", arrangement.callers, arrangement.threads)
    }
    if hasattr(srpipe, "Enhancer"):
        for n in sorted({1, callers}):
            ways[f"one Enhancer, {n} thread{'s' * (n > 1)}"] = ("many", n, 0)
    else:
        say("this srpipe has no Enhancer: only single calls are measured")
    ways["one by one"] = ("one by one", 0, 0)
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for number in range(1, rounds + 1):
        for way, (kind, n_callers, threads) in ways.items():
            if kind == "one by one" and number > _ONE_BY_ONE_RUNS:
                continue
            taken = measure(
                Request(kind, str(sources), str(outputs), str(model), n_callers, threads)
            )
            runs[way].append(taken)
            say(
                f"round {number} of {rounds}, {way}: {taken.seconds:.2f} s, {taken.cpu_s:.1f} s "
                "of processor time"
            )
    return Outcome(name, len(files), plan.image.size.megapixels, runs)


def many_table(outcome: Outcome) -> str:
    """A row for every way."""
    raw = outcome.runs["raw session"]
    head = ("way", "s", "s a picture", "/ raw session", "by processor time", "memory, MB")
    rows = [
        [
            way,
            f"{median_s(runs):.2f}",
            f"{median_s(runs) / outcome.n_pictures:.3f}",
            f"{median_ratio(runs, raw[: len(runs)]):.2f}",
            f"{median_cpu_ratio(runs, raw[: len(runs)]):.2f}",
            f"{median(run.usage.peak_bytes for run in runs) / 1e6:.0f}",
        ]
        for way, runs in outcome.runs.items()
    ]
    title = f"{outcome.model}, {outcome.n_pictures} pictures of {outcome.picture_mp:.2f} MP:"
    return f"{title}\n\n{markdown_table(head, rows)}\n\n{_NOTES}"


def pictures_in(folder: Path | str) -> list[Path]:
    """The pictures that :func:`cut_pictures` wrote, in order."""
    return sorted(Path(folder).glob("*.jpg"))


def enhance_many(sources: str, outputs: str, model: str, callers: int) -> None:
    """Enhance all pictures of a folder through one Enhancer, by so many threads."""
    enhancer: Any = srpipe.Enhancer(model=model)  # type: ignore[attr-defined]

    def enhance(file: Path) -> None:
        enhancer.enhance(str(file), _output_of(file, outputs), overwrite=True)

    with enhancer, ThreadPoolExecutor(callers) as pool:
        list(pool.map(enhance, pictures_in(sources)))


def enhance_one_by_one(sources: str, outputs: str, model: str) -> None:
    """Enhance all pictures of a folder by single calls."""
    for file in pictures_in(sources):
        srpipe.enhance(str(file), _output_of(file, outputs), model=model, overwrite=True)


def raw_session_of_many(request: Request) -> tuple[RawSession, int]:
    """A session with ready batches of the first picture, and the number of batches of all."""
    files = pictures_in(request.source)
    plan = _plan(files[0], Path(request.output, "raw.tif"), request.model)
    arrangement = Arrangement(request.callers, request.threads)
    return RawSession(plan, arrangement, ready_batches(plan)), n_batches(plan) * len(files)


def _output_of(file: Path, outputs: str) -> str:
    return str(Path(outputs, f"{file.stem}.tif"))


def _plan(source: Path, output: Path, model: str) -> Any:
    return prepare(str(source), str(output), Settings(model=model, overwrite=True))
