"""``bench growth``: time and memory by the picture's size, and what it costs to start."""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from .mosaic import PictureSpec, make_picture
from .pictures import default_pictures
from .processes import TreeSampler
from .report import machine_line, save_json, say
from .runs import Run, measure, median_s
from .table import markdown_table
from .task import Request, TaskError, run_task
from .weights import model_file

_SIZES_MP = (1.0, 16.0, 64.0, 256.0)
_REFERENCE_MP = 16.0
# A picture that takes longer is measured only once.
_LONG_S = 90.0
_JPEG_OPTIONS = "[Q=95]"
_INTERPRETER_RUNS = 5
_NOTES = """\
`srpipe enhance` as a process, from its start to its end; medians. Memory: RssAnon + RssShmem of all \
processes at one moment; in brackets with shared memory counted once."""
_START_NOTES = """\
The first run finds an empty cache of srpipe's. Raw session: the picture's own tiles. Start-up: what \
is left of a later run after Python's start, the raw session, decoding and encoding."""


@dataclass(frozen=True)
class Growth:
    """All runs on one size."""

    picture_mp: float
    runs: tuple[Run, ...]

    @property
    def s_per_mp(self) -> float:
        """Median seconds of wall time for a megapixel of the picture."""
        return median_s(self.runs) / self.picture_mp

    @property
    def cpu_s_per_mp(self) -> float:
        """Median processor seconds for a megapixel of the picture."""
        return median(run.cpu_s for run in self.runs) / self.picture_mp


@dataclass(frozen=True)
class Start:
    """Where the seconds of the smallest picture go; medians."""

    picture_mp: float
    first_s: float
    """With an empty cache."""
    later_s: float
    interpreter_s: float
    raw_s: float
    codec_s: float

    @property
    def start_up_s(self) -> float:
        """What neither Python's start, nor the model, nor decoding and encoding take."""
        return self.later_s - self.interpreter_s - self.raw_s - self.codec_s


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "growth",
        help="time and memory by the picture's size, and the cost of starting",
        description="Runs 'srpipe enhance' on mosaics of several sizes in turn. A gigapixel at x2 "
        "takes about 20 GB of disk while it is being enhanced.",
    )
    add = parser.add_argument
    add("--model", default="lite-x2", metavar="NAME|FILE", help="default %(default)s")
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add(
        "--sizes",
        nargs="+",
        type=float,
        default=list(_SIZES_MP),
        metavar="MP",
        help="megapixels, ascending; default: 1 16 64 256",
    )
    add(
        "--runs",
        type=int,
        default=3,
        metavar="N",
        help=f"rounds; sizes that take over {_LONG_S:g} s take part in the first only; "
        "default %(default)s",
    )
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        folder = Path(name)
        model = model_file(options.model, folder)
        photographs = [options.picture] if options.picture else default_pictures()
        sources = [_picture(photographs, size_mp, folder) for size_mp in sorted(options.sizes)]
        start = measure_start(model, *sources[0], folder, options.runs)
        growths = measure_growth(model, sources, folder, options.runs)
    print(
        f"{machine_line()}\n\n{options.model}:\n\n{growth_table(growths)}\n\n{start_table(start)}"
    )
    if options.json:
        results = [*(asdict(growth) for growth in growths), {"start": asdict(start)}]
        save_json(options.json, "growth", results)


def _picture(photographs: Sequence[Path], size_mp: float, folder: Path) -> tuple[Path, float]:
    side_px = math.ceil(math.sqrt(size_mp * 1e6))
    path = folder / f"mosaic-{side_px}.jpg"
    say(f"making {side_px}x{side_px} pixels")
    make_picture(photographs, f"{path}{_JPEG_OPTIONS}", PictureSpec(side_px, side_px))
    return path, side_px**2 / 1e6


def measure_growth(
    model: Path, sources: Sequence[tuple[Path, float]], folder: Path, rounds: int
) -> list[Growth]:
    """Run every picture in turn, ``rounds`` times.

    Args:
        model: the .onnx file.
        sources: pictures with their megapixels.
        folder: for outputs, which are removed.
        rounds: how often.

    Raises:
        TaskError: a run failed.
    """
    runs: list[list[Run]] = [[] for _ in sources]
    for number in range(1, rounds + 1):
        for (source, size_mp), own in zip(sources, runs, strict=True):
            if own and own[0].seconds > _LONG_S:
                continue
            output = folder / "grown.tif"
            own.append(run_command(source, output, model))
            output.unlink()
            say(
                f"round {number} of {rounds}, {size_mp:.0f} MP: {own[-1].seconds:.2f} s, "
                f"{own[-1].cpu_s:.1f} s of processor time "
                f"(others: {own[-1].usage.others_cpu_s:.1f} s)"
            )
    return [Growth(size_mp, tuple(own)) for (_, size_mp), own in zip(sources, runs, strict=True)]


def run_command(source: Path, output: Path, model: Path, cache: Path | None = None) -> Run:
    """``srpipe enhance`` as a process of its own, with a cache of its own if one is given.

    Raises:
        TaskError: it failed.
    """
    arguments = [
        str(source),
        str(output),
        "--model",
        str(model),
        "--overwrite",
        "--progress",
        "none",
    ]
    environment = os.environ | ({"SRPIPE_CACHE": str(cache)} if cache else {})
    before_s, begin_s = _children_cpu_s(), time.perf_counter()
    command = [sys.executable, "-m", "srpipe", "enhance", *arguments]
    with (
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process,
        TreeSampler(process.pid) as sampler,
    ):
        _, complained = process.communicate()
        seconds = time.perf_counter() - begin_s
    if process.returncode:
        raise TaskError(f"srpipe enhance failed on {source}: {complained.strip()}")
    return Run(seconds, _children_cpu_s() - before_s, {}, sampler.usage)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_start(model: Path, source: Path, size_mp: float, folder: Path, rounds: int) -> Start:
    """Take the run on one picture apart.

    Raises:
        TaskError: a measurement failed.
    """
    output, other = folder / "started.tif", folder / "raw.tif"
    fastest, _ = run_task(Request("calibrate", str(source), str(other), str(model)))
    first = run_command(source, output, model, folder / "empty-cache")
    later, raw, codec = [], [], []
    for number in range(1, rounds + 1):
        later.append(run_command(source, output, model, folder / "empty-cache"))
        raw.append(measure(Request("raw", str(source), str(other), str(model), **fastest)))
        codec.append(measure(Request("codec", str(source), str(output), "")))
        say(
            f"start, round {number} of {rounds}: {later[-1].seconds:.2f} s, raw session "
            f"{raw[-1].seconds:.2f} s, decoding and encoding {codec[-1].seconds:.2f} s"
        )
    output.unlink()
    return Start(
        size_mp, first.seconds, median_s(later), _interpreter_s(), median_s(raw), median_s(codec)
    )


def _interpreter_s() -> float:
    times = []
    for _ in range(_INTERPRETER_RUNS):
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        times.append(time.perf_counter() - begin_s)
    return median(times)


def growth_table(growths: Sequence[Growth]) -> str:
    """A row for every size."""
    reference = next((g for g in growths if g.picture_mp >= _REFERENCE_MP), growths[-1])
    beside = f"/ {reference.picture_mp:.0f} MP"
    head = (
        "picture, MP", "runs", "s", "s/MP", beside, "processor s/MP", beside, "memory, MB",
    )  # fmt: skip
    rows = []
    for growth in growths:
        peak, once = (
            median(getattr(run.usage, name) for run in growth.runs) / 1e6
            for name in ("peak_bytes", "peak_shared_once_bytes")
        )
        rows.append(
            [
                f"{growth.picture_mp:.0f}",
                str(len(growth.runs)),
                f"{median_s(growth.runs):.2f}",
                f"{growth.s_per_mp:.3f}",
                f"{growth.s_per_mp / reference.s_per_mp:.2f}",
                f"{growth.cpu_s_per_mp:.3f}",
                f"{growth.cpu_s_per_mp / reference.cpu_s_per_mp:.2f}",
                f"{peak:.0f} ({once:.0f})",
            ]
        )
    return f"{markdown_table(head, rows)}\n\n{_NOTES}"


def start_table(start: Start) -> str:
    """One row."""
    head = (
        "picture, MP", "first run, s", "later run, s", "Python's start, s", "raw session, s",
        "decoding and encoding, s", "start-up, s",
    )  # fmt: skip
    seconds = (
        start.first_s, start.later_s, start.interpreter_s, start.raw_s, start.codec_s,
        start.start_up_s,
    )  # fmt: skip
    row = [f"{start.picture_mp:.0f}", *(f"{s:.2f}" for s in seconds)]
    return f"{markdown_table(head, [row])}\n\n{_START_NOTES}"
