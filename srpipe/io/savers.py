"""What writes the file, or the folder, of each format from a libvips image."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from srpipe.io import disk
from srpipe.io.vips import DTYPES, pyvips
from srpipe.plan.nodata import NoData
from srpipe.plan.output import OutputSpec, companion


def save_image(image: Any, spec: OutputSpec, path: str, no_data: NoData | None = None) -> None:
    """Write an image, from its first row to its last.

    Args:
        image: as libvips computes it.
        spec: the format and its options.
        path: where to, with the format's ending; replaced if it is there, and what belongs to it is
            written beside it.
        no_data: what is empty in the image; None: nothing is.

    Raises:
        pyvips.Error, UnicodeDecodeError: libvips cannot write it; see
            :data:`srpipe.io.vips.VIPS_ERRORS`.
        OSError: something else cannot.
        OutputError: the options are none of the format's, or the package it needs is missing.
    """
    if spec.format.name == "DeepZoom":
        _save_deepzoom(image, spec, path)
    elif spec.format.name == "Zarr":
        from srpipe.io.zarr_saver import save_zarr  # its package is an extra, and slow to import

        save_zarr(image, spec, path, no_data)
    else:
        image.write_to_target(pyvips.Target.new_to_file(path), spec.vips_format)
        if spec.format.name == "raw":
            _describe_raw(image, path, no_data)


def _save_deepzoom(image: Any, spec: OutputSpec, path: str) -> None:
    stem, _ = os.path.splitext(path)
    image.write_to_file(f"{stem}{spec.vips_format}")
    # It holds the time of day, and no viewer needs it.
    disk.remove(Path(companion(path) or "", "vips-properties.xml"))


def _describe_raw(image: Any, path: str, no_data: NoData | None) -> None:
    facts = {
        "width": image.width,
        "height": image.height,
        "bands": image.bands,
        "dtype": DTYPES[image.format],
        "byte_order": sys.byteorder,
        "order": ["row", "column", "band"],
        "interpretation": image.interpretation,
    }
    if no_data is not None and no_data.value is not None:
        facts["nodata"] = no_data.value
    disk.write_file(Path(companion(path) or ""), json.dumps(facts, indent=1).encode())
