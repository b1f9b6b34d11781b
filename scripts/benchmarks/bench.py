"""Command line of the benchmarks: ``scripts/bench`` with the name of a benchmark."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyvips

from srpipe.api import available_cores, bundled_models
from srpipe.errors import SrpipeError

from .batch import BATCH_SIZES, batch_table, measure_batches
from .models import compare_models, models_table
from .pipeline import (
    COMPACT,
    COMPACT_MP,
    DEFAULT_MODELS,
    Result,
    default_pictures,
    measure_model,
    model_file,
    picture_of,
)
from .reuse import make_scan, measure_reuse, reuse_table
from .rewrite import default_models, measure_rewrites, rewrite_table
from .table import speed_table, stage_table
from .task import TaskError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (OSError, SrpipeError, TaskError, pyvips.Error) as error:
        print(f"bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run_pipeline(options: argparse.Namespace) -> None:
    pictures = [options.picture] if options.picture else default_pictures()
    results = []
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        folder = Path(name)
        for model in options.model or DEFAULT_MODELS:
            short = model == COMPACT and not options.full
            least_mp = min(options.min_mp, COMPACT_MP) if short else options.min_mp
            source = picture_of(pictures, least_mp, least_mp if short else None, folder)
            file = model_file(model, folder)
            results.append(measure_model(model, file, source, folder, options.runs, _say))
    print(f"{machine_line()}\n\n{speed_table(results)}\n\n{stage_table(results)}")
    if options.json:
        options.json.write_text(json.dumps(as_json(results), indent=1))


def _run_batch(options: argparse.Namespace) -> None:
    print(machine_line())
    with TemporaryDirectory(prefix="srpipe-bench-") as name:
        for model in options.model or DEFAULT_MODELS:
            measured = measure_batches(
                model_file(model, Path(name)),
                device=options.device,
                batch_sizes=options.batch_size or BATCH_SIZES,
                tile_px=options.tile_size,
                rounds=options.runs,
                integer=options.integer,
            )
            print(f"\n{model}, {measured.title}\n\n{batch_table(measured)}", flush=True)


def _run_models(options: argparse.Namespace) -> None:
    source = options.picture or default_pictures()[0]
    models = options.model or list(bundled_models())
    with TemporaryDirectory(prefix="srpipe-bench-") as folder:
        speeds = compare_models(models, source, Path(folder), options.runs, _say)
    print(f"{machine_line()}\n\n{models_table(speeds)}")


def _run_reuse(options: argparse.Namespace) -> None:
    pictures = [options.picture] if options.picture else default_pictures()
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        folder = Path(name)
        model = str(model_file(options.model, folder))
        scan = make_scan(pictures, options.mp, options.background, model, folder)
        photograph = picture_of(pictures, options.mp, options.mp, folder)
        savings = [
            measure_reuse(title, source, model, folder, options.runs, _say)
            for title, source in (("scan", scan), ("photograph", photograph))
        ]
    print(f"{machine_line()}\n\n{options.model}\n\n{reuse_table(savings)}")


def _run_rewrite(options: argparse.Namespace) -> None:
    with TemporaryDirectory(prefix="srpipe-bench-") as folder:
        gains = [
            gain
            for model in options.model or default_models()
            for gain in measure_rewrites(model, Path(folder), options.tile_size, options.runs, _say)
        ]
    print(f"{machine_line()}\n\n{rewrite_table(gains)}")


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """All that was measured, and on what."""
    return {"machine": machine(), "results": [result.as_dict() for result in results]}


def machine() -> dict[str, Any]:
    """What the measurements depend on."""
    packages = {name: version(name) for name in ("onnxruntime", "numpy", "pyvips", "numba")}
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {"processor": processor, "cores": available_cores(), "packages": packages}


def machine_line() -> str:
    """:func:`machine` on one line, and how busy it is."""
    facts = machine()
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, load {os.getloadavg()[0]:.1f}; {packages}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measures srpipe.")
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    pipeline = commands.add_parser(
        "pipeline",
        help="srpipe end to end against the bare model and a plain loop",
        description="Measures three things in turn, each in a process of its own: ready batches "
        "through the bare model (raw session), srpipe from file to file, and the plain loop that "
        "holds the whole picture in memory.",
    )
    add = pipeline.add_argument
    add(
        "--picture",
        type=Path,
        metavar="FILE",
        help="default: a photograph of Debian's lomiri-wallpapers, or else a mosaic of tests/data",
    )
    add(
        "--min-mp",
        type=float,
        default=16.0,
        metavar="MP",
        help="a smaller picture becomes a mosaic of this many megapixels; default %(default)s",
    )
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add(
        "--model",
        nargs="+",
        metavar="NAME|FILE",
        help=f"default: {' '.join(DEFAULT_MODELS)}; '{COMPACT}' is SRVGGNetCompact, 64 features, "
        "16 convolutions, x2, random weights",
    )
    add(
        "--full",
        action="store_true",
        help=f"measure {COMPACT} on the whole picture, not on {COMPACT_MP:g} MP of it",
    )
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    add("--json", type=Path, metavar="FILE", help="all that was measured")
    pipeline.set_defaults(run=_run_pipeline)
    batch = commands.add_parser(
        "batch",
        help="one session at several batch sizes, on any device",
        description="Times batches through one session of one model, copies to and from the device "
        "included, beside the figures of the design that srpipe started from.",
    )
    add = batch.add_argument
    add("--device", default="cpu", help="cpu, cuda, cuda:1, tensorrt …; default %(default)s")
    add("--model", nargs="+", metavar="NAME|FILE", help=f"default: {' '.join(DEFAULT_MODELS)}")
    add("--batch-size", nargs="+", type=int, metavar="N", help="default: 1 4 8 16")
    add("--tile-size", type=int, default=256, metavar="N", help="default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--integer", action="store_true", help="batches of integers, converted by the session")
    batch.set_defaults(run=_run_batch)
    models = commands.add_parser(
        "models",
        help="the bare speed of models, relative to the first",
        description="Runs ready batches through every model in turn, in its best arrangement.",
    )
    add = models.add_argument
    add("--model", nargs="+", metavar="NAME|FILE", help="default: the models in the box")
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--runs", type=int, default=5, metavar="N", help="rounds; default %(default)s")
    models.set_defaults(run=_run_models)
    reuse = commands.add_parser(
        "reuse",
        help="what computing repeated tiles once saves on a scan, and costs on a photograph",
        description="Enhances a white page with blocks of photographs, and a photograph, in turn with "
        "and without --no-reuse, and compares the outputs.",
    )
    add = reuse.add_argument
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--mp", type=float, default=16.0, metavar="MP", help="of both; default %(default)s")
    add("--background", type=float, default=0.6, metavar="SHARE", help="default %(default)s")
    add("--model", default=DEFAULT_MODELS[0], metavar="NAME|FILE", help="default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    reuse.set_defaults(run=_run_reuse)
    rewrite = commands.add_parser(
        "rewrite",
        help="what each rewrite of a model's graph gains",
        description="Runs a model's own graph and every rewritten one in turn, a run on each core.",
    )
    add = rewrite.add_argument
    add("--model", nargs="+", metavar="NAME|FILE", help=f"default: {' '.join(default_models())}")
    add("--tile-size", type=int, default=256, metavar="N", help="default %(default)s")
    add("--runs", type=int, default=7, metavar="N", help="rounds; default %(default)s")
    rewrite.set_defaults(run=_run_rewrite)
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
