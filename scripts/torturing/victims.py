"""Jobs of every kind for the kill campaign."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model

_FORMATS = ("tif", "tif[compression=none]", "tif[compression=lzw,tile,pyramid]", "png", "jpg", "v")


@dataclass(frozen=True)
class Victim:
    """One request."""

    source: Path
    output: Path
    job_dir: Path
    arguments: tuple[str, ...]
    """Without the progress options."""

    @property
    def text(self) -> str:
        """The command, for people."""
        return "srpipe " + " ".join(self.arguments)


def make_victim(folder: Path, seed: int, elsewhere: Path | None) -> Victim:
    """A job of some seconds, by chance but the same for a seed.

    Args:
        folder: for its files.
        seed: chooses everything.
        elsewhere: a folder on another disk, for every third job's own files.
    """
    chance = random.Random(seed)
    scale = 1 + seed % 4
    ending = _FORMATS[seed % len(_FORMATS)]
    eight_bit_rgb = ending == "jpg"
    bands = 3 if eight_bit_rgb else chance.choice([1, 3, 3, 4])
    depth = "uint8" if eight_bit_rgb else chance.choice(["uint8", "uint8", "uint16"])
    height, width = chance.randrange(900, 1400), chance.randrange(900, 1400)
    if scale > 2:
        height, width = height // 2, width // 2
    pixels = photograph_pixels(788, 1400, bands, depth)
    pixels = np.tile(pixels, (2, 1, 1))[:height, :width]
    source = folder / f"in.{chance.choice(['tif', 'png', 'tif'])}"
    write_pixels(source, np.ascontiguousarray(pixels))
    model = "lite-x2"
    if scale != 2 or chance.random() < 0.5:
        features = chance.choice([16, 48])
        path = folder / f"x{scale}.onnx"
        model = str(conv_model(path, scale=scale, layers=3, features=features))
    job_dir = folder / "job"
    if elsewhere is not None and seed % 3 == 0:
        job_dir = elsewhere / "job"
    output = folder / f"out.{ending}"
    arguments = [
        "enhance", source, output, "--model", model, "--job-dir", job_dir,
        "--tile-size", chance.choice([64, 96, 128]), "--overlap", chance.choice([0, 8, 20]),
        "--blend", chance.choice(["feather", "mean", "crop"]),
        "--workers", chance.choice([1, 2, 3]), "--batch-size", chance.choice([1, 1, 3, 4]),
        "--checkpoint-every", chance.choice([0, 0.1, 0.5, 5]),
    ]  # fmt: skip
    path = folder / f"out.{ending.partition('[')[0]}"
    return Victim(source, path, job_dir, tuple(map(str, arguments)))
