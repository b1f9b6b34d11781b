"""``bench combined``: what tiling, engine and INT8 gain together over the plain float32 loop."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from srpipe.api import bundled_models, prepare
from srpipe.models.quantize import quantize_model
from srpipe.settings import Settings

from .contest import Contender, Entry, hold_contest, nearness_to_whole
from .pictures import default_pictures, picture_of
from .pipeline import loop_can_call
from .report import machine_line, save_json, say
from .runs import db_cell, median_cpu_ratio, median_ratio, median_s
from .table import markdown_table
from .task import TaskError
from .weights import COMPACT, model_file

_LOOP, _FLOAT, _INT8 = "plain loop, fp32", "srpipe, fp32", "srpipe, INT8"
# The slowest of the box computes about a quarter of a megapixel a second on two cores.
_PICTURE_MP = 4.0
_CROP_MP = 1.1
_NOTES = """\
Seconds from file to file, medians; gains: the loop's time over srpipe's, medians of the rounds' \
ratios; in brackets by processor time. PSNR of 8-bit outputs to the float32 model's result for a crop \
at once (INT8 cannot be nearer than the quantised model is)."""


@dataclass(frozen=True)
class Outcome:
    """The ways to run one model."""

    model: str
    picture_mp: float
    entries: dict[str, Entry]

    def gain(self, way: str) -> float:
        """The loop's time over that of a way."""
        return median_ratio(self.entries[_LOOP].runs, self.entries[way].runs)

    def cpu_gain(self, way: str) -> float:
        """The same by processor time."""
        return median_cpu_ratio(self.entries[_LOOP].runs, self.entries[way].runs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = self.entries[_LOOP]
        return {
            "model": self.model,
            "picture_mp": self.picture_mp,
            "entries": [e.as_dict(first, self.picture_mp) for e in self.entries.values()],
            "gain": self.gain(_FLOAT),
            "gain_int8": self.gain(_INT8),
            "cpu_gain": self.cpu_gain(_FLOAT),
            "cpu_gain_int8": self.cpu_gain(_INT8),
        }


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "combined",
        help="srpipe in float32 and in INT8 against the plain float32 loop",
        description="For every model: the plain loop, srpipe, and srpipe with the model quantised on "
        "tiles of the picture, in turn, each in a process of its own.",
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        metavar="NAME|FILE",
        help=f"default: the models in the box and {COMPACT}",
    )
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--mp", type=float, default=_PICTURE_MP, metavar="MP", help="default %(default)s")
    add(
        "--crop-mp",
        type=float,
        default=_CROP_MP,
        metavar="MP",
        help="size of the crop that is run at once; 0: not; default %(default)s",
    )
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        folder = Path(name)
        pictures = [options.picture] if options.picture else default_pictures()
        source = picture_of(pictures, options.mp, options.mp, folder)
        outcomes = [
            _measure(model, source, folder, options.crop_mp, options.runs)
            for model in options.model or [*bundled_models(), COMPACT]
        ]
    print(f"{machine_line()}\n\n{combined_table(outcomes)}")
    if options.json:
        save_json(options.json, "combined", [outcome.as_dict() for outcome in outcomes])


def _measure(name: str, source: Path, folder: Path, crop_mp: float, rounds: int) -> Outcome:
    model = model_file(name, folder)
    plan = prepare(str(source), str(folder / "out.tif"), Settings(model=str(model)))
    if not loop_can_call(plan):
        raise TaskError(f"the plain loop cannot run model {name} on {source}")
    say(f"{name}: quantising it on tiles of the picture")
    quantised = folder / f"{model.stem}-int8.onnx"
    report = quantize_model(model, quantised, [source])
    say(f"{name}: INT8 runs {report.gain:.2f} times as fast, {report.psnr_db:.1f} dB from float32")
    contenders = [
        Contender(_LOOP, "loop", str(model)),
        Contender(_FLOAT, "pipeline", str(model)),
        Contender(_INT8, "pipeline", str(quantised)),
    ]
    whole_db = nearness_to_whole(contenders, model, source, crop_mp, folder)
    entries = hold_contest(contenders, source, folder, rounds=rounds, say=say, whole_db=whole_db)
    megapixels = plan.image.size.megapixels
    return Outcome(name, megapixels, {entry.name: entry for entry in entries})


def combined_table(outcomes: Sequence[Outcome]) -> str:
    """A row for every model."""
    head = (
        "model", "picture, MP", "loop, s", "srpipe, s", "INT8, s", "gain", "gain with INT8",
        "PSNR, dB: loop", "srpipe", "INT8",
    )  # fmt: skip
    rows = [
        [
            outcome.model,
            f"{outcome.picture_mp:.1f}",
            *(f"{median_s(outcome.entries[way].runs):.2f}" for way in (_LOOP, _FLOAT, _INT8)),
            *(f"{outcome.gain(way):.2f} ({outcome.cpu_gain(way):.2f})" for way in (_FLOAT, _INT8)),
            *(db_cell(outcome.entries[way].whole_db) for way in (_LOOP, _FLOAT, _INT8)),
        ]
        for outcome in outcomes
    ]
    return f"{markdown_table(head, rows)}\n\n{_NOTES}"
