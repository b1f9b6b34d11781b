"""``srpipe enhance INPUT OUTPUT``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, get_args

from srpipe.api import enhance
from srpipe.cli.enhance_many import LIST, add_arguments, run_many
from srpipe.errors import Interrupted, SrpipeError
from srpipe.plan.url import redact_url
from srpipe.progress import ProgressKind, make_renderer, stage_lines
from srpipe.settings import (
    DEFAULT_BACKGROUND_LEVELS,
    DEFAULT_CHECKPOINT_EVERY_S,
    DEFAULT_MODEL,
    DEPTHS,
    Blend,
    ChannelOrder,
    ColorManagement,
    Edges,
    Engine,
    OnError,
    Transfer,
    parse_bytes,
    parse_nodata,
    parse_region,
    parse_slab,
    parse_value_range,
)
from srpipe.terminal import say

if TYPE_CHECKING:
    from srpipe.cli.types import Commands

logger = logging.getLogger(__name__)


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "enhance",
        help="enhance an image",
        description="Enhance INPUT with a model and write OUTPUT, whose ending chooses the format. "
        "libvips options may follow it: 'out.tif[compression=deflate,tile,pyramid]'.",
    )
    add_job_arguments(parser)
    add = parser.add_argument
    add(
        "--progress",
        choices=get_args(ProgressKind),
        default="auto",
        help="json: one object a line on stderr",
    )
    add_arguments(parser)
    add("-q", "--quiet", action="store_true", help="say nothing but errors")
    add("-v", "--verbose", action="count", default=0, help="say more")
    parser.set_defaults(run=run)


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which job is meant: input, output, and all that decides how it is done."""
    parser.add_argument(
        "input", metavar="INPUT", help="TIFF, PNG, JPEG, WebP or HEIF image: a file or a URL"
    )
    parser.add_argument("output", metavar="OUTPUT", help="where the result goes: a file or a URL")
    add = parser.add_argument
    add(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|FILE.onnx",
        help="a bundled model (see 'srpipe models') or a file; default %(default)s",
    )
    add(
        "-t", "--tile-size", type=auto_or_int, metavar="N|auto", help="side of a tile, input pixels"
    )
    add("--overlap", type=int, metavar="N", help="input pixels two neighbouring tiles share")
    add("--blend", choices=get_args(Blend), default="feather", help="default %(default)s")
    add(
        "-b",
        "--batch-size",
        type=auto_or_int,
        metavar="N|auto",
        help="tiles through the model together",
    )
    add(
        "-w",
        "--workers",
        type=auto_or_int,
        metavar="N|auto",
        help="ONNX sessions, each its own process",
    )
    add("--threads", type=auto_or_int, metavar="N|auto", help="cores a session may use")
    add(
        "--runners",
        type=auto_or_int,
        metavar="N|auto",
        help="runs of a session at once, sharing its threads",
    )
    add(
        "--memory",
        metavar="SIZE",
        help="what the job may take, such as 4G; default a share of what is free",
    )
    add("--no-rewrite", action="store_true", help="run the model's graph as it is")
    add("--no-reuse", action="store_true", help="compute tiles again that were seen before")
    add(
        "-d",
        "--device",
        default="auto",
        metavar="NAME[,NAME]",
        help="auto, cpu, cuda, cuda:1 and so on; each of several gets a worker",
    )
    add(
        "--transfer",
        choices=get_args(Transfer),
        default="auto",
        help="how batches reach the device; integer: as the image's numbers, converted there",
    )
    add(
        "--output-name",
        metavar="NAME",
        help="of a model of several outputs, the one to take; default: the image of the largest scale",
    )
    add(
        "--range",
        metavar="LO,HI",
        help="what black and white are in the model's numbers: 0,1, 0,255 or -1,1; default from its "
        "metadata, or 0,1",
    )
    add(
        "--black",
        type=float,
        metavar="N",
        help="the pixel value that is black to the model; default from its metadata, or the smallest "
        "of INPUT's type, 0 for floats",
    )
    add(
        "--white",
        type=float,
        metavar="N",
        help="the pixel value that is white to the model, such as 10000 for Sentinel-2; brighter "
        "pixels are kept; default from its metadata, or the largest of INPUT's type, 1 for floats",
    )
    add(
        "--nodata",
        metavar="N|none",
        help="the pixel value that means no data: it stays, and the model does not see it; default "
        "what a TIFF says of itself",
    )
    add(
        "--channel-order",
        choices=get_args(ChannelOrder),
        default="auto",
        help="of a model of three channels; auto: from its metadata, or rgb; default %(default)s",
    )
    add(
        "--color-management",
        choices=get_args(ColorManagement),
        default="keep",
        help="of a profile unlike sRGB: keep it, and show models sRGB's tone curve; convert to srgb; "
        "or off; default %(default)s",
    )
    add(
        "--depth",
        type=int,
        choices=DEPTHS,
        help="bits of a sample of OUTPUT; default those of INPUT",
    )
    add(
        "--outscale",
        type=float,
        metavar="FACTOR",
        help="how many times as large as INPUT OUTPUT is, any number above 0: what the model gives is "
        "resized; default the model's scale",
    )
    add(
        "--region",
        metavar="X,Y,W,H",
        help="enhance this part of INPUT, and write it alone: left, top, width and height in pixels",
    )
    add(
        "--edges",
        choices=get_args(Edges),
        default="reflect",
        help="what the model sees beyond the border of INPUT: the image mirrored, its last pixels "
        "repeated, its opposite side, so that a texture stays tileable, or nothing but what it pads "
        "with by itself, zeros mostly; default: %(default)s",
    )
    add(
        "--mask",
        metavar="FILE",
        help="an image of the shape of INPUT: white is enhanced, black only resized",
    )
    add(
        "--skip-background",
        action="store_true",
        help="only resize tiles in which nothing is to be seen",
    )
    add(
        "--background-levels",
        type=int,
        default=DEFAULT_BACKGROUND_LEVELS,
        metavar="N",
        help="how far apart the values of such a tile may lie, of 255; default %(default)s",
    )
    add("--engine", choices=get_args(Engine), default="auto",
        help="serial, threads, local: how stages run here; ray: on the nodes of a Ray cluster; "
        "default: by the number of tiles")  # fmt: skip
    add("--address", metavar="HOST:PORT",
        help="of the Ray cluster; default: the one that $RAY_ADDRESS names or that runs here, or else "
        "this machine alone")  # fmt: skip
    add("--slabs", type=auto_or_int, metavar="N|auto",
        help="bands of rows that the nodes of a Ray cluster compute apart")  # fmt: skip
    add("--slab", metavar="K/N",
        help="compute the Kth of N slabs alone, for clusters without Ray; when all are done, "
        "'srpipe assemble OUTPUT' makes OUTPUT of them")  # fmt: skip
    add("--job-dir", metavar="DIR", help="folder for the job's files; default OUTPUT.srpipe")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--fresh", action="store_true", help="start over, whatever the job folder holds")
    add(
        "--checkpoint-every",
        type=float,
        default=DEFAULT_CHECKPOINT_EVERY_S,
        metavar="SECONDS",
        help="default %(default)g; from the first on, each row of tiles ends with one too",
    )
    add(
        "--on-error",
        choices=get_args(OnError),
        default="stop",
        help="fill: where INPUT cannot be read, go on with what could be; default %(default)s",
    )
    add(
        "--allow-untrusted",
        action="store_true",
        help="read formats too that libvips does not trust with files from strangers (SVG, CSV, .v)",
    )


def auto_or_int(text: str) -> int | None:
    """The number, or None for ``auto``."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, and not auto") from None


def job_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of :func:`add_job_arguments` ask for, by the names of settings."""
    return {
        "model": options.model,
        "tile_size": options.tile_size,
        "overlap": options.overlap,
        "blend": options.blend,
        "batch_size": options.batch_size,
        "workers": options.workers,
        "threads": options.threads,
        "runners": options.runners,
        "memory_bytes": None if options.memory is None else parse_bytes(options.memory),
        "rewrite": not options.no_rewrite,
        "reuse": not options.no_reuse,
        "device": options.device,
        "transfer": options.transfer,
        "job_dir": options.job_dir,
        "overwrite": options.overwrite,
        "fresh": options.fresh,
        "checkpoint_every_s": options.checkpoint_every,
        "on_error": options.on_error,
        "allow_untrusted": options.allow_untrusted,
        "output_name": options.output_name,
        "value_range": None if options.range is None else parse_value_range(options.range),
        "black": options.black,
        "white": options.white,
        "nodata": None if options.nodata is None else parse_nodata(options.nodata),
        "channel_order": options.channel_order,
        "color_management": options.color_management,
        "depth": options.depth,
        "outscale": options.outscale,
        "region": None if options.region is None else parse_region(options.region),
        "edges": options.edges,
        "mask": options.mask,
        "skip_background": options.skip_background,
        "background_levels": options.background_levels,
        "engine": options.engine,
        "address": options.address,
        "slabs": options.slabs,
        "slab": None if options.slab is None else parse_slab(options.slab),
    }


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    if options.input == LIST or os.path.isdir(options.input):
        return run_many(options, job_settings(options))
    renderer = make_renderer(
        options.progress, sys.stderr, redact_url(options.input), quiet=options.quiet
    )
    with renderer:
        try:
            report = enhance(
                options.input,
                options.output,
                **job_settings(options),
                progress=None if options.progress == "none" else renderer,
                stop=options.stop,
            )
        except (KeyboardInterrupt, SrpipeError) as problem:
            # A KeyboardInterrupt comes while the job is still being prepared.
            error = problem if isinstance(problem, SrpipeError) else Interrupted("interrupted.")
            stopped = isinstance(error, Interrupted)
            exit_code: int = options.stop.exit_code if stopped else error.exit_code
            renderer.error(error, exit_code)
            return exit_code
        renderer.report(report)
    if options.slab is not None and not options.quiet and options.progress != "json":
        say(
            f"srpipe: slab {options.slab} is done; when all are, 'srpipe assemble' makes the output."
        )
    for line in stage_lines(report):
        logger.info("%s", line)
    return 0
