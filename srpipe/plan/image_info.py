"""What is known of an image before a pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from srpipe.plan.geometry import Size
from srpipe.plan.nodata import NoData
from srpipe.plan.pixels import PixelDtype, limits

Shown = Literal["as it is", "tone", "srgb"]
Content = Literal["grey", "RGB", "data"]

MAX_BANDS = 64
HASHED_WHOLE_BYTES = 8 * 1024 * 1024
_COLOUR_SPACES = ("srgb", "rgb", "rgb16", "scrgb")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells a changed file from the same one."""

    size_bytes: int
    modified_ns: int
    sha256: str
    """Of the content, or of samples spread over a large file."""

    @property
    def hashed_whole(self) -> bool:
        """Whether ``sha256`` is of all its content."""
        return self.size_bytes <= HASHED_WHOLE_BYTES

    @property
    def content(self) -> tuple[object, ...]:
        """What stays the same where only the time changes, if that can be told without reading a large
        file whole.
        """
        more = () if self.hashed_whole else (self.modified_ns,)
        return (self.size_bytes, self.sha256, *more)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """An image file that srpipe can enhance."""

    path: str
    size: Size
    bands: int
    """1 to 64."""
    content: Content
    """What its bands are: grey, or RGB, and what else comes after; or data, such as a satellite's."""
    alpha_band: int | None = None
    """Which band is alpha, as the file says; None: none is."""
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
    remarks: tuple[str, ...] = ()
    """What a user should know of the file beforehand, each a clause: what is left out of it."""
    bits: int | None = None
    """Bits of its samples, where they are fewer than their type's: 12 in 16; None: they are not."""
    orientation: int = 1
    """How it is to be turned to be seen, by EXIF's numbers; 1: as it is stored."""
    nodata: float | None = None
    """The value that means no data, of its type; None: there is none. In floats NaN and infinity mean
    it anyway."""

    masked: bool = False
    """GDAL's internal mask is read: what it masks has no data."""

    @property
    def has_alpha(self) -> bool:
        """Whether one of its bands is alpha."""
        return self.alpha_band is not None

    @property
    def colours(self) -> int:
        """Bands, from the first, that are grey, RGB or data; any alpha comes after them."""
        if self.content == "data":
            return self.bands - self.has_alpha
        return 1 if self.content == "grey" else 3

    @property
    def others(self) -> tuple[int, ...]:
        """Bands after grey or RGB that are no alpha, such as near infrared."""
        return tuple(i for i in range(self.colours, self.bands) if i != self.alpha_band)

    @property
    def is_picture(self) -> bool:
        """Whether its first bands are grey or RGB; else all of them are data."""
        return self.content != "data"

    @property
    def kind(self) -> str:
        """What its bands are, as people read it."""
        parts = [self.content, *(["alpha"] if self.has_alpha else [])]
        parts += [f"{len(self.others)} more"] if self.others else []
        return "data, no alpha" if parts == ["data"] else " + ".join(parts)

    @property
    def is_float(self) -> bool:
        """Whether it has float numbers."""
        return self.dtype == "float32"

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest integer of its samples; of floats 0 and 1."""
        return limits(self.dtype) if self.bits is None else (0, (1 << self.bits) - 1)

    @property
    def no_data(self) -> NoData | None:
        """What is empty in it; None: nothing can be."""
        if self.nodata is None and not self.is_float:
            return None
        return NoData(
            value=self.nodata,
            together=self.colours if self.is_picture else 0,
            alpha=self.alpha_band,
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


def band_names(bands: Sequence[int]) -> str:
    """Bands as the subject of a sentence: "band 4 is", "bands 4 and 5 are"."""
    names = [str(i + 1) for i in bands]
    if len(names) == 1:
        return f"band {names[0]} is"
    return f"bands {', '.join(names[:-1])} and {names[-1]} are"


def guess_content(bands: int, interpretation: str) -> tuple[Content, int | None]:
    """What the bands are of a file that says no more than a color space, and which is alpha.

    Args:
        bands: how many it has.
        interpretation: libvips' name of the color space.
    """
    if bands <= 2 and (bands == 1 or interpretation != "multiband"):
        return "grey", 1 if bands == 2 else None
    if bands == 3 or (bands == 4 and interpretation in _COLOUR_SPACES):
        return "RGB", 3 if bands == 4 else None
    return "data", None
