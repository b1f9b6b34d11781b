"""What a picture's pixels should be, by decoders and a runtime that srpipe does not use."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

_PILLOW = {".jpg", ".webp", ".gif", ".avif", ".heic"}
_PILLOW_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
# Decoders of one standard may differ so much where it leaves rounding to them.
_LOSSY_STEPS = {".jpg": 3, ".webp": 1, ".avif": 8, ".heic": 3}
_MODEL_STEPS = 1.01
# What a model sees beyond the picture's border is srpipe's choice.
_BORDER_PX = 12
_MAX_PX = 4_000_000
_BLOCK_PX = 8

Pixels = npt.NDArray[np.generic]


def decode(path: Path) -> Pixels | None:
    """(height, width, bands) of an image, by tifffile, OpenCV or Pillow.

    Returns:
        None where they cannot read it, or what is stored has no one meaning as pixels.
    """
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if suffix == ".tif":
                return _decode_tiff(path)
            if suffix == ".png":
                return _decode_png(path)
            return _decode_by_pillow(path) if suffix in _PILLOW else None
    except Exception:  # decoders raise whatever they like over damaged files
        return None


def _decode_tiff(path: Path) -> Pixels | None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        plain = (
            page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
            and page.dtype in (np.uint8, np.uint16)
            and page.bitspersample == page.dtype.itemsize * 8
            and all(sample == tifffile.EXTRASAMPLE.UNASSALPHA for sample in page.extrasamples)
            and page.axes in ("YX", "YXS", "SYX")
            and page.imagewidth * page.imagelength < _MAX_PX
            and 34675 not in page.tags  # a profile may ask for other colours
        )
        if not plain:
            return None
        pixels = page.asarray()
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    return np.asarray(pixels.reshape(page.imagelength, page.imagewidth, -1))


def _decode_png(path: Path) -> Pixels | None:
    import cv2
    from PIL import Image

    with Image.open(path) as image:
        if image.width * image.height > _MAX_PX:
            return None
        image.load()  # OpenCV does not say what is damaged
        if {"gamma", "icc_profile", "chromaticity", "srgb"} & set(image.info):
            return None
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.asarray(
        pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.shape[2] > 2 else pixels
    )


def _decode_by_pillow(path: Path) -> Pixels | None:
    from PIL import Image

    with Image.open(path) as image:
        if image.width * image.height > _MAX_PX or "icc_profile" in image.info:
            return None
        image.load()
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode not in _PILLOW_BANDS:
            return None
        return np.asarray(image).reshape(image.height, image.width, -1)


def run_whole(model: Path, pixels: Pixels) -> npt.NDArray[np.float32] | None:
    """What bare ONNX Runtime makes of a whole RGB picture with values from 0 to 1, on the same scale.

    Returns:
        None where the model is not one from RGB planes to RGB planes without further ado.
    """
    import onnx
    import onnxruntime

    try:
        if onnx.load(str(model)).metadata_props:
            return None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        if given.type != "tensor(float)" or given.shape[1:2] != [3]:
            return None
        planes = pixels.astype(np.float32).transpose(2, 0, 1)[np.newaxis]
        result = session.run(None, {given.name: planes / np.float32(np.iinfo(pixels.dtype).max)})[0]
    except Exception:  # of ONNX's and the runtime's own making
        return None
    if result.ndim != 4 or result.shape[1] != 3 or not np.isfinite(result).all():
        return None
    # Sums of vast terms come out as they are added up.
    if np.abs(result).max() > 1e3:
        return None
    return np.asarray(result[0].transpose(1, 2, 0))


def judge_image(image: Path, original: Path, output: Path) -> str:
    """``right``, ``unjudged``, or what is wrong with what a model that changes nothing made.

    Args:
        image: the input, perhaps damaged.
        original: what it was before.
        output: the TIFF that was made of it.
    """
    expected, got = decode(image), _decode_tiff(output)
    if got is None:
        return "unjudged"
    if expected is not None:
        return _compared(got, expected, _LOSSY_STEPS.get(image.suffix.lower(), 0.0), 0)
    # What others refuse srpipe may read, but not fill up.
    before = decode(original)
    if before is not None and not _filled_px(before) and _filled_px(got):
        return f"{_filled_px(got)} pixels filled where the input cannot be read"
    return "unjudged"


def judge_result(image: Path, model: Path, output: Path) -> str:
    """``right``, ``unjudged``, or what is wrong with what a model made of a whole image."""
    given, got = decode(image), _decode_tiff(output)
    expected = None if given is None else run_whole(model, given)
    if given is None or got is None or expected is None:
        return "unjudged"
    border_px = _BORDER_PX * expected.shape[0] // given.shape[0]
    expected = expected.clip(0, 1) * np.float32(np.iinfo(given.dtype).max)
    return _compared(got, expected, _MODEL_STEPS, border_px)


def _filled_px(pixels: Pixels) -> int:
    """Pixels of blocks of one color, which decoders leave where they give up, and photographs lack."""
    height, width, bands = pixels.shape
    rows, columns = height // _BLOCK_PX, width // _BLOCK_PX
    whole = pixels[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    blocks = whole.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX, bands)
    return int((np.ptp(blocks, axis=(1, 3)) == 0).all(-1).sum()) * _BLOCK_PX**2


def _compared(got: Pixels, expected: Pixels, steps: float, border_px: int) -> str:
    if got.shape != expected.shape:
        return f"{got.shape} instead of {expected.shape}"
    wrong = np.abs(got.astype(np.float64) - expected.astype(np.float64)) > steps
    if border_px:
        wrong[:border_px] = wrong[-border_px:] = False
        wrong[:, :border_px] = wrong[:, -border_px:] = False
    if got.shape[2] in (2, 4):  # colors that nobody sees are free
        wrong &= (expected[..., -1:] > 0) | (np.arange(got.shape[2]) == got.shape[2] - 1)
    if not wrong.any():
        return "right"
    y, x, band = np.argwhere(wrong)[0]
    return (
        f"{np.count_nonzero(wrong.any(2))} pixels wrong, the first at {x},{y}: "
        f"{got[y, x, band]} instead of {expected[y, x, band]:g} in band {band}"
    )
