"""``srpipe quantize MODEL TARGET.onnx --calibrate IMAGE…``."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

from srpipe.io.child import most_bytes, try_out
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands
    from srpipe.models.quantize import QuantizeReport


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "quantize",
        help="make an INT8 version of a model",
        description="Make an INT8 version of a model, and tell what it loses and how fast it is here.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a bundled model, or an .onnx file (float32)"
    )
    parser.add_argument("target", metavar="TARGET", help="the .onnx file to write")
    parser.add_argument(
        "--calibrate", nargs="+", required=True, metavar="IMAGE",
        help="images like those that the model will see",
    )  # fmt: skip
    parser.add_argument(
        "--tiles", type=int, metavar="N",
        help="tiles of them to calibrate on, those that differ most; default 16",
    )  # fmt: skip
    parser.add_argument("--tile-size", type=int, metavar="N", help="their side; default 128")
    parser.add_argument("--overwrite", action="store_true", help="replace TARGET if it exists")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    from srpipe.models.quantize import DEFAULT_TILE_PX, DEFAULT_TILES, quantize_model

    quantize = partial(
        quantize_model,
        options.model,
        options.target,
        options.calibrate,
        n_tiles=DEFAULT_TILES if options.tiles is None else options.tiles,
        tile_size=DEFAULT_TILE_PX if options.tile_size is None else options.tile_size,
        overwrite=options.overwrite,
    )
    report = try_out(options.model, quantize, most_bytes())
    print(json.dumps(report.as_dict()) if options.json else describe(report))
    return 0


def describe(report: QuantizeReport) -> str:
    """A report as people read it."""
    width, height = report.tile_px
    split = ", PReLU as split channels" if report.split_prelu else ""
    lines = [
        report.target,
        f"  calibrated on    {report.calibration_tiles} tiles of {width}x{height}",
        f"  convolutions     {report.integer_convolutions} in INT8, "
        f"{report.float_convolutions} in float{split}",
        f"  against float32  {report.psnr_db:.1f} dB on {report.check_tiles} other tiles",
        f"  speed here       {report.int8_mp_s:.3g} MP/s, float32 {report.float_mp_s:.3g} MP/s: "
        f"{report.gain:.2f} times as fast",
        f"  size             {report.target_bytes} bytes, float32 {report.source_bytes} bytes",
    ]
    if not report.is_faster:
        lines.append("  INT8 is no faster on this machine: keep the float32 model.")
    if not report.is_accurate:
        lines.append("  It differs from float32 by more than it should: look at its results first.")
    return as_lines(lines)
