"""Command line of the training package: ``python -m training {train,evaluate}``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from srpipe.io.model_probe import probe_model
from srpipe.models.graph import write_metadata

from .data import (
    Pair,
    PatchSettings,
    PatchSource,
    credit_line,
    degrade_pairs,
    find_pictures,
    load_pairs,
    matches,
    read_credits,
)
from .degrade import RECIPES, add_noise
from .evaluate import Damage, Judge, evaluate, model_scale, open_session, table
from .network import NetworkSettings
from .train import Trainer, TrainSettings, load_checkpoint, train

logger = logging.getLogger("training")

# Small nets need little memory a pixel, and a larger tile computes fewer pixels twice.
_TILE_SIZE_PX = 512
_TILE_SIZE_X4_PX = 384  # a result is sixteen times its tile
_JUDGED_NOISE_LEVELS = 25.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse `arguments` and run the chosen command."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("pyvips").setLevel(logging.WARNING)
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return 1
    return 0


def _run_train(options: argparse.Namespace) -> None:
    pictures = [path for path in find_pictures(options.data) if not matches(path, options.skip)]
    held_out = [path for path in pictures if matches(path, options.hold_out)]
    training = [path for path in pictures if path not in held_out]
    if not training or not held_out:
        raise ValueError(
            f"{len(training)} pictures to train on, {len(held_out)} held out: need both"
        )
    network = NetworkSettings(
        options.scale,
        options.features,
        options.convolutions,
        fold=options.fold,
        smooth=options.smooth,
        residual=options.residual,
    )
    settings = TrainSettings(
        minutes=options.minutes,
        device=options.device,
        threads=options.threads,
        learning_rate=options.learning_rate,
        squared_from=options.squared_from,
        luma_weight=options.luma_weight,
        bfloat16=options.bfloat16,
        report_minutes=options.report_minutes,
        seed=options.seed,
    )
    patch = PatchSettings(
        options.scale, options.patch, options.batch, options.candidates, options.recipe
    )
    pairs = load_pairs(training, options.scale, options.reduce)
    trainer = Trainer(network, settings, PatchSource(pairs, patch, options.seed))
    checkpoint = options.checkpoint or options.out.with_suffix(".checkpoint.pt")
    for file in (options.out, checkpoint):
        file.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        trainer.restore(load_checkpoint(checkpoint, options.device))
        logger.info("going on after step %d", trainer.steps)
    first_reduction = options.reduce[0]
    judged = load_pairs(held_out, options.scale, [first_reduction])
    damage = ""
    if options.scale == 1:
        # A recipe leaves some as they are, whose PSNR is infinite: no mean could be made.
        judged = [Pair(add_noise(pair.high, _JUDGED_NOISE_LEVELS), pair.high) for pair in judged]
        damage = f", with noise of {_JUDGED_NOISE_LEVELS:g} levels"
    elif options.recipe in RECIPES:
        damage = ", blurred, noisy and compressed"
        judged = degrade_pairs(judged, RECIPES[options.recipe], options.scale, options.seed)
    judge = Judge([path.name for path in held_out], judged, options.scale)
    metadata = {
        **_metadata(options, network),
        **_training_data(training),
        "psnr_pictures": f"{len(held_out)} held-out photographs, reduced by {first_reduction}{damage}",
    }
    train(trainer, judge, metadata, options.out, checkpoint)
    info = probe_model(options.out)
    if info.halo_from == "measured":
        write_metadata(options.out, {"halo_px": str(info.halo_px)})


def _run_evaluate(options: argparse.Namespace) -> None:
    pictures = find_pictures(options.pictures)
    if not pictures:
        raise ValueError("no pictures to evaluate on")
    damage = Damage(options.noise, options.jpeg)
    scores = evaluate(options.model, pictures, options.reduce, damage, options.crop)
    restores = model_scale(open_session(options.model)) == 1
    sys.stdout.write(table(scores, "NLM" if restores else "bicubic") + "\n")


def _metadata(options: argparse.Namespace, network: NetworkSettings) -> dict[str, str]:
    return {
        "name": options.out.stem,
        "purpose": options.purpose,
        "scale": str(network.scale),
        "architecture": _architecture(network),
        "parameters": str(network.parameters),
        "size_multiple": str(network.fold),
        "receptive_radius_px": str(network.receptive_radius_px),
        "value_range": "1",
        "tile_size": str(_TILE_SIZE_PX if network.scale < 4 else _TILE_SIZE_X4_PX),
        "color_order": "rgb",
        "licence": options.licence,
    }


def _architecture(network: NetworkSettings) -> str:
    channels = "-".join(str(count) for count in network.channels)
    kind = "in residual pairs" if network.residual else "trained as ECB blocks and merged"
    added = "linearly enlarged" if network.smooth else "repeated"
    folded = f"; {network.fold}x{network.fold} pixels folded" if network.fold > 1 else ""
    return (
        f"{network.convolutions} convolutions 3x3 ({channels}) with ReLU, {kind}; {added} input "
        f"added; pixel shuffle{folded}"
    )


def _training_data(pictures: Sequence[Path]) -> dict[str, str]:
    known = read_credits()
    return {"training_data": "; ".join(credit_line(path, known) for path in pictures)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_train(commands.add_parser("train", help="train a network and write it as ONNX"))
    scorer = commands.add_parser("evaluate", help="PSNR of a model on pictures")
    scorer.add_argument("model", type=Path, metavar="MODEL.onnx")
    scorer.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    scorer.add_argument("--reduce", type=int, default=1, help="shrink every picture by this first")
    scorer.add_argument("--crop", type=int, metavar="PX", help="a square from the middle only")
    scorer.add_argument(
        "--noise", type=float, default=0.0, metavar="LEVELS", help="for models of scale 1"
    )
    scorer.add_argument("--jpeg", type=int, metavar="QUALITY", help="for models of scale 1")
    scorer.set_defaults(run=_run_evaluate)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    patch, settings, network = PatchSettings(), TrainSettings(minutes=60), NetworkSettings()
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders or files")
    add("--hold-out", nargs="+", required=True, metavar="GLOB", help="score on these, never train")
    add("--skip", nargs="*", default=[], metavar="GLOB", help="leave these pictures out altogether")
    add(
        "--reduce",
        type=int,
        nargs="+",
        default=[2, 3],
        help="shrink pictures by these; default 2 3",
    )
    add("--out", type=Path, required=True, metavar="MODEL.onnx")
    add("--checkpoint", type=Path, help="default: next to --out; continued from if it exists")
    add("--minutes", type=float, default=settings.minutes, help="budget over all continuations")
    add("--report-minutes", type=float, default=settings.report_minutes, help="between two scores")
    add("--scale", type=int, default=network.scale)
    add("--features", type=int, default=network.features)
    add("--convolutions", type=int, default=network.convolutions)
    add("--fold", type=int, default=network.fold, help="squares of pixels that become channels")
    add("--recipe", choices=["none", *RECIPES], default=patch.recipe, help="how inputs are damaged")
    add("--residual", action="store_true", help="pairs of convolutions, each added to its input")
    add("--smooth", action="store_true", help="add the input enlarged linearly, not repeated")
    add("--candidates", type=int, default=patch.candidates, help="places a patch is chosen from")
    add("--patch", type=int, default=patch.size_px, help="input pixels on a side")
    add("--batch", type=int, default=patch.batch)
    add("--learning-rate", type=float, default=settings.learning_rate)
    add("--squared-from", type=float, default=settings.squared_from, help="part of the budget")
    add("--luma-weight", type=float, default=settings.luma_weight, help="share of luma in the loss")
    add("--bfloat16", action="store_true", help="faster where the processor computes in bfloat16")
    add("--device", default=settings.device, help="cpu, cuda, cuda:1 …")
    add("--threads", type=int, default=settings.threads)
    add("--seed", type=int, default=settings.seed)
    add("--purpose", default="Upscales clean photographs fast", help="a sentence for the metadata")
    add("--licence", default="MIT", help="of the weights, for the metadata")
    parser.set_defaults(run=_run_train)


if __name__ == "__main__":
    sys.exit(main())
