"""PSNR of a model against what one would use instead, as papers report it.

Upscaling: against bicubic, luma of BT.601 as MATLAB's ``rgb2ycbcr`` has it, results rounded to
eight bits first, `scale` pixels left out along the border, input made by `resample.imresize` and
rounded to eight bits. Restoration (scale 1): against OpenCV's fastNlMeansDenoisingColored at its
best strength, over all three colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from .data import Pair, degrade, read_picture
from .degrade import add_noise, jpeg
from .resample import ByteArray, imresize, to_bytes

_NLM_STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2)
# Models that fold pixels take multiples of the square.
_MULTIPLE_PX = 8
_LUMA = np.array([65.481, 128.553, 24.966], dtype=np.float64) / 255


@dataclass(frozen=True)
class Score:
    """PSNR of the plain way and of the model on one picture, or their means."""

    name: str
    plain_db: float
    model_db: float

    @property
    def gain_db(self) -> float:
        """What the model adds to the plain way."""
        return self.model_db - self.plain_db


@dataclass(frozen=True)
class Damage:
    """What is done to the input of a restoration model before it is scored."""

    noise_levels: float = 0.0
    jpeg_quality: int | None = None

    def apply(self, picture: ByteArray) -> ByteArray:
        """`picture` with the noise, then compressed."""
        if self.noise_levels:
            picture = add_noise(picture, self.noise_levels)
        return picture if self.jpeg_quality is None else jpeg(picture, self.jpeg_quality)


def luma(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """BT.601 luma, 16..235, of an sRGB image (height, width, 3) in 0..255."""
    return 16 + np.asarray(image, dtype=np.float64) @ _LUMA


def psnr_db(result: ByteArray, truth: ByteArray, border_px: int) -> float:
    """Luma PSNR of two images (height, width, 3) of 0..255, `border_px` left out on each side."""
    inner = slice(border_px, -border_px) if border_px else slice(None)
    difference = (luma(result) - luma(truth))[inner, inner]
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-10)))


def rgb_psnr_db(result: ByteArray, truth: ByteArray) -> float:
    """PSNR of two images (height, width, 3) of 0..255 over all colours."""
    difference = result.astype(np.float64) - truth
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-10)))


class Judge:
    """Scores models on fixed pictures; bicubic upscaling is computed once."""

    def __init__(self, names: Sequence[str], pairs: Sequence[Pair], scale: int) -> None:
        self._names = list(names)
        self._pairs = list(pairs)
        self._scale = scale
        self._plain_db = [
            psnr_db(to_bytes(imresize(low, scale)), high, scale) for low, high in self._pairs
        ]

    def scores(self, session: onnxruntime.InferenceSession) -> list[Score]:
        """One score for each picture."""
        return [
            Score(name, plain_db, psnr_db(upscale_picture(session, low), high, self._scale))
            for name, plain_db, (low, high) in zip(
                self._names, self._plain_db, self._pairs, strict=True
            )
        ]


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over pictures, each counting the same."""
    return Score(
        "mean",
        float(np.mean([score.plain_db for score in scores])),
        float(np.mean([score.model_db for score in scores])),
    )


def upscale_picture(session: onnxruntime.InferenceSession, picture: ByteArray) -> ByteArray:
    """Run `picture` (height, width, 3) through a model whole, and round the result."""
    height, width = picture.shape[:2]
    beyond = [(0, -side % _MULTIPLE_PX) for side in (height, width)]
    padded = np.pad(picture, (*beyond, (0, 0)), mode="edge")
    planes = padded.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    (result,) = session.run(None, {session.get_inputs()[0].name: planes})
    scale = result.shape[2] // padded.shape[0]
    return to_bytes(result[0, :, : height * scale, : width * scale].transpose(1, 2, 0) * 255)


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or a serialised model, on the CPU."""
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def model_scale(session: onnxruntime.InferenceSession) -> int:
    """The scale of a model, found by running eight by eight pixels through it."""
    probe = np.zeros((8, 8, 3), dtype=np.uint8)
    return int(upscale_picture(session, probe).shape[0] // probe.shape[0])


def evaluate(
    model: Path, pictures: Sequence[Path], reduce: int, damage: Damage, crop_px: int | None = None
) -> list[Score]:
    """Score a model file on `pictures`, each first shrunk by `reduce`, one at a time.

    Args:
        model: an .onnx file.
        pictures: the truth.
        reduce: whole number that every picture is shrunk by first.
        damage: what is done to the input of a model of scale 1.
        crop_px: take a square of so many pixels from the middle.
    """
    session = open_session(model)
    scale = model_scale(session)
    scores = []
    for path in pictures:
        picture = read_picture(path, reduce)
        if crop_px is not None:
            top, left = (max(side - crop_px, 0) // 2 for side in picture.shape[:2])
            picture = picture[top : top + crop_px, left : left + crop_px]
        if scale > 1:
            scores += Judge([path.name], [degrade(picture, scale)], scale).scores(session)
        else:
            scores.append(_restoration_score(session, path.name, picture, damage))
    return scores


def _restoration_score(
    session: onnxruntime.InferenceSession, name: str, picture: ByteArray, damage: Damage
) -> Score:
    height, width = (side // 8 * 8 for side in picture.shape[:2])
    truth = np.ascontiguousarray(picture[:height, :width])
    damaged = damage.apply(truth)
    # Its own strength for every picture, found by looking at the truth: more than a user could do.
    plain = [rgb_psnr_db(damaged, truth)]
    for strength in _NLM_STRENGTHS:
        h = strength * max(damage.noise_levels, 2.0)
        plain.append(rgb_psnr_db(cv2.fastNlMeansDenoisingColored(damaged, None, h, h), truth))
    return Score(name, max(plain), rgb_psnr_db(upscale_picture(session, damaged), truth))


def table(scores: Sequence[Score], plain: str = "bicubic") -> str:
    """The scores and their mean as aligned text; `plain` names the plain way."""
    rows = [*scores, mean_score(scores)]
    width = max(len(row.name) for row in rows)
    lines = [f"{'picture':<{width}}  {plain + '/dB':>10}  model/dB  gain/dB"]
    lines += [
        f"{row.name:<{width}}  {row.plain_db:10.2f}  {row.model_db:8.2f}  {row.gain_db:7.2f}"
        for row in rows
    ]
    return "\n".join(lines)
