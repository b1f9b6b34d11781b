"""``srpipe inspect FILE``: what srpipe sees in an image or a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srpipe.api import bundled_models, find_model, probe_model, read_image_info
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.model_info import ModelInfo

if TYPE_CHECKING:
    from srpipe.cli.types import Commands


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("inspect", help="show what srpipe sees in an image or a model")
    parser.add_argument("file", metavar="FILE", help="an image, an .onnx file, or a bundled model")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--allow-untrusted", action="store_true", help="as for 'srpipe enhance'")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    is_model = Path(options.file).suffix.lower() == ".onnx" or options.file in bundled_models()
    info: ModelInfo | ImageInfo
    if is_model:
        info = probe_model(find_model(options.file))
    else:
        info = read_image_info(options.file, allow_untrusted=options.allow_untrusted)
    if options.json:
        print(json.dumps({"kind": "model" if is_model else "image"} | info.as_dict(), default=str))
        return 0
    facts = model_facts(info) if isinstance(info, ModelInfo) else image_facts(info)
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:{width}}  {value}")
    return 0


def image_facts(info: ImageInfo) -> dict[str, Any]:
    """An image's facts as people read them."""
    return {
        "image": info.path,
        "size": f"{info.size} pixels ({info.size.megapixels:.1f} MP)",
        "depth": f"{8 * info.sample_bytes} bits a sample",
        "bands": f"{info.bands} ({info.kind}, {info.interpretation})",
        "profile": f"embedded ICC profile, {info.icc_bytes} bytes" if info.icc_bytes else "none",
        "pages": info.pages,
        "reader": info.loader,
    }


def model_facts(info: ModelInfo) -> dict[str, Any]:
    """A model's facts as people read them."""
    low, high = info.value_range
    facts: dict[str, Any] = {
        "model": f"{info.name} ({info.path}, {info.file_bytes} bytes)",
        "input, output": f"{info.input_name}, {info.output_name}",
        "layout": f"{info.layout} {info.dtype}",
        "channels": f"{info.channels} ({_colours(info)}, {low:g} to {high:g})",
        "scale": info.scale,
        "batch": "free" if info.batch is None else f"fixed at {info.batch}",
        "height": _free_or_fixed(info.height_px, info),
        "width": _free_or_fixed(info.width_px, info),
        "batch exact": "yes: the same bits as one by one" if info.batch_exact else "no",
        "radius": "beyond the probe"
        if info.radius_px is None
        else f"{info.radius_px} input pixels",
        "sha256": info.sha256,
    }
    return facts | {f"metadata {key}": value for key, value in sorted(info.metadata.items())}


def _colours(info: ModelInfo) -> str:
    if info.channels != 3:
        return "luma" if info.channels == 1 else "as the image's bands"
    return "BGR" if info.bgr else "RGB"


def _free_or_fixed(fixed_px: int | None, info: ModelInfo) -> str:
    if fixed_px is not None:
        return f"fixed at {fixed_px}"
    return f"free, multiples of {info.multiple_px} from {info.least_px}"
