"""TIFF files as libvips' images, so that what cannot be decoded is an error and never black.

libvips takes a tile that libtiff cannot decode for black unless it is to fail on warnings; then it
fails on tiles too that GDAL left out, which are no fault: its header tells them apart, and they are
filled in here.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

import numpy as np

from srpipe.errors import InputError
from srpipe.io.tiff_header import TiffHeader, read_tiff_header
from srpipe.io.vips import VIPS_ERRORS, first_line, forget_errors, pyvips
from srpipe.io.virtual_tiff import open_changed

_NONE, _LZW, _OLD_JPEG, _PACKBITS = 1, 5, 6, 32773
_DEFLATE = (8, 32946)
_SAVED_AS = {_LZW: "lzw", _PACKBITS: "packbits"}
_PACKED_BITS = (10, 12, 14)
_TYPES = {
    1: {1, 2, 4, 8, *_PACKED_BITS, 16}, 2: {16}, 3: {16, 32}, 4: {8, 16},
}  # fmt: skip
_TYPE_NAMES = {1: "uint", 2: "int", 3: "float", 4: "undefined", 5: "complex int", 6: "complex"}
_COLOR_FILTERS = 32803
_YCBCR, _JPEG = 6, 7
_JPEG_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}  # by photometric interpretation, 1 of others
_THREE_COLORS = (2, 6, 8, 9, 10)
# libtiff's limit of 50 MB guards against what the header has been searched for already.
_LARGE_PIECE_BYTES = 20_000_000
_NO_DECODER = re.compile(
    r"not configured|not implemented|not supported|unsupported|without|built", re.I
)


def open_tiff(path: str, *, access: str = "sequential", strict: bool = True) -> Any:
    """The first page of a TIFF file as libvips' image, before any change of colors.

    Args:
        path: the file.
        access: libvips' hint.
        strict: what cannot be decoded is an error when it is read; else it is what libtiff makes of it.

    Raises:
        InputError: it is damaged, or of a kind that cannot be read; the message says what to do.
        pyvips.Error: libvips cannot open it.
    """
    header = read_tiff_header(path)
    sparse = header.sparse
    # Of strips, a damaged JPEG is a warning where TiffPieces does not find it.
    warns = header.tiled or (header.compression == _JPEG and header.samples not in (1, 3, 4))
    fail_on = ("warning" if warns else "error") if strict else "none"
    options = {"access": access, "fail_on": fail_on, "unlimited": _is_large(header)}
    packed = header.bits in _PACKED_BITS or (header.bits < 8 and header.samples > 1)
    changes: dict[int, list[int] | None] = dict.fromkeys(header.odd_tags)
    if packed:
        source = open_changed(path, changes | _as_bytes(path, header))
    elif sparse.any() and not header.tiled:
        source = _with_strips(path, header, changes)
    elif changes or (header.others and not header.tiled):
        # What libtiff finds wrong with other pages, libvips would call an error of this one's strips.
        source = open_changed(path, changes)
    else:
        source = pyvips.Source.new_from_file(path)
    image = pyvips.Image.new_from_source(source, "", **options)
    if packed:
        image = _unpack(image, header)
    if header.compression == _OLD_JPEG or (
        header.photometric == _YCBCR and header.compression != _JPEG
    ):
        image = _from_ycbcr(path, image, header)
    if sparse.any() and header.tiled:
        image = _with_tiles(image, header)
    return image


def check_decoder(path: str, header: TiffHeader, image: Any) -> None:
    """Find out whether libvips can decode a file's codec, by trying.

    Args:
        path: the file.
        header: its header.
        image: as :func:`open_tiff` opened it, to be read by nobody else.

    Raises:
        InputError: it cannot; the message names the codec.
    """
    present = np.flatnonzero(~header.sparse & ~header.cut_off)
    if not len(present):
        return
    index = int(present[0]) % (header.across * header.down) if header.tiled else 0
    x, y = index % header.across * header.piece.width, index // header.across * header.piece.height
    forget_errors()
    try:
        pyvips.Region.new(image).fetch(x, y, 1, 1)
    except VIPS_ERRORS as error:
        reason = first_line(error)
        if _NO_DECODER.search(reason):  # else it is damaged there, and said so when it is read
            raise InputError(
                f"{path} is compressed with {header.codec}, which libvips cannot decode here "
                f"({reason}): save it with another codec first (gdal_translate -co COMPRESS=DEFLATE)."
            ) from None


def fill_value(header: TiffHeader) -> float:
    """What GDAL's left out pieces hold: no-data where the type holds it, else 0."""
    value = header.nodata
    if value is None:
        return 0
    if header.sample_format == 3:
        return value
    low, high = 0, (1 << header.bits) - 1
    if header.sample_format == 2:
        low, high = -(1 << header.bits - 1), (1 << header.bits - 1) - 1
    return value if value == math.floor(value) and low <= value <= high else 0


def shown_value(header: TiffHeader, value: float) -> float | None:
    """What the image has for a number in the file, in its first band; None: a color of a palette."""
    if header.color_map:
        return None
    highest = (1 << header.bits) - 1
    if header.photometric == 0 and header.sample_format in (1, 4):  # white is zero
        value = highest - value
    return value * 255 // highest if header.bits < 8 else value


def check_kind(path: str, header: TiffHeader) -> None:
    """Refuse sample types that srpipe does not enhance, by their names, and headers that contradict
    themselves.

    Raises:
        InputError: the message says what it is.
    """
    if header.bits not in _TYPES.get(header.sample_format, ()):
        name = _TYPE_NAMES.get(header.sample_format, "mixed")
        bits = str(header.bits or "")
        told = (
            f"{name}{bits} samples" if header.bits and name != "mixed" else "bands of several types"
        )
        raise InputError(
            f"{path} holds {told}: save it as uint8, uint16, int16 or float32 first (gdal_translate "
            "-ot Float32)."
        )
    if (
        header.photometric in _THREE_COLORS
        and header.samples < 3
        and header.compression != _OLD_JPEG
    ):
        raise InputError(
            f"{path} says that it has three colors, and has {header.samples} bands: its header is "
            "wrong; save it again."
        )
    if header.compression == _NONE and header.photometric != _YCBCR:
        row_samples = header.piece.width * (1 if header.separate else header.samples)
        most = 2 * header.piece.height * math.ceil(row_samples * header.bits / 8) + 64
        if int(header.byte_counts.max(initial=0)) > most:
            raise InputError(
                f"{path} has more bytes than {header.bits} bits a sample fill: its header is wrong; "
                "save it again."
            )
    jpeg_tiles = header.compression == _JPEG and header.tiled and not header.separate
    if jpeg_tiles and header.samples != _JPEG_BANDS.get(header.photometric, 1):
        raise InputError(
            f"{path} has JPEG tiles of {header.samples} bands, which libvips cannot decode: save it "
            "with another codec first (gdal_translate -co COMPRESS=DEFLATE)."
        )
    if header.photometric == _COLOR_FILTERS:
        raise InputError(
            f"{path} holds what a camera's sensor saw behind color filters, no picture yet: develop it "
            "with a raw converter first."
        )


def _is_large(header: TiffHeader) -> bool:
    raw = header.piece.pixels * header.samples * max(header.bits, 8) // 8
    return max(int(header.byte_counts.max(initial=0)), raw) > _LARGE_PIECE_BYTES


def _as_bytes(path: str, header: TiffHeader) -> dict[int, list[int] | None]:
    """The changes by which libtiff reads rows of packed samples as grey rows of bytes."""
    samples = header.samples
    tile_bytes = header.piece.width * samples * header.bits // 8
    unusual = header.separate or header.photometric > 2 or header.predictor != 1
    if unusual or (header.tiled and tile_bytes % 16) or header.codec == "JPEG":
        raise InputError(
            f"{path} holds {header.bits}-bit samples in a layout that srpipe cannot read: save it with "
            "16 bits a sample first (gdal_translate -co NBITS=16)."
        )
    width = math.ceil(header.size.width * samples * header.bits / 8)
    changes: dict[int, list[int] | None] = dict.fromkeys((280, 281, 317, 338, 339))
    changes |= {256: [width], 258: [8], 262: [1], 277: [1]}
    return changes | ({322: [tile_bytes]} if header.tiled else {})


def _unpack(image: Any, header: TiffHeader) -> Any:
    """Samples out of rows of the bytes that they are packed into, highest bit first."""
    bits, samples = header.bits, header.samples
    group = math.lcm(bits, 8)
    n_bytes, n_samples = group // 8, group // bits
    width = math.ceil(image.width / n_bytes) * n_bytes
    packed = image.embed(0, 0, width, image.height).bandfold(factor=n_bytes).cast("uint")
    parts = []
    for i in range(n_samples):
        value = packed.extract_band(0) & 0
        for byte in range(i * bits // 8, ((i + 1) * bits - 1) // 8 + 1):
            shift = (i + 1) * bits - (byte + 1) * 8
            band = packed.extract_band(byte)
            value = value | (band << shift if shift >= 0 else band >> -shift)
        parts.append(value & ((1 << bits) - 1))
    first, *others = parts
    unpacked = first.bandjoin(others).cast("ushort").bandunfold(factor=n_samples)
    unpacked = unpacked.crop(0, 0, header.size.width * samples, image.height)
    unpacked = unpacked.bandfold(factor=samples) if samples > 1 else unpacked
    if header.photometric == 0:
        unpacked = unpacked ^ [(1 << bits) - 1, *[0] * (samples - 1)]
    if bits < 8:  # as libvips does with grey
        unpacked = (unpacked * (255 // ((1 << bits) - 1))).cast("uchar")
        return unpacked.copy(interpretation="srgb" if header.photometric == 2 else "b-w")
    return unpacked.copy(interpretation="rgb16" if header.photometric == 2 else "grey16")


def _with_tiles(image: Any, header: TiffHeader) -> Any:
    """The image with what stands for the tiles that were left out; libvips never asks for these."""
    piece = header.piece
    sparse = header.sparse.reshape(-1, header.down, header.across)[0]
    mask = pyvips.Image.new_from_array(sparse.astype(np.uint8) * 255)
    mask = mask.zoom(piece.width, piece.height).crop(0, 0, image.width, image.height)
    value = fill_value(header)
    shown = shown_value(header, value)
    values: list[float]
    if shown is None:
        entries, shift = 1 << header.bits, 8 if header.bits <= 8 else 0
        values = [header.color_map[int(value) + i * entries] >> shift for i in range(image.bands)]
    else:
        values = [shown, *[value] * (image.bands - 1)]
    fill = image.new_from_image(values).copy(interpretation=image.interpretation)
    # Whole tiles of the file, of which all or nothing is filled: libvips computes only what it needs.
    return mask.ifthenelse(fill, image).tilecache(
        tile_width=piece.width, tile_height=piece.height,
        max_tiles=2 * (1 + header.across), access="sequential", threaded=True,
    )  # fmt: skip


def _from_ycbcr(path: str, image: Any, header: TiffHeader) -> Any:
    """RGB or grey, of what libtiff makes RGBA of, and of YCbCr that it leaves as it is."""
    if image.bands == 4 and header.samples < 4:
        image = image.extract_band(0, n=header.samples)
        return image if header.samples == 3 else image.copy(interpretation="b-w")
    if header.samples != 3 or header.bits != 8 or header.has_reference:
        raise InputError(
            f"{path} holds YCbCr in a way that srpipe does not read: save it as RGB first "
            "(gdal_translate -co PHOTOMETRIC=RGB)."
        )
    luma, chroma = image.extract_band(0), image.extract_band(1, n=2) - 128
    blue, red = chroma.extract_band(0), chroma.extract_band(1)
    green = luma - 0.344136 * blue - 0.714136 * red
    rgb = (luma + 1.402 * red).bandjoin([green, luma + 1.772 * blue])
    return (rgb + 0.5).floor().cast("uchar").copy(interpretation="srgb")


def _with_strips(path: str, header: TiffHeader, changes: dict[int, list[int] | None]) -> Any:
    """A source of the file in which strips that were left out lead to one that stands for them."""
    encoded = _encode(_raw_strip(path, header), path, header)
    sparse = [int(i) for i in np.flatnonzero(header.sparse)]
    counts = [int(count) for count in header.byte_counts]
    for i in sparse:
        counts[i] = len(encoded)
    offsets = [int(offset) for offset in header.offsets]
    return open_changed(path, changes | {273: offsets, 279: counts}, encoded, {273: sparse})


def _raw_strip(path: str, header: TiffHeader) -> bytes:
    """A strip of the value for what was left out, with the predictor applied, as the file has it."""
    value, rows = fill_value(header), header.piece.height
    samples = 1 if header.separate else header.samples
    if header.bits < 8:
        if value not in (0, (1 << header.bits) - 1):
            raise _no_strips(path, header)
        row_bytes = math.ceil(header.size.width * samples * header.bits / 8)
        return bytes([255 if value else 0]) * row_bytes * rows
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}[header.sample_format]
    row = np.full((header.size.width, samples), value, f"{kind}{header.bits // 8}")
    if header.predictor == 2:
        row[1:] = 0
    data = row.astype(row.dtype.newbyteorder("<" if header.little_endian else ">")).tobytes()
    if header.predictor == 3:
        planes = row.astype(row.dtype.newbyteorder(">")).tobytes()
        flat = np.frombuffer(planes, np.uint8).reshape(-1, row.itemsize).T.ravel()
        flat[samples:] = flat[samples:] - flat[:-samples]
        data = flat.tobytes()
    return data * rows


def _encode(raw: bytes, path: str, header: TiffHeader) -> bytes:
    if header.fill_order == 2:
        raise _no_strips(path, header)
    if header.compression == _NONE:
        return raw
    if header.compression in _DEFLATE:
        return zlib.compress(raw)
    if header.compression not in _SAVED_AS:
        raise _no_strips(path, header)
    rows = header.piece.height
    image = pyvips.Image.new_from_memory(raw, len(raw) // rows, rows, 1, "uchar")
    saved = image.tiffsave_buffer(
        compression=_SAVED_AS[header.compression], predictor="none", tile_height=rows
    )
    return _first_strip(saved)


def _first_strip(saved: bytes) -> bytes:
    import io

    import tifffile

    with tifffile.TiffFile(io.BytesIO(saved)) as file:
        page = file.pages.first
        assert len(page.dataoffsets) == 1
        return saved[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]


def _no_strips(path: str, header: TiffHeader) -> InputError:
    return InputError(
        f"{path} leaves out strips that are empty, which srpipe cannot read with {header.codec}: save "
        "it with tiles first (gdal_translate -co TILED=YES -co COMPRESS=DEFLATE)."
    )
