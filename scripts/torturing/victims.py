"""Jobs of every kind for the kill campaign."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srpipe.plan.output import companion
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model

Command = tuple[str, ...]

KINDS = (
    "tif", "tif[compression=none]", "zarr", "folder", "tif[compression=lzw,tile,pyramid]", "region",
    "png", "slabs", "jpg", "mask", "dzi[suffix=.png]", "outscale", "webp", "raw", "v", "slabs zarr",
)  # fmt: skip
"""Endings of outputs, and jobs that are more than one picture made into another."""
_SLABS = 2


@dataclass(frozen=True)
class Victim:
    """What some commands make, one after another."""

    kind: str
    """One of :data:`KINDS`."""
    commands: tuple[Command, ...]
    """Arguments of srpipe, without those about progress."""
    output: Path
    """A file, or a folder."""
    job_dir: Path
    is_folder_run: bool = False
    can_be_killed_within: tuple[bool, ...] = (True,)
    """Whether a command has stages in processes of their own."""

    @property
    def text(self) -> str:
        """The commands, for people."""
        return "; ".join("srpipe " + " ".join(command) for command in self.commands)

    def content(self) -> dict[str, bytes]:
        """All files of the output that a repeated job makes again, by name."""
        root = self.output.parent if not self.output.is_dir() else self.output
        beside = companion(str(self.output))
        roots = [self.output, *([Path(beside)] if beside else [])]
        files = [
            file
            for place in roots
            for file in (sorted(place.rglob("*")) if place.is_dir() else [place])
            if file.is_file() and file.name != "srpipe-manifest.jsonl"
        ]
        return {str(file.relative_to(root)): file.read_bytes() for file in files}


def make_victim(folder: Path, seed: int, elsewhere: Path | None, kind: str | None = None) -> Victim:
    """A job of some seconds, by chance but the same for a seed.

    Args:
        folder: for its files.
        seed: chooses everything.
        elsewhere: a folder on another disk, for every third job's own files.
        kind: of :data:`KINDS`; None: by the seed.
    """
    chance = random.Random(seed)
    kind = kind or KINDS[seed % len(KINDS)]
    scale = 1 + seed % 4
    is_eight_bit_rgb = kind in ("jpg", "webp", "folder") or kind.startswith("dzi")
    bands = 3 if is_eight_bit_rgb else chance.choice([1, 3, 3, 4])
    depth = "uint8" if is_eight_bit_rgb else chance.choice(["uint8", "uint8", "uint16"])
    height, width = chance.randrange(900, 1400), chance.randrange(900, 1400)
    if scale > 2:
        height, width = height // 2, width // 2
    pixels = np.tile(photograph_pixels(788, 1400, bands, depth), (2, 1, 1))[:height, :width]
    model = "lite-x2"
    if scale != 2 or chance.random() < 0.5:
        features = chance.choice([16, 48])
        model = str(conv_model(folder / f"x{scale}.onnx", scale=scale, layers=3, features=features))
    options: list[object] = [
        "--model", model, "--engine", "local",
        "--tile-size", chance.choice([64, 96, 128]), "--overlap", chance.choice([0, 8, 20]),
        "--blend", chance.choice(["feather", "mean", "crop"]),
        "--workers", chance.choice([1, 2, 3]), "--batch-size", chance.choice([1, 1, 3, 4]),
        "--checkpoint-every", chance.choice([0, 0.1, 0.5, 5]),
    ]  # fmt: skip
    source = folder / f"in.{chance.choice(['tif', 'png', 'tif'])}"
    if kind == "folder":
        return _folder_victim(folder, np.ascontiguousarray(pixels), options)
    write_pixels(source, np.ascontiguousarray(pixels))
    ending = {"region": "tif", "mask": "tif", "outscale": "png", "slabs": "tif"}.get(kind, kind)
    ending = ending.removeprefix("slabs ")
    output = folder / f"out.{ending}"
    job_dir = folder / "job"
    # Slabs and their whole share a folder beside the output.
    if elsewhere is not None and seed % 3 == 0 and not kind.startswith("slabs"):
        job_dir = elsewhere / "job"
    options += ["--job-dir", job_dir]
    if kind == "region":
        options += ["--region", f"{width // 8},{height // 8},{width // 2},{height // 2}"]
    if kind == "outscale":
        options += ["--outscale", 1.5]
    if kind == "mask":
        options += ["--mask", write_pixels(folder / "mask.png", _half_white(height, width))]
    enhance: list[object] = ["enhance", source, output, *options]
    commands = [enhance]
    if kind.startswith("slabs"):
        slabs = [[*enhance, "--slab", f"{k}/{_SLABS}"] for k in range(1, _SLABS + 1)]
        commands = [*slabs, ["assemble", output, "--job-dir", job_dir]]
    return Victim(
        kind=kind,
        commands=_as_text(commands),
        output=folder / f"out.{ending.partition('[')[0]}",
        job_dir=job_dir,
        can_be_killed_within=tuple(command[0] == "enhance" for command in commands),
    )


def _folder_victim(folder: Path, pixels: np.ndarray, options: Sequence[object]) -> Victim:
    source = folder / "in"
    source.mkdir()
    half = pixels.shape[0] // 2
    for name, part in (("a.tif", pixels[:half]), ("b.png", pixels[half:])):
        write_pixels(source / name, np.ascontiguousarray(part))
    output = folder / "out"
    command = ["enhance", source, output, "--at-once", 1, *options]
    return Victim(
        "folder", _as_text([command]), output, output / "a.tif.srpipe", is_folder_run=True
    )


def _half_white(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width, 1), np.uint8)
    mask[:, width // 2 :] = 255
    return mask


def _as_text(commands: Sequence[Sequence[object]]) -> tuple[Command, ...]:
    return tuple(tuple(map(str, command)) for command in commands)
