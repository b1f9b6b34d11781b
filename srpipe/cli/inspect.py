"""``srpipe inspect FILE``: what srpipe sees in an image or a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srpipe.api import bundled_models, find_model, read_image_info
from srpipe.errors import SettingsError
from srpipe.plan.image_info import ImageInfo
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "inspect",
        help="show what srpipe sees in an image or a model",
        description="Show what srpipe sees in an image, or finds out about a model by running it.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="an image, an .onnx file, or a bundled model")
    add("--json", action="store_true", help="one JSON object on stdout")
    add("--allow-untrusted", action="store_true", help="as for 'srpipe enhance'")
    seams = parser.add_argument_group("seams of a model")
    add = seams.add_argument
    add(
        "--seams",
        nargs="?",
        const="",
        metavar="IMAGE",
        help="measure what tiles change, on the middle of IMAGE or on a picture of srpipe's own",
    )
    add("-t", "--tile-size", type=int, metavar="N", help="side of a tile; default as for enhance")
    add("--overlap", type=int, metavar="N", help="pixels tiles share; default as for enhance")
    add("--write", action="store_true", help="store the seam class in FILE's metadata")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    facts: dict[str, Any]
    _check_seam_options(options)
    if _is_model(options.file):
        from srpipe.cli.model_report import examine_model

        examined = examine_model(
            find_model(options.file),
            seams=options.seams,
            tile_size=options.tile_size,
            overlap=options.overlap,
            write=options.write,
            allow_untrusted=options.allow_untrusted,
        )
        plain, facts = examined.as_dict(), examined.facts()
    elif options.seams is not None:
        raise SettingsError(f"--seams is for models, and {options.file} is no .onnx file.")
    else:
        info = read_image_info(options.file, allow_untrusted=options.allow_untrusted)
        plain, facts = {"kind": "image"} | info.as_dict(), image_facts(info)
    print(json.dumps(plain, default=str) if options.json else _layout(facts))
    return 0


def image_facts(info: ImageInfo) -> dict[str, Any]:
    """An image's facts as people read them."""
    return {
        "image": info.path,
        "size": f"{info.size} pixels ({info.size.megapixels:.1f} MP)",
        "depth": f"{8 * info.sample_bytes} bits a sample ({info.dtype})",
        "bands": f"{info.bands} ({info.kind}, {info.interpretation})",
        "no data": "none is said" if info.nodata is None else f"{info.nodata:.17g}",
        "profile": f"embedded ICC profile, {info.icc_bytes} bytes" if info.icc_bytes else "none",
        "pages": info.pages,
        "reader": info.loader,
    }


def _is_model(file: str) -> bool:
    return Path(file).suffix.lower() == ".onnx" or file in bundled_models()


def _check_seam_options(options: argparse.Namespace) -> None:
    if options.seams is None and (
        options.write or options.tile_size is not None or options.overlap is not None
    ):
        raise SettingsError("--write, --tile-size and --overlap go with --seams: add it.")
    if options.write and options.file in bundled_models():
        raise SettingsError(
            f"--write would change the bundled model {options.file}: name an .onnx file of your own."
        )


def _layout(facts: dict[str, Any]) -> str:
    """One fact a line, further lines of a fact below its first."""
    width = max(len(key) for key in facts)
    lines = []
    for key, value in facts.items():
        first, *others = value if isinstance(value, list) else [value]
        lines += [f"{key:{width}}  {first}", *(f"{'':{width}}  {other}" for other in others)]
    return as_lines(lines)
