"""What is known of a model: read from the file, found by probing, or told by its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from srpipe.settings import ValueRange

Layout = Literal["NCHW", "NHWC"]
HaloSource = Literal["metadata", "measured", "balanced"]

MAX_CHANNELS = 64
MAX_SCALE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """An image-to-image model. Sizes are input pixels."""

    path: str
    name: str
    """The name from the metadata, or the file's."""
    sha256: str
    """Hash of the file."""
    file_bytes: int
    input_name: str
    output_name: str
    outputs: tuple[str, ...]
    """The images that it gives, with their scales, where there are several."""
    layout: Layout
    dtype: Literal["float32", "float16"]
    """Of input and output."""
    channels: int
    """In and out, 1 to 64: 1 is grey, 3 is RGB, any other number takes an image of as many bands."""
    scale: int
    """Output pixels per input pixel on an axis, 1 to 8."""
    lost_px: int
    """Output pixels that its result lacks of that on each axis, both sides together: convolutions
    without padding take them away."""
    batch: int | None
    """The only batch size the model takes; None if any."""
    height_px: int | None
    """The only height the model takes; None if any multiple of ``multiple_px``."""
    width_px: int | None
    """The only width the model takes; None if any multiple of ``multiple_px``."""
    multiple_px: int
    """Free sizes and tile origins are multiples of it."""
    least_px: int
    """The smallest free height and width."""
    batch_exact: bool
    """A batch gives the same bits as its tiles one by one (as far as probing can tell)."""
    radius_px: int | None
    """How far an input pixel reaches in the output, beyond 1/1000 of the range; None if farther
    than the probe could see."""
    halo_px: int | None
    """What to leave out at a tile's border for results on photographs like those of the whole image;
    None if that is not known, and ``radius_px`` has to do."""
    halo_from: HaloSource | None
    """metadata: the file tells; measured: beyond it no pixel differs by more than half a level of
    255; balanced: they differ, but twice the overlap would gain little, or too little for its cost."""
    value_range: ValueRange
    """Black and white in the model's numbers: (0, 1), (0, 255), (-1, 1) …"""
    black: float | None = None
    """The pixel value that is black to the model; None: the smallest that the image's type holds, 0 for
    floats."""
    white: float | None = None
    """The pixel value that is white to the model; None: the largest that the image's type holds, 1 for
    floats."""
    bgr: bool
    """The model, of three channels, wants blue first."""
    tile_px: int | None
    """The tile size that the file's metadata recommends."""
    metadata: dict[str, str]
    """The file's own key-value pairs."""

    @property
    def border_px(self) -> int:
        """Input pixels on each side for which it gives nothing."""
        return -(-lost_before(self.lost_px) // self.scale)

    def result_shape(self, batch: Sequence[int]) -> tuple[int, ...]:
        """The shape of what it makes of a batch of a shape."""
        sides = (2, 3) if self.layout == "NCHW" else (1, 2)
        return tuple(
            n * self.scale - self.lost_px if axis in sides else n for axis, n in enumerate(batch)
        )

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def lost_before(lost_px: int) -> int:
    """Output pixels lost at the top and at the left, of those lost on an axis."""
    return (lost_px + 1) // 2


def put_inside(
    result: npt.NDArray[np.floating], lost_px: int, layout: Layout
) -> npt.NDArray[np.floating]:
    """A result as large as if nothing were lost, its last pixels repeated: they are not to be used."""
    before = lost_before(lost_px)
    around, none = (before, lost_px - before), (0, 0)
    pads = (none, none, around, around) if layout == "NCHW" else (none, around, around, none)
    return np.pad(result, pads, mode="edge")
