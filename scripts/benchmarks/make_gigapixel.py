"""Command line of :mod:`benchmarks.mosaic`: ``scripts/make-gigapixel PICTURE... OUTPUT``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyvips

from .mosaic import PictureSpec, make_picture
from .processes import own_peak_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a picture; returns the exit code."""
    options = _parser().parse_args(arguments)
    width_px, height_px = options.size
    spec = PictureSpec(
        width_px, height_px, options.depth, options.grey, options.alpha, options.seed
    )
    begin_s = time.monotonic()
    try:
        make_picture(options.pictures, options.output, spec)
    except (OSError, pyvips.Error) as error:
        print(f"make-gigapixel: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(
        f"{options.output}: {width_px}x{height_px}, {spec.bands} bands of {spec.depth} bits, "
        f"{time.monotonic() - begin_s:.1f} s, peak memory {own_peak_bytes() / 1e6:.0f} MB"
    )
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from ``WIDTHxHEIGHT``, pixels.

    Raises:
        ArgumentTypeError: anything else.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT, such as 32768x32768")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make-gigapixel",
        description="Makes a picture of any size from photographs, in little memory: a mosaic of "
        "turned and mirrored crops, each with a brightness of its own. The same every time.",
    )
    add = parser.add_argument
    add("pictures", metavar="PICTURE", nargs="+", type=Path, help="photographs")
    add("output", metavar="OUTPUT", help="libvips options may follow: 'big.tif[bigtiff]'")
    add(
        "--size",
        type=parse_size,
        default=(32768, 32768),
        metavar="WxH",
        help="pixels; default 32768x32768",
    )
    add("--depth", type=int, choices=(8, 16), default=8, help="bits a sample; default 8")
    add("--grey", action="store_true", help="one colour instead of three")
    add("--alpha", action="store_true", help="with an alpha channel")
    add("--seed", type=int, default=0, help="another picture of the same kind; default 0")
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
