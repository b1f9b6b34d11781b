"""Pictures, the degradation that makes a network's input from them, and patches to train on."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyvips

from .degrade import MARGIN_PX, RECIPES, Recipe, apply_recipe
from .resample import ByteArray, imresize, to_bytes

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
_CREDITS_FILE = Path(__file__).with_name("credits.csv")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credit:
    """Where a picture comes from and on what terms."""

    file: str
    title: str
    package: str
    author: str
    licence: str


class Pair(NamedTuple):
    """A picture, `high`, and its version degraded by `scale`, `low`; uint8 (height, width, 3)."""

    low: ByteArray
    high: ByteArray


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn: `size_px` counts input pixels, the target is `scale` times larger.

    Of `candidates` random places the one with the strongest gradients is taken, so that skies and
    blurred backgrounds do not fill the batches.
    """

    scale: int = 2
    size_px: int = 48
    batch: int = 16
    candidates: int = 3
    recipe: str = "none"
    """none: the input is the shrunk picture; else the name of a recipe of `degrade`."""


def find_pictures(sources: Sequence[Path]) -> list[Path]:
    """The files among `sources` and the pictures in its folders, at any depth; sorted.

    Links in folders are left out: wallpaper packages link one picture under many sizes.
    """
    found: set[Path] = set()
    for source in sources:
        if source.is_dir():
            found.update(path for path in source.rglob("*") if _is_own_picture(path))
        else:
            found.add(source)
    return sorted(found)


def _is_own_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file() and not path.is_symlink()


def matches(path: Path, globs: Sequence[str]) -> bool:
    """Whether the name or the whole path of a picture matches one of `globs`."""
    return any(fnmatch(path.name, glob) or fnmatch(path.as_posix(), glob) for glob in globs)


def read_picture(path: Path, reduce: int = 1) -> ByteArray:
    """Read a picture as sRGB, uint8 (height, width, 3), shrunk by the whole number `reduce`.

    Shrinking removes the traces of JPEG and of the camera's demosaicing, so that what remains can
    serve as ground truth. Transparency is laid over black.
    """
    image = pyvips.Image.new_from_file(str(path)).colourspace("srgb")
    if image.hasalpha():
        image = image.flatten()
    pixels = np.asarray(image.cast("uchar").numpy(), dtype=np.uint8)
    if reduce == 1:
        return pixels
    height, width = (side // reduce * reduce for side in pixels.shape[:2])
    return to_bytes(imresize(pixels[:height, :width], 1 / reduce))


def degrade(picture: ByteArray, scale: int) -> Pair:
    """Cut `picture` to a multiple of `scale` and shrink it bicubically to eight bits."""
    height, width = (side // scale * scale for side in picture.shape[:2])
    high = picture[:height, :width]
    return Pair(low=to_bytes(imresize(high, 1 / scale)), high=high)


def detail_sums(picture: ByteArray) -> npt.NDArray[np.float64]:
    """Summed-area table of the gradient magnitude of `picture`'s green channel.

    Shape (height + 1, width + 1); the sum over a rectangle is four look-ups.
    """
    green = picture[:, :, 1].astype(np.float64)
    gradient = np.abs(np.diff(green, axis=0, append=green[-1:]))
    gradient += np.abs(np.diff(green, axis=1, append=green[:, -1:]))
    return np.pad(gradient.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


class PatchSource:
    """Draws random batches of aligned patches, flipped and rotated, from pairs of pictures."""

    def __init__(self, pairs: Sequence[Pair], settings: PatchSettings, seed: int) -> None:
        self._settings = settings
        self._random = np.random.default_rng(seed)
        self._recipe = RECIPES.get(settings.recipe)
        self._pairs = [pair for pair in pairs if min(pair.low.shape[:2]) >= settings.size_px]
        if not self._pairs:
            raise ValueError(f"no picture has {settings.size_px} input pixels on both sides")
        self._details = [detail_sums(pair.low) for pair in self._pairs]
        areas_px = np.array([pair.low[..., 0].size for pair in self._pairs], dtype=np.float64)
        self._shares = np.sqrt(areas_px) / np.sqrt(areas_px).sum()

    @property
    def random_state(self) -> dict[str, Any]:
        """The state of the random generator: setting it makes the same patches come again."""
        return dict(self._random.bit_generator.state)

    @random_state.setter
    def random_state(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state

    def draw(self) -> tuple[ByteArray, ByteArray]:
        """One batch: input (batch, 3, size, size) and target (batch, 3, size*scale, size*scale)."""
        patches = [self._patch() for _ in range(self._settings.batch)]
        return np.stack([low for low, _ in patches]), np.stack([high for _, high in patches])

    def _patch(self) -> tuple[ByteArray, ByteArray]:
        size_px, scale = self._settings.size_px, self._settings.scale
        which = int(self._random.choice(len(self._pairs), p=self._shares))
        pair, sums = self._pairs[which], self._details[which]
        limits = np.array(pair.low.shape[:2]) - size_px + 1
        corners = self._random.integers(0, limits, size=(self._settings.candidates, 2))
        tops, lefts = corners[:, 0], corners[:, 1]
        bottoms, rights = tops + size_px, lefts + size_px
        details = sums[bottoms, rights] - sums[tops, rights] - sums[bottoms, lefts]
        best = int(np.argmax(details + sums[tops, lefts]))
        top, left = int(tops[best]), int(lefts[best])
        if self._recipe is None:
            low = pair.low[top : top + size_px, left : left + size_px]
        else:
            low = self._degraded(self._recipe, pair, top, left)
        high = pair.high[
            top * scale : (top + size_px) * scale, left * scale : (left + size_px) * scale
        ]
        turns, mirrored = int(self._random.integers(4)), bool(self._random.integers(2))
        return _turned(low, turns, mirrored), _turned(high, turns, mirrored)

    def _degraded(self, recipe: Recipe, pair: Pair, top: int, left: int) -> ByteArray:
        size_px, scale = self._settings.size_px, self._settings.scale
        before_y, before_x = self._random.integers(0, MARGIN_PX, size=2)
        first_y, first_x = max(top - int(before_y), 0), max(left - int(before_x), 0)
        around = pair.high[
            first_y * scale : (top + size_px + MARGIN_PX) * scale,
            first_x * scale : (left + size_px + MARGIN_PX) * scale,
        ]
        degraded = apply_recipe(recipe, around, scale, self._random)
        y, x = top - first_y, left - first_x
        return degraded[y : y + size_px, x : x + size_px]


def _turned(patch: ByteArray, quarter_turns: int, mirrored: bool) -> ByteArray:
    turned = np.rot90(patch, quarter_turns)
    if mirrored:
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned.transpose(2, 0, 1))


def load_pairs(paths: Sequence[Path], scale: int, reductions: Sequence[int]) -> list[Pair]:
    """Every picture of `paths` shrunk by every number of `reductions`, each with its input."""
    pairs = []
    for path in paths:
        for reduce in reductions:
            pair = degrade(read_picture(path, reduce), scale)
            logger.info("%s, reduced by %d: input %s", path.name, reduce, pair.low.shape[:2])
            pairs.append(pair)
    return pairs


def degrade_pairs(pairs: Sequence[Pair], recipe: Recipe, scale: int, seed: int) -> list[Pair]:
    """`pairs` with inputs that went through a recipe, always the same for one seed."""
    random = np.random.default_rng(seed)
    return [Pair(apply_recipe(recipe, pair.high, scale, random), pair.high) for pair in pairs]


def read_credits(file: Path = _CREDITS_FILE) -> list[Credit]:
    """The credits table: one row for each known picture, `file` being the end of its path."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [Credit(**row) for row in csv.DictReader(stream)]


def credit_line(path: Path, credits_: Sequence[Credit]) -> str:
    """How to name a picture in a model's metadata: title, author, licence, package."""
    for credit in credits_:
        if path.as_posix().endswith(credit.file):
            return f"{credit.title} ({credit.author}, {credit.licence}, {credit.package})"
    return f"{path.name} (no credit recorded)"
