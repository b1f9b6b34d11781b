"""What happens to a picture before a network sees it, beyond plain shrinking: blur, noise, JPEG.

A recipe is a set of ranges; every patch draws its own values. Order and kinds follow the classical
model of Real-ESRGAN (Wang et al., ICCVW 2021): blur, shrink, noise, compress.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .resample import ByteArray, to_bytes

MARGIN_PX = 16
"""Input pixels around a patch that are degraded too and cut off: JPEG blocks then lie anywhere."""

_SHRINKERS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Recipe:
    """Ranges to draw from; shares are probabilities."""

    clean_share: float
    """Patches that are only shrunk."""
    blur_px: tuple[float, float] = (0.0, 0.0)
    """Standard deviations of the blur along two axes, truth pixels."""
    noise_share: float = 1.0
    noise_levels: tuple[float, float] = (0.0, 0.0)
    """Standard deviation of the noise, levels of 255."""
    noise_power: float = 1.0
    """Above 1: little noise is drawn more often than much."""
    jpeg_share: float = 0.5
    jpeg_quality: tuple[int, int] = (30, 95)


RECIPES = {
    # Noise below five levels is left alone: it cannot be told from the grain of clean pictures.
    "noise": Recipe(clean_share=0.3, noise_share=0.85, noise_levels=(5.0, 52.0), jpeg_share=0.35),
    "photo": Recipe(
        clean_share=0.05,
        blur_px=(0.3, 2.6),
        noise_share=0.85,
        noise_levels=(0.0, 28.0),
        noise_power=1.6,
        jpeg_share=0.85,
        jpeg_quality=(30, 95),
    ),
}


def apply_recipe(
    recipe: Recipe, truth: ByteArray, scale: int, random: np.random.Generator
) -> ByteArray:
    """Degrade `truth` (height, width, 3), sides multiples of `scale`, and shrink it by `scale`."""
    clean = random.random() < recipe.clean_share
    image = truth.astype(np.float32)
    if not clean and recipe.blur_px[1] > 0:
        image = _blurred(image, recipe.blur_px, random)
    if scale > 1:
        size = (truth.shape[1] // scale, truth.shape[0] // scale)
        shrinker = cv2.INTER_AREA if clean else _SHRINKERS[random.integers(len(_SHRINKERS))]
        image = cv2.resize(image, size, interpolation=shrinker)
    if clean:
        return to_bytes(image)
    if random.random() < recipe.noise_share:
        image = image + _noise(image.shape, recipe, random)
    degraded = to_bytes(image)
    if random.random() < recipe.jpeg_share:
        degraded = jpeg(degraded, int(random.integers(*recipe.jpeg_quality, endpoint=True)))
    return degraded


def add_noise(picture: ByteArray, levels: float, seed: int = 0) -> ByteArray:
    """`picture` with white Gaussian noise of `levels` of 255, rounded to eight bits."""
    noise = np.random.default_rng(seed).normal(0, levels, picture.shape)
    return to_bytes(picture + noise)


def jpeg(picture: ByteArray, quality: int) -> ByteArray:
    """`picture` (height, width, 3) RGB, compressed as JPEG with chroma subsampled, and read back."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def _blurred(
    image: np.ndarray, blur_px: tuple[float, float], random: np.random.Generator
) -> np.ndarray:
    along, across = random.uniform(*blur_px, 2)
    if random.random() < 0.5:
        across = along
    angle = random.uniform(0, np.pi)
    reach = int(np.ceil(3 * max(along, across)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _noise(shape: tuple[int, ...], recipe: Recipe, random: np.random.Generator) -> np.ndarray:
    low, high = recipe.noise_levels
    levels = low + (high - low) * random.random() ** recipe.noise_power
    if random.random() < 0.2:
        shape = (*shape[:2], 1)  # the same in all colours, as film grain
    return random.standard_normal(shape, np.float32) * np.float32(levels)
