"""PSNR of a model against bicubic upscaling, as papers report it.

Luma of BT.601 as MATLAB's ``rgb2ycbcr`` has it, results rounded to eight bits first, `scale`
pixels left out along the border, input made by `resample.imresize` and rounded to eight bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from .data import Pair, degrade, read_picture
from .resample import ByteArray, imresize, to_bytes

_LUMA = np.array([65.481, 128.553, 24.966], dtype=np.float64) / 255


@dataclass(frozen=True)
class Score:
    """Luma PSNR of bicubic upscaling and of the model on one picture, or their means."""

    name: str
    bicubic_db: float
    model_db: float

    @property
    def gain_db(self) -> float:
        """What the model adds to bicubic upscaling."""
        return self.model_db - self.bicubic_db


def luma(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """BT.601 luma, 16..235, of an sRGB image (height, width, 3) in 0..255."""
    return 16 + np.asarray(image, dtype=np.float64) @ _LUMA


def psnr_db(result: ByteArray, truth: ByteArray, border_px: int) -> float:
    """Luma PSNR of two images (height, width, 3) of 0..255, `border_px` left out on each side."""
    inner = slice(border_px, -border_px) if border_px else slice(None)
    difference = (luma(result) - luma(truth))[inner, inner]
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-10)))


class Judge:
    """Scores models on fixed pictures; bicubic upscaling is computed once."""

    def __init__(self, names: Sequence[str], pairs: Sequence[Pair], scale: int) -> None:
        self._names = list(names)
        self._pairs = list(pairs)
        self._scale = scale
        self._bicubic_db = [
            psnr_db(to_bytes(imresize(low, scale)), high, scale) for low, high in self._pairs
        ]

    def scores(self, session: onnxruntime.InferenceSession) -> list[Score]:
        """One score for each picture."""
        return [
            Score(name, bicubic_db, psnr_db(upscale_picture(session, low), high, self._scale))
            for name, bicubic_db, (low, high) in zip(
                self._names, self._bicubic_db, self._pairs, strict=True
            )
        ]


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over pictures, each counting the same."""
    return Score(
        "mean",
        float(np.mean([score.bicubic_db for score in scores])),
        float(np.mean([score.model_db for score in scores])),
    )


def upscale_picture(session: onnxruntime.InferenceSession, picture: ByteArray) -> ByteArray:
    """Run `picture` (height, width, 3) through a model whole, and round the result."""
    planes = picture.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    (result,) = session.run(None, {session.get_inputs()[0].name: planes})
    return to_bytes(np.asarray(result)[0].transpose(1, 2, 0) * 255)


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or a serialised model, on the CPU."""
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def model_scale(session: onnxruntime.InferenceSession) -> int:
    """The scale of a model, found by running eight by eight pixels through it."""
    probe = np.zeros((8, 8, 3), dtype=np.uint8)
    return int(upscale_picture(session, probe).shape[0] // probe.shape[0])


def evaluate(model: Path, pictures: Sequence[Path], reduce: int) -> list[Score]:
    """Score a model file on `pictures`, each first shrunk by `reduce`, one at a time."""
    session = open_session(model)
    scale = model_scale(session)
    scores = []
    for path in pictures:
        pair = degrade(read_picture(path, reduce), scale)
        scores += Judge([path.name], [pair], scale).scores(session)
    return scores


def table(scores: Sequence[Score]) -> str:
    """The scores and their mean as aligned text."""
    rows = [*scores, mean_score(scores)]
    width = max(len(row.name) for row in rows)
    lines = [f"{'picture':<{width}}  bicubic/dB  model/dB  gain/dB"]
    lines += [
        f"{row.name:<{width}}  {row.bicubic_db:10.2f}  {row.model_db:8.2f}  {row.gain_db:7.2f}"
        for row in rows
    ]
    return "\n".join(lines)
