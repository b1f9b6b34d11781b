"""Writes an OME-Zarr: a pyramid of chunked arrays in a folder.

The metadata are those of OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5/): Zarr version 3, axes
c, y, x, and levels each half as large as the one before. Rows are pushed in as libvips computes them;
every level keeps only the rows of one row of chunks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.errors import OutputError
from srpipe.io.vips import DTYPES, VIPS_ERRORS, pyvips
from srpipe.plan.geometry import Size
from srpipe.plan.nodata import NoData
from srpipe.plan.output import OutputSpec
from srpipe.plan.pixels import PixelDtype, limits

DEFAULT_CHUNK_PX = 256
_CHUNKS_PX = range(64, 4097, 2)
_LEVELS = range(1, 33)
_COMPRESSIONS = ("blosc", "gzip", "none")
_SIGN = np.uint16(1 << 15)
_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ZarrOptions:
    """What may follow OUTPUT in brackets."""

    chunk_px: int = DEFAULT_CHUNK_PX
    """Side of a chunk; all bands are in it."""
    compression: str = "blosc"
    levels: int | None = None
    """How many there are, each half as large as the one before; None: until one chunk is enough."""

    @classmethod
    def parse(cls, spec: OutputSpec) -> ZarrOptions:
        """Read ``chunk=512,compression=gzip,levels=3``.

        Raises:
            OutputError: an option is unknown or out of range.
        """
        options = dict(spec.parsed)
        chunk = options.pop("chunk", str(DEFAULT_CHUNK_PX))
        compression = options.pop("compression", "blosc")
        if not chunk.isdecimal() or int(chunk) not in _CHUNKS_PX:
            raise OutputError(
                f"{spec.path} cannot have chunks of {chunk!r} pixels: use an even number from "
                f"{_CHUNKS_PX[0]} to {_CHUNKS_PX[-1]}."
            )
        if compression not in _COMPRESSIONS:
            raise OutputError(
                f"{spec.path} cannot have the compression {compression!r}: use one of "
                f"{', '.join(_COMPRESSIONS)}."
            )
        levels = options.pop("levels", None)
        if levels is not None and (not levels.isdecimal() or int(levels) not in _LEVELS):
            raise OutputError(
                f"{spec.path} cannot have {levels!r} levels: use a number from {_LEVELS[0]} to "
                f"{_LEVELS[-1]}."
            )
        if options:
            raise OutputError(
                f"{spec.path} cannot be written with the option {next(iter(options))!r}: Zarr takes "
                "chunk, compression and levels."
            )
        return cls(int(chunk), compression, None if levels is None else int(levels))


def save_zarr(image: Any, spec: OutputSpec, path: str, no_data: NoData | None = None) -> None:
    """Write a libvips image as an OME-Zarr.

    Args:
        image: as libvips computes it.
        spec: the output, with its options.
        path: the folder to make.
        no_data: what is empty in the image; None: nothing is.

    Raises:
        OutputError: the options are none of Zarr's, or the package is missing.
        OSError: a chunk cannot be written.
        pyvips.Error: the pixels cannot be computed.
    """
    pyramid = ZarrPyramid(
        path,
        Size(image.width, image.height),
        image.bands,
        DTYPES[image.format],
        ZarrOptions.parse(spec),
        # Data of three bands are no colours.
        colours=0 if image.interpretation == "multiband" else image.bands - image.hasalpha(),
        no_data=no_data,
    )
    failures: list[Exception] = []

    def take(data: bytes) -> int:
        try:
            pyramid.write(data)
        except Exception as error:  # it would be lost in libvips
            failures.append(error)
            return -1
        return len(data)

    target = pyvips.TargetCustom()
    target.on_write(take)
    try:
        image.write_to_target(target, ".raw")
    except VIPS_ERRORS:
        if failures:
            raise failures[0] from None
        raise
    pyramid.finish()


class ZarrPyramid:
    """Takes the rows of an image from top to bottom and writes all levels."""

    def __init__(
        self,
        path: str,
        size: Size,
        bands: int,
        dtype: PixelDtype,
        options: ZarrOptions,
        colours: int,
        no_data: NoData | None = None,
    ) -> None:
        """Make the folder with its metadata.

        Args:
            path: of the folder.
            size: of the image, pixels.
            bands: of the image.
            dtype: of its samples.
            options: chunks and compression.
            colours: bands without alpha, 1 and 3 are told to viewers; 0: they are data.
            no_data: what is empty in the image; None: nothing is.

        Raises:
            OutputError: the package is missing.
            OSError: the folder cannot be written.
        """
        self._row_bytes = size.width * bands * np.dtype(dtype).itemsize
        self._left_over = b""
        fill_value = no_data.value if no_data is not None else None
        arrays = create_arrays(path, size, bands, dtype, options, colours, fill_value)
        alpha = has_alpha(bands, colours)
        self._levels = chain(
            [Level(array, options.chunk_px, alpha=alpha, no_data=no_data) for array in arrays]
        )

    def write(self, data: bytes) -> None:
        """Take the next bytes of the image, rows of pixels, in pieces of any length.

        Raises:
            OSError: a chunk cannot be written.
        """
        first = self._levels[0]
        data = self._left_over + data if self._left_over else data
        whole = len(data) // self._row_bytes
        rows = np.frombuffer(data, first.dtype, whole * self._row_bytes // first.dtype.itemsize)
        first.add(rows.reshape(whole, *first.row_shape))
        self._left_over = data[whole * self._row_bytes :]

    def finish(self) -> None:
        """See that all is there.

        Raises:
            OSError: rows are missing.
        """
        if any(level.rows_written < level.height for level in self._levels):
            raise OSError("the image ended early")


def create_arrays(
    path: str,
    size: Size,
    bands: int,
    dtype: PixelDtype,
    options: ZarrOptions,
    colours: int,
    nodata: float | None,
) -> list[Any]:
    """Make a Zarr with its metadata, in place of any that is there.

    Args:
        path: of the folder.
        size: of the image, pixels.
        bands: of the image.
        dtype: of its samples.
        options: chunks, compression and levels.
        colours: bands without alpha, 1 and 3 are told to viewers; 0: they are data.
        nodata: the value that means no data, the arrays' fill value; None: there is none.

    Returns:
        The arrays of all levels, (bands, height, width), the largest first.

    Raises:
        OutputError: the package is missing.
        OSError: the folder cannot be written.
    """
    sizes = level_sizes(size, options)
    group = zarr_package().open_group(path, mode="w", zarr_format=3)
    arrays = [
        group.create_array(
            str(level),
            shape=(bands, level_size.height, level_size.width),
            chunks=(bands, options.chunk_px, options.chunk_px),
            dtype=dtype,
            compressors=codecs(options),
            dimension_names=("c", "y", "x"),
            fill_value=nodata or 0,
        )
        for level, level_size in enumerate(sizes)
    ]
    group.attrs.update(ome_metadata(len(sizes), bands, colours, limits(dtype)))
    return arrays


def zarr_package() -> Any:
    """The package that writes Zarr.

    Raises:
        OutputError: it is missing.
    """
    try:
        import zarr
    except ImportError:
        raise OutputError(
            "writing .zarr needs a package that is not installed: pip install 'srpipe[zarr]'."
        ) from None
    return zarr


def chain(levels: list[Level]) -> list[Level]:
    """Levels each of which is made of the one before it."""
    for above, below in itertools.pairwise(levels):
        above.below = below
    return levels


class Level:
    """One array, and the rows of it that do not fill a row of chunks yet."""

    def __init__(
        self, array: Any, chunk_px: int, *, alpha: bool, no_data: NoData | None = None
    ) -> None:
        self._array = array
        self._alpha = alpha
        self._no_data = no_data
        bands, self.height, width = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.row_shape = (width, bands)
        self.rows_written = 0
        self.below: Level | None = None
        self._strip: Pixels = np.empty((min(chunk_px, self.height), width, bands), array.dtype)
        self._chunk_px = chunk_px
        self._filled = 0

    def add(self, rows: Pixels) -> None:
        """Take rows (n, width, bands)."""
        while len(rows):
            n = min(len(rows), len(self._strip) - self._filled)
            self._strip[self._filled : self._filled + n] = rows[:n]
            self._filled += n
            rows = rows[n:]
            missing = self.height - self.rows_written - self._filled
            if self._filled == len(self._strip) or not missing:
                self._write_strip()

    def _write_strip(self) -> None:
        top, strip = self.rows_written, self._strip[: self._filled]
        halves = []
        for left in range(0, strip.shape[1], self._chunk_px):
            chunk = strip[:, left : left + self._chunk_px]
            place = np.s_[:, top : top + len(chunk), left : left + chunk.shape[1]]
            self._array[place] = chunk.transpose(2, 0, 1)
            if self.below is not None:
                halves.append(halve(chunk, alpha=self._alpha, no_data=self._no_data))
        self.rows_written += self._filled
        self._filled = 0
        if self.below is not None:
            self.below.add(np.concatenate(halves, axis=1))


def halve(pixels: Pixels, *, alpha: bool = False, no_data: NoData | None = None) -> Pixels:
    """Half the size of (height, width, bands), rounded up: means of 2x2, of integers to even.

    Rounding halves up would make each level a little brighter than the one before.

    Args:
        pixels: one level.
        alpha: whether the last band is alpha, by which the means of the others are weighted.
        no_data: what is empty; if anything can be, the first of each 2x2 is taken: a mean would be
            neither.
    """
    if no_data is not None:
        return pixels[::2, ::2]
    height, width, _ = pixels.shape
    if height % 2 or width % 2:  # the mean of what is there
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    if pixels.dtype == np.int16:
        half = halve(pixels.view(np.uint16) ^ _SIGN)
        return (half ^ _SIGN).view(np.int16)
    total = _sums(pixels.astype(np.uint32))
    mean: Pixels = (total + 1 + ((total >> 2) & 1)) >> 2
    if alpha:
        weights = pixels[..., -1:].astype(np.uint64)
        total, weight = _sums(pixels[..., :-1] * weights), _sums(weights)
        weighted = (total + weight // 2) // np.maximum(weight, 1)
        mean[..., :-1] = np.where(weight > 0, weighted, mean[..., :-1])
    return mean.astype(pixels.dtype)


def _sums(pixels: Pixels) -> Pixels:
    """Of 2x2 pixels each."""
    rows = pixels[0::2] + pixels[1::2]
    sums: Pixels = rows[:, 0::2] + rows[:, 1::2]
    return sums


def has_alpha(bands: int, colours: int) -> bool:
    """Whether the last of so many bands is alpha."""
    return 0 < colours < bands


def ome_metadata(
    levels: int, bands: int, colours: int, shown: tuple[float, float]
) -> dict[str, Any]:
    """The attributes of an OME-Zarr 0.5 image with axes c, y, x.

    Args:
        levels: how many, each half as large as the one before.
        bands: channels.
        colours: bands without alpha; 0: they are data.
        shown: the values that are shown black and white.
    """
    datasets = []
    for level in range(levels):
        step = 2.0**level
        # The middle of a pixel of level 1 lies between two of level 0.
        shift = (step - 1) / 2
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, step, step]}]
        if level:
            transformations.append({"type": "translation", "translation": [0.0, shift, shift]})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space"} for name in ("y", "x")]
    image = {"axes": axes, "datasets": datasets, "type": "mean"}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
    if colours in (1, 3):
        window = dict(zip(("min", "max", "start", "end"), shown * 2, strict=True))
        named = _RGB if colours == 3 else (("grey", "FFFFFF"),)
        channels = [
            {"label": label, "color": color, "active": True, "window": window}
            for label, color in named
        ]
        if has_alpha(bands, colours):
            channels.append(
                {"label": "alpha", "color": "FFFFFF", "active": False, "window": window}
            )
        ome["omero"] = {"channels": channels}
    return {"ome": ome}


def level_sizes(size: Size, options: ZarrOptions) -> list[Size]:
    """The sizes of all levels, the largest first."""
    sizes = [size]
    while (
        max(size.width, size.height) > options.chunk_px
        if options.levels is None
        else len(sizes) < options.levels
    ):
        size = Size(-(-size.width // 2), -(-size.height // 2))
        sizes.append(size)
    return sizes


def codecs(options: ZarrOptions) -> tuple[Any, ...]:
    """What the bytes of a chunk go through."""
    from zarr.codecs import BloscCodec, GzipCodec

    if options.compression == "blosc":
        return (BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),)
    return (GzipCodec(level=1),) if options.compression == "gzip" else ()
