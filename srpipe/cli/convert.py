"""``srpipe convert SOURCE TARGET.onnx``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from srpipe.cli.types import NEEDS_OVERWRITE
from srpipe.errors import SettingsError
from srpipe.io.child import most_bytes, try_out
from srpipe.settings import DEFAULT_TLC_WINDOW_PX
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands
    from srpipe.models.convert import Conversion


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "convert",
        help="turn any model into an ONNX model with a free batch",
        description="Turn SOURCE into an ONNX model with a free batch, and a free height and width "
        "where its graph allows. SOURCE is an .onnx file of fixed sizes, ncnn's .param with its "
        ".bin, or PyTorch's .pth, .pt or .safetensors (which need srpipe[torch]). Source and target "
        "are run on the same tile, and nothing is written if they differ by more than a thousandth.",
    )
    parser.add_argument("source", metavar="SOURCE", help="the model to convert")
    parser.add_argument("target", metavar="TARGET.onnx", help="the model to write")
    add = parser.add_argument
    add("--bin", metavar="FILE", help="ncnn's weights, if they are not called like the .param")
    add("--fp16", action="store_true", help="float16 inside; inputs and outputs stay float32")
    add("--tlc", action="store_true", help="make global pooling (NAFNet) local (Chu et al. 2022)")
    add(
        "--tlc-window",
        type=int,
        metavar="PX",
        help=f"over so many input pixels; default {DEFAULT_TLC_WINDOW_PX}",
    )
    add("--overwrite", action="store_true", help=NEEDS_OVERWRITE)
    add("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    from srpipe.models.convert import convert_model  # late: it loads onnx

    if options.tlc_window is not None and not options.tlc:
        raise SettingsError("--tlc-window goes with --tlc: add it.")
    window_px = DEFAULT_TLC_WINDOW_PX if options.tlc_window is None else options.tlc_window
    convert = partial(
        convert_model,
        options.source,
        options.target,
        weights=options.bin,
        tlc_px=window_px if options.tlc else None,
        fp16=options.fp16,
        overwrite=options.overwrite,
    )
    conversion = try_out(options.source, convert, most_bytes())
    if options.json:
        print(json.dumps(asdict(conversion), default=str))
    else:
        print(as_lines(lines(conversion)))
    return 0


def lines(conversion: Conversion) -> list[str]:
    """A conversion as people read it."""
    info = conversion.info
    sides = [info.height_px, info.width_px]
    size = "any" if sides == [None, None] else "x".join(str(side or "any") for side in sides)
    if size == "any" and info.multiple_px > 1:
        size = f"multiples of {info.multiple_px}"
    shape = "x".join(map(str, conversion.tile_shape))
    compared = f"not compared with its source: {conversion.not_compared}"
    if conversion.difference is not None:
        compared = (
            f"on a tile of {shape}, source and target differ by at most "
            f"{conversion.difference:.2g} of the range ({255 * conversion.difference:.2g} of 255)"
        )
    return [
        f"{conversion.target}: {conversion.file_bytes / 1e6:.2f} MB, from {conversion.kind}",
        f"  scale {info.scale}, {info.channels} channels, batch {info.batch or 'any'}, size {size}",
        *(f"  {line}" for line in conversion.done),
        f"  {compared}",
        "  a batch of 3 and its tiles one by one differ by at most "
        f"{conversion.batch_difference:.2g} of it",
    ]
