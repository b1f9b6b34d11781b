"""Small valid images and models, one of every kind, and ways to damage them."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

from srpipe.io.vips import pyvips
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model, elementwise_model

_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40"><circle r="20"/></svg>'
# Ending, bands, depth, libvips' options.
_IMAGES: tuple[tuple[str, int, str, dict[str, Any]], ...] = (
    ("tif", 3, "uint8", {}),
    ("tif", 3, "uint8", {"compression": "deflate", "predictor": "horizontal"}),
    ("tif", 4, "uint16", {"compression": "lzw", "tile": True, "tile_width": 16, "tile_height": 16}),
    ("tif", 3, "uint8", {"compression": "jpeg"}),
    ("tif", 1, "uint8", {"compression": "packbits"}),
    ("tif", 1, "uint8", {"compression": "ccittfax4", "bitdepth": 1}),
    ("tif", 3, "uint8", {"bigtiff": True, "tile": True, "pyramid": True}),
    ("tif", 3, "float32", {}),
    ("png", 3, "uint8", {}),
    ("png", 4, "uint16", {"interlace": True}),
    ("png", 3, "uint8", {"palette": True}),
    ("png", 1, "uint8", {"bitdepth": 2}),
    ("jpg", 3, "uint8", {}),
    ("jpg", 3, "uint8", {"interlace": True}),
    ("jpg", 1, "uint8", {"Q": 30}),
    ("webp", 3, "uint8", {}),
    ("webp", 4, "uint8", {"lossless": True}),
    ("gif", 3, "uint8", {}),
    ("heic", 3, "uint8", {}),
    ("avif", 3, "uint8", {}),
    ("v", 3, "uint8", {}),
)


def make_images(folder: Path) -> list[Path]:
    """One image of every kind that libvips writes and reads here."""
    paths = []
    for i, (ending, bands, depth, options) in enumerate(_IMAGES):
        path = folder / f"{i:02}.{ending}"
        pixels = photograph_pixels(40, 60, bands, "uint8" if depth == "float32" else depth)
        try:
            write_pixels(path, pixels.astype(depth), **options)
        except pyvips.Error:
            path.unlink(missing_ok=True)  # not in this build
        else:
            paths.append(path)
    for name, text in (("a.svg", _SVG), ("a.mat", "3 2\n1 2 3\n4 5 6\n"), ("a.csv", "1,2\n3,4\n")):
        (folder / name).write_text(text)
        paths.append(folder / name)
    pages = pyvips.Image.arrayjoin(
        [pyvips.Image.black(30, 20), pyvips.Image.black(30, 20)], across=1
    )
    pages.write_to_file(str(folder / "pages.tif"), page_height=20)
    return [*paths, folder / "pages.tif"]


def make_models(folder: Path) -> list[Path]:
    """Models of several kinds."""
    return [
        conv_model(folder / "plain.onnx", features=4),
        conv_model(folder / "half.onnx", features=4, dtype="float16"),
        conv_model(folder / "nhwc.onnx", features=4, layout="NHWC", scale=1),
        conv_model(folder / "grey.onnx", features=4, channels=1, scale=3),
        conv_model(folder / "fixed.onnx", features=4, batch=2, height=32, width=32),
        conv_model(folder / "multiple.onnx", features=4, multiple=4, scale=1),
        elementwise_model(folder / "log.onnx", "Log"),
    ]


def damaged(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """``data`` with some damage, or none; ``other`` is a file of the same kind."""
    content = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 5, 20])):
        if not content:
            break
        at = chance.randrange(len(content))
        # Headers decide most, and nothing of a file whose header is broken is looked at.
        if chance.random() < 0.3:
            at = chance.randrange(min(len(content), 200))
        length = min(chance.choice([1, 2, 4, 16, 100]), len(content) - at)
        match chance.choices(range(7), [5, 2, 1, 1, 1, 1, 1])[0]:
            case 0:
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                content[at : at + length] = chance.randbytes(length)
            case 2:
                value = chance.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
                number = struct.pack(chance.choice("<>") + "I", value)
                content[at : at + 4] = number
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = content[at : at + length] * chance.choice([1, 3])
            case 5:
                cut = chance.randrange(len(other) + 1)
                content[at:] = other[cut:]
            case 6:
                del content[chance.randrange(len(content)) :]
    return bytes(content)


def kind_of(path: Path) -> str:
    """What a seed is counted as."""
    return path.suffix[1:]
