"""From pixels to the model's channels, and back to the image's bands.

A model of as many channels as the image has bands sees them as they are, whatever they mean. Else:
a model of three channels sees RGB; a grey image is shown three times and comes back as the mean.
A model of one channel sees the luma of an RGB image; its chroma, like any alpha, is resized.
Colours under full transparency, and where there is no data, are those around it
(:mod:`srpipe.plan.alpha_fill`).
Luma: Rec. ITU-R BT.601-7, 2.5.1. Chroma kept and luma replaced is the same as adding the change of
luma to R, G and B, because YCbCr is linear in RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.plan.alpha_fill import fill
from srpipe.plan.model_info import Layout
from srpipe.plan.nodata import NoData
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
    """What the pixel values ``black`` and ``white`` are in the model's numbers."""
    white: float
    highest: float
    """The pixel value that is 1 in planes. Of integers the largest, since results are clipped there,
    not at ``white``."""
    layout: Layout
    scale: int
    black: float = 0
    lowest: float = 0
    """The pixel value that is 0 in planes."""
    alpha: int | None = None
    """Which band is alpha, where the model does not see it: colours under it are filled."""
    no_data: NoData | None = None
    """What is empty in the image, and filled before the model sees it."""

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
        pixels = self._filled(pixels)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        colours: npt.NDArray[Any] = pixels[..., : self.colours].transpose(2, 0, 1)
        low, high = self.value_range
        step = np.float32((self.white - self.black) / (high - low))
        if self.channels < self.colours:
            colours = luma(colours.astype(np.float32))
        elif self.bgr:
            colours = colours[::-1]
        if self.black:
            colours = np.subtract(colours, np.float32(self.black), dtype=np.float32)
        if low:
            planes[...] = np.divide(colours, step, dtype=np.float32) + np.float32(low)
        else:
            np.divide(colours, step, out=planes, casting="unsafe", dtype=np.float32)

    def _filled(self, pixels: Pixels) -> Pixels:
        """What models see: without anything that nobody does."""
        pixels = self.with_data(pixels)
        if self.alpha is None:
            return pixels
        return fill(pixels, pixels[..., self.alpha] == 0, self.colours)

    def with_data(self, pixels: Pixels) -> Pixels:
        """The pixels with what is empty in them filled."""
        holes = self.no_data.find(pixels) if self.no_data is not None else None
        if holes is None:
            return pixels
        return fill(pixels, holes, self.bands, whole=self.black)

    def pack_integers(self, pixels: Pixels, out: Pixels) -> None:
        """Write one padded tile as :meth:`pack` does, but leave its numbers as they are.

        Args:
            pixels: (tile height, tile width, bands).
            out: (C, H, W) or (H, W, C) as ``layout`` says, of the type of ``pixels``; the model has as
                many channels as the image has colours, or more.
        """
        pixels = self._filled(pixels)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        colours = pixels[..., : self.colours].transpose(2, 0, 1)
        planes[...] = colours[::-1] if self.bgr else colours

    def table(self, dtype: npt.DTypeLike, model_dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
        """What :meth:`pack` makes of every integer.

        Args:
            dtype: of the image.
            model_dtype: of the model.

        Returns:
            (256,) or (65536,) of ``model_dtype``; a negative integer counts from the end.
        """
        bits = 8 * np.dtype(dtype).itemsize
        integers = np.arange(1 << bits).astype(f"uint{bits}").view(dtype)
        pixels = np.repeat(integers[np.newaxis, :, np.newaxis], self.bands, axis=2)
        shape = (1, len(integers))
        out = np.empty(
            (self.channels, *shape) if self.layout == "NCHW" else (*shape, self.channels),
            model_dtype,
        )
        # All of them are seen: none is transparent, or no data.
        replace(self, alpha=None, no_data=None).pack(pixels, out)
        planes = out if self.layout == "NCHW" else out.transpose(2, 0, 1)
        return np.ascontiguousarray(planes[0, 0])

    def unpack(self, result: npt.NDArray[np.floating], pixels: Pixels | None) -> Planes:
        """Turn one result into planes of the image's bands.

        Args:
            result: one entry of a batch as the model gave it, output pixels.
            pixels: the tile's input pixels (tile height, tile width, bands); None unless
                ``needs_source``.

        Returns:
            (bands, height, width) float32, 0 being ``lowest`` and 1 ``highest``, output pixels; may
            share memory with ``result``.
        """
        planes = result if self.layout == "NCHW" else result.transpose(2, 0, 1)
        planes = np.ascontiguousarray(planes, np.float32)
        if self.bgr:
            planes = planes[::-1]
        low, high = self.value_range
        if low:
            planes = planes - np.float32(low)
        # As written, so that no black and white change nothing in how it is rounded.
        span = self.highest - self.lowest
        step = np.float32((high - low) * span / (self.white - self.black))
        if step != 1:
            planes = planes / step
        if self.black != self.lowest:
            planes = planes + np.float32((self.black - self.lowest) / span)
        if self.channels > self.colours:
            planes = planes.mean(axis=0, keepdims=True, dtype=np.float32)
        if not self.needs_source:
            return np.ascontiguousarray(planes)  # BGR has turned it
        assert pixels is not None
        if self.channels >= self.colours:
            pixels = self.with_data(pixels)
            return np.concatenate([planes, self._resized(pixels, self.colours)])
        plain = self._resized(self._filled(pixels))
        planes = plain[:3] + (planes - luma(plain[:3]))
        return np.concatenate([planes, plain[3:]])

    def plain(self, pixels: Pixels) -> Planes:
        """What a tile is without the model: its pixels enlarged, in place of :meth:`unpack`."""
        return self._resized(self.with_data(pixels))

    def _resized(self, pixels: Pixels, first: int = 0) -> Planes:
        """Bands from the first on, without the model."""
        planes = resize_plain(pixels[..., first:], self.scale, self.lowest, self.highest)
        if self.alpha is not None and pixels.dtype == np.float32:
            # From 0 to 1, whatever black and white are; nothing clips it later.
            alpha = pixels[..., self.alpha : self.alpha + 1]
            planes[self.alpha - first] = resize_plain(alpha, self.scale, 0, 1)[0].clip(0, 1)
        return planes


def luma(planes: Planes) -> Planes:
    """BT.601 luma of (3, height, width) RGB planes, as (1, height, width)."""
    red, green, blue = _LUMA
    weighted: Planes = red * planes[0] + green * planes[1] + blue * planes[2]
    return weighted[np.newaxis]


def resize_plain(pixels: Pixels, scale: int, lowest: float, highest: float) -> Planes:
    """Bicubic enlargement of (height, width, bands) pixels to (bands, …) planes, in which ``lowest`` is
    0 and ``highest`` 1.
    """
    unit = pixels.astype(np.float32)
    if lowest:
        unit -= np.float32(lowest)
    if highest - lowest != 1:
        unit /= np.float32(highest - lowest)
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
