"""From pixels to the model's channels, and back to the image's bands.

A model of as many channels as the image has bands sees them as they are, whatever they mean. Else:
a model of three channels sees RGB; a grey image is shown three times and comes back as the mean.
A model of one channel sees the luma of an RGB image; its chroma, like any alpha, is resized.
Colours under full transparency are those around it (:mod:`srpipe.plan.bleed`).
Luma: Rec. ITU-R BT.601-7, 2.5.1. Chroma kept and luma replaced is the same as adding the change of
luma to R, G and B, because YCbCr is linear in RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.plan.bleed import bleed
from srpipe.plan.model_info import Layout
from srpipe.plan.pixels import Pixels, Planes
from srpipe.settings import ValueRange

__all__ = [
    "BICUBIC_RADIUS_PX",
    "ColourPath",
    "Pixels",
    "Planes",
    "luma",
    "pad_edges",
    "resize_plain",
]

BICUBIC_RADIUS_PX = 2
"""How far an input pixel reaches in what :func:`resize_plain` makes."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourPath:
    """How an image's bands travel through a model's channels."""

    bands: int
    """Of the image."""
    colours: int
    """How many of them, from the first, the model sees: ``channels``, or 1 shown three times, or 3
    seen as luma. The others are resized."""
    channels: int
    """Of the model."""
    bgr: bool
    """The model wants its channels in reverse."""
    value_range: ValueRange
    """What the pixel values 0 and ``white`` are in the model's numbers."""
    white: int
    highest: int
    """The largest pixel value: the image's type holds it, and results are clipped there, not at
    ``white``."""
    layout: Layout
    scale: int
    alpha: int | None = None
    """Which band is alpha, where the model does not see it: colours under it bleed."""

    @property
    def needs_source(self) -> bool:
        """Whether finishing a tile needs its input pixels (alpha or chroma to resize)."""
        return self.bands > self.colours or self.channels < self.colours

    def pack(self, pixels: Pixels, out: npt.NDArray[np.floating]) -> None:
        """Write one padded tile as the model wants it.

        Args:
            pixels: (tile height, tile width, bands).
            out: (C, H, W) or (H, W, C) as ``layout`` says, float32 or float16: one entry of a batch.
        """
        pixels = self._bled(pixels)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        colours: npt.NDArray[Any] = pixels[..., : self.colours].transpose(2, 0, 1)
        low, high = self.value_range
        step = np.float32(self.white / (high - low))
        if self.channels < self.colours:
            colours = luma(colours.astype(np.float32))
        elif self.bgr:
            colours = colours[::-1]
        if low:
            planes[...] = np.divide(colours, step, dtype=np.float32) + np.float32(low)
        else:
            np.divide(colours, step, out=planes, casting="unsafe", dtype=np.float32)

    def _bled(self, pixels: Pixels) -> Pixels:
        return pixels if self.alpha is None else bleed(pixels, self.colours, self.alpha)

    def pack_integers(self, pixels: Pixels, out: Pixels) -> None:
        """Write one padded tile as :meth:`pack` does, but leave its numbers as they are.

        Args:
            pixels: (tile height, tile width, bands).
            out: (C, H, W) or (H, W, C) as ``layout`` says, of the type of ``pixels``; the model has as
                many channels as the image has colours, or more.
        """
        pixels = self._bled(pixels)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        colours = pixels[..., : self.colours].transpose(2, 0, 1)
        planes[...] = colours[::-1] if self.bgr else colours

    def table(self, dtype: npt.DTypeLike, model_dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
        """What :meth:`pack` makes of every integer.

        Args:
            dtype: of the image.
            model_dtype: of the model.

        Returns:
            (256,) or (65536,) of ``model_dtype``.
        """
        integers = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
        pixels = np.repeat(integers[np.newaxis, :, np.newaxis], self.bands, axis=2)
        shape = (1, len(integers))
        out = np.empty(
            (self.channels, *shape) if self.layout == "NCHW" else (*shape, self.channels),
            model_dtype,
        )
        self.pack(pixels, out)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        return np.ascontiguousarray(planes[0, 0])

    def unpack(self, result: npt.NDArray[np.floating], pixels: Pixels | None) -> Planes:
        """Turn one result into planes of the image's bands.

        Args:
            result: one entry of a batch as the model gave it, output pixels.
            pixels: the tile's input pixels (tile height, tile width, bands); None unless
                ``needs_source``.

        Returns:
            (bands, height, width) float32 in [0, 1], 1 being ``highest``, output pixels; may share
            memory with ``result``.
        """
        planes = result if self.layout == "NCHW" else result.transpose(2, 0, 1)
        planes = np.ascontiguousarray(planes, np.float32)
        if self.bgr:
            planes = planes[::-1]
        low, high = self.value_range
        if low:
            planes = planes - np.float32(low)
        step = np.float32((high - low) * self.highest / self.white)
        if step != 1:
            planes = planes / step
        if self.channels > self.colours:
            planes = planes.mean(axis=0, keepdims=True, dtype=np.float32)
        if not self.needs_source:
            return np.ascontiguousarray(planes)  # BGR has turned it
        assert pixels is not None
        if self.channels >= self.colours:
            return np.concatenate([planes, resize_plain(pixels[..., self.colours :], self.scale)])
        plain = resize_plain(self._bled(pixels), self.scale)
        planes = plain[:3] + (planes - luma(plain[:3]))
        return np.concatenate([planes, plain[3:]])


def luma(planes: Planes) -> Planes:
    """BT.601 luma of (3, height, width) RGB planes, as (1, height, width)."""
    red, green, blue = _LUMA
    weighted: Planes = red * planes[0] + green * planes[1] + blue * planes[2]
    return weighted[np.newaxis]


def resize_plain(pixels: Pixels, scale: int) -> Planes:
    """Bicubic enlargement of (height, width, bands) pixels to (bands, …) planes in [0, 1]."""
    unit = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if scale > 1:
        import cv2  # only images with alpha and one-channel models need it

        height, width = pixels.shape[:2]
        size = (width * scale, height * scale)
        enlarged = cv2.resize(unit, size, interpolation=cv2.INTER_CUBIC)
        unit = enlarged.reshape(height * scale, width * scale, -1).astype(np.float32, copy=False)
    return np.ascontiguousarray(unit.transpose(2, 0, 1))


def pad_edges(pixels: Pixels, height: int, width: int) -> None:
    """Fill (tile height, tile width, bands) pixels beyond ``height`` and ``width`` by repeating the
    last row and column of what they cover, in place.
    """
    pixels[height:, :width] = pixels[height - 1 : height, :width]
    pixels[:, width:] = pixels[:, width - 1 : width]
