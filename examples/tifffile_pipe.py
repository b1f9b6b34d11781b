"""A pipe through tifffile: read, prepare, enhance, and write with metadata of one's own.

    python tifffile_pipe.py INPUT.tif OUTPUT.tif

Pixels go through files in a temporary folder, so that neither side holds a large picture in memory:
``tifffile.memmap`` reads an uncompressed TIFF in place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import srpipe


def stretch(pixels: Any) -> Any:
    """Map the 1st to the 99th percentile to all of 16 bits, as is usual before measuring."""
    low, high = np.percentile(pixels[::8, ::8], (1, 99))
    scaled = (pixels.astype(np.float32) - low) / max(high - low, 1)
    return np.round(np.clip(scaled, 0, 1) * 65535).astype(np.uint16)


def run(src: str, dst: str) -> None:
    """The whole pipe."""
    with tempfile.TemporaryDirectory() as folder:
        prepared, enhanced = Path(folder) / "prepared.tif", Path(folder) / "enhanced.tif"
        tifffile.imwrite(prepared, stretch(tifffile.imread(src)))
        report = srpipe.enhance(prepared, f"{enhanced}[compression=none]", model="lite-x2")
        facts = {
            "model": report.model,
            "scale": report.output_size.width // report.input_size.width,
        }
        tifffile.imwrite(
            dst,
            tifffile.memmap(enhanced, mode="r"),
            compression="zlib",
            predictor=True,
            tile=(256, 256),
            metadata=facts,
        )


if __name__ == "__main__":
    run(*sys.argv[1:3])
