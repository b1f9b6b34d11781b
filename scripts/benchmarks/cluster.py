"""``bench cluster``: what Ray costs, two one-core nodes against two workers of one machine."""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from .pictures import default_pictures, picture_of
from .report import machine_line, save_json, say
from .table import markdown_table
from .task import TaskError
from .weights import COMPACT, model_file

_MODELS = (COMPACT, "lite-x2")
_WORKERS = 2
_NOTES = """\
Seconds of the whole command, from its start to the file in place, in turn; the cluster is there \
before. Overhead: median of the rounds' ratios, less one. The files are compared byte for byte."""


@dataclass(frozen=True)
class Outcome:
    """Two ways to enhance one picture."""

    model: str
    picture_mp: float
    local_s: list[float]
    """``--workers 2``, by round."""
    ray_s: list[float]
    """``--engine ray`` on two nodes of one core."""

    @property
    def overhead(self) -> float:
        """Of Ray, as a share of the local time."""
        return median(r / a for a, r in zip(self.local_s, self.ray_s, strict=True)) - 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"overhead": self.overhead}


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "cluster",
        help="two one-core nodes of a Ray cluster against two workers of one machine",
        description="Enhances one picture with --workers 2 and with --engine ray in turn.",
    )
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME|FILE", help=f"default: {' '.join(_MODELS)}")
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--min-mp", type=float, default=64.0, metavar="MP", help="default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    outcomes = []
    pictures = [options.picture] if options.picture else default_pictures()
    with (
        TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name,
        _cluster() as address,
    ):
        folder = Path(name)
        source = picture_of(pictures, options.min_mp, options.min_mp, folder)
        for model in options.model or _MODELS:
            file = model_file(model, folder)
            outcomes.append(_measure(model, file, source, folder, address, options.runs))
    rows = [
        (o.model, f"{o.picture_mp:.0f}", f"{median(o.local_s):.1f}", f"{median(o.ray_s):.1f}",
         f"{o.overhead:+.1%}")
        for o in outcomes
    ]  # fmt: skip
    head = ("model", "MP", "--workers 2, s", "--engine ray, s", "overhead")
    print(f"{machine_line()}\n\n{markdown_table(head, rows)}\n\n{_NOTES}")
    if options.json:
        save_json(options.json, "cluster", [outcome.as_dict() for outcome in outcomes])


@contextmanager
def _cluster() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(_WORKERS):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def _measure(
    name: str, model: Path, source: Path, folder: Path, address: str, rounds: int
) -> Outcome:
    import srpipe

    outputs = [folder / "local.tif", folder / "ray.tif"]
    ways = [["--workers", str(_WORKERS)], ["--engine", "ray", "--address", address]]
    taken: list[list[float]] = [[], []]
    # What is measured on a node may be another tile than here, and then other bytes.
    common = [source, "-m", model, "-t", "256", "--overwrite", "--quiet"]
    # What the model runs best with is measured once, and kept.
    srpipe.estimate(source, outputs[0], model=model)
    for number in range(1, rounds + 1):
        for way, output, seconds in zip(ways, outputs, taken, strict=True):
            begin_s = time.monotonic()
            _enhance([*map(str, common), *way], output, folder)
            seconds.append(time.monotonic() - begin_s)
            say(f"round {number} of {rounds}, {' '.join(way[:2])}: {seconds[-1]:.1f} s")
        if not filecmp.cmp(*outputs, shallow=False):
            raise TaskError("the two ways gave different files")
    size = srpipe.read_image_info(str(source)).size
    return Outcome(name, size.megapixels, *taken)


def _enhance(arguments: list[str], output: Path, folder: Path) -> None:
    source, *rest = arguments
    command = [sys.executable, "-m", "srpipe", "enhance", source, str(output), *rest]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TaskError(done.stderr.strip())
