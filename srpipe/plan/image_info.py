"""What is known of an image before a pixel is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from srpipe.plan.geometry import Size
from srpipe.plan.nodata import NoData
from srpipe.plan.pixels import PixelDtype, limits

Shown = Literal["as it is", "tone", "srgb"]

MAX_BANDS = 64
_COLOUR_SPACES = ("srgb", "rgb", "rgb16", "scrgb")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells a changed file from the same one."""

    size_bytes: int
    modified_ns: int
    sha256: str
    """Of the content, or of samples spread over a large file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """An image file that srpipe can enhance."""

    path: str
    size: Size
    bands: int
    """1 to 64."""
    dtype: PixelDtype
    """From the file's type, never from the values of a tile."""
    interpretation: str
    """libvips' name of the colour space."""
    icc_bytes: int
    """Length of the embedded profile, 0 without one."""
    loader: str
    """The libvips operation that reads it."""
    untrusted: bool
    """libvips advises against that operation for files from strangers."""
    decoded_whole: bool
    """Its decoder keeps the whole image in memory: WebP, HEIF, GIF, progressive, interlaced."""
    pages: int
    identity: FileIdentity
    converted_from: str = ""
    """The colour space of the file, where it is one that is converted to sRGB."""
    shown: Shown = "as it is"
    """What models see: its numbers, these under sRGB's tone curve, or converted to sRGB."""
    nodata: float | None = None
    """The value that means no data, of its type; None: there is none. In floats NaN and infinity mean
    it anyway."""

    @property
    def has_alpha(self) -> bool:
        """Whether the last band is alpha: beside one band, or beside three that are said to be RGB."""
        if self.bands == 2:
            return self.interpretation != "multiband"
        return self.bands == 4 and self.interpretation in _COLOUR_SPACES

    @property
    def colours(self) -> int:
        """Bands without alpha: 1 is grey, 3 is RGB."""
        return self.bands - self.has_alpha

    @property
    def is_picture(self) -> bool:
        """Whether it is grey or RGB; else its bands are data, such as a satellite's, none of them
        alpha.
        """
        return self.colours in (1, 3)

    @property
    def kind(self) -> str:
        """What its bands are, as people read it."""
        if not self.is_picture:
            return "data, no alpha"
        return ("grey" if self.colours == 1 else "RGB") + (" + alpha" if self.has_alpha else "")

    @property
    def is_float(self) -> bool:
        """Whether it has float numbers."""
        return self.dtype == "float32"

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest integer of its type; of floats 0 and 1."""
        return limits(self.dtype)

    @property
    def no_data(self) -> NoData | None:
        """What is empty in it; None: nothing can be."""
        if self.nodata is None and not self.is_float:
            return None
        return NoData(
            value=self.nodata,
            together=self.colours if self.is_picture else 0,
            alpha=self.bands - 1 if self.has_alpha else None,
            dtype=self.dtype,
        )

    @property
    def numpy_dtype(self) -> npt.DTypeLike:
        """Type of a sample."""
        return np.dtype(self.dtype)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return np.dtype(self.dtype).itemsize

    @property
    def decoder_bytes(self) -> int:
        """Memory that decoding takes where the whole image is kept, 0 where rows stream."""
        # A progressive JPEG is kept as coefficients of 16 bits.
        sample_bytes = (
            max(self.sample_bytes, 2) if self.loader.startswith("jpeg") else self.sample_bytes
        )
        return self.size.pixels * self.bands * sample_bytes if self.decoded_whole else 0

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)
