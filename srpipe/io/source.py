"""The input image: its facts from the header, its tiles by streaming."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from srpipe.errors import InputError, SettingsError
from srpipe.forks import refuse_in_fork
from srpipe.io.colour_management import how_to_show, is_damaged, show
from srpipe.io.identity import identify_file
from srpipe.io.metadata_size import check_metadata
from srpipe.io.small_files import check_name
from srpipe.io.tiff_header import TiffHeader, read_tiff_header
from srpipe.io.tiff_image import check_decoder, check_kind, open_tiff, shown_value
from srpipe.io.to_rgb import CONVERTED, to_rgb
from srpipe.io.vips import DTYPES, VIPS_ERRORS, find_loader, first_line, is_untrusted, pyvips
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import MAX_BANDS, ImageInfo, Shown, guess_content
from srpipe.plan.nodata import read_value
from srpipe.plan.pixels import PixelDtype, limits
from srpipe.settings import ColorManagement, NoDataWish

_COLOUR_SPACES = {"b-w", "grey16", "srgb", "rgb", "rgb16", "scrgb", "multiband"}
_GREYS = ("b-w", "grey16")
# Carried from input to output as libvips holds them; width, height and strips are the output's own.
_CARRIED = ("icc-profile-data", "exif-data", "xmp-data", "iptc-data")

# These decoders cannot stream.
_WHOLE_LOADERS = ("webp", "heif", "gif", "uhdr")
# libjpeg only warns of a damaged scan.
_WARNING_LOADERS = ("jpeg", "uhdr")


def open_image(
    path: str,
    *,
    untrusted: bool,
    shown: Shown = "as it is",
    strict: bool = True,
    access: str = "sequential",
) -> Any:
    """The image as models see it: what is not grey, RGB or data is converted.

    Args:
        path: an image file.
        untrusted: use loaders too that libvips does not trust with files from strangers.
        shown: what is done about its profile.
        strict: what cannot be decoded is an error when it is read; else it is what libvips makes of it.
        access: libvips' hint.

    Raises:
        InputError: it is of a kind that cannot be read, or not to be trusted.
        pyvips.Error, UnicodeDecodeError: libvips cannot open it.
    """
    return show(to_rgb(open_as_it_is(path, untrusted, strict=strict, access=access)), shown)


def open_as_it_is(
    path: str, untrusted: bool, *, strict: bool = True, access: str = "sequential"
) -> Any:
    """The image in its own colors; arguments and errors are those of :func:`open_image`."""
    # A source takes the path as it is; a plain file name would have its [brackets] parsed as options.
    source = pyvips.Source.new_from_file(path)
    loader = find_loader(source)
    if loader and not untrusted and is_untrusted(loader):
        raise InputError(
            f"{path} would be read by libvips' {loader}, which it does not trust with files from "
            "strangers: save it as TIFF or PNG, or allow it with --allow-untrusted."
        )
    if loader.startswith("tiffload"):
        return open_tiff(path, strict=strict, access=access)
    fail_on = "warning" if loader.startswith(_WARNING_LOADERS) else "error"
    return pyvips.Image.new_from_source(
        source, "", access=access, fail_on=fail_on if strict else "none"
    )


def read_image_info(
    path: str | os.PathLike[str],
    *,
    allow_untrusted: bool = False,
    color_management: ColorManagement = "off",
    nodata: NoDataWish = None,
) -> ImageInfo:
    """Read an image's header.

    Args:
        path: an image file.
        allow_untrusted: use loaders too that libvips does not trust with files from strangers.
        color_management: what is done about a profile unlike sRGB's.
        nodata: the value that means no data, or "none"; None: what the file says.

    Raises:
        InputError: missing, not an image, or of a kind srpipe does not take.
        SettingsError: its type does not hold ``nodata``.
    """
    refuse_in_fork()
    name = os.fspath(path)
    check_name(name, InputError)
    if not os.path.exists(name):
        raise InputError(f"{name} does not exist: check the path.")
    if os.path.isdir(name):
        raise InputError(f"{name} is a folder: name one image file.")
    if not os.access(name, os.R_OK):
        raise InputError(f"{name} cannot be read: check its permissions.")
    if not os.path.isfile(name):
        raise InputError(f"{name} is no regular file: save what comes from it to a file first.")
    if os.path.getsize(name) == 0:
        raise InputError(f"{name} is empty (0 bytes): copy or export it again.")
    check_metadata(name)
    try:
        if find_loader(pyvips.Source.new_from_file(name)).startswith("tiffload"):
            check_kind(name, read_tiff_header(name))
        image = open_as_it_is(name, allow_untrusted)
        # libvips' own format does not say what read it.
        loader = image.get("vips-loader") if image.get_typeof("vips-loader") else "vipsload_source"
        info = _describe(name, image, loader, color_management, nodata)
        if loader.startswith("tiffload"):
            check_decoder(name, read_tiff_header(name), open_tiff(name))
        return info
    except VIPS_ERRORS as error:
        raise InputError(
            f"{name} is not an image that can be read ({first_line(error)}): "
            "use a TIFF, PNG, JPEG, WebP or HEIF file."
        ) from None


def _describe(
    name: str, image: Any, loader: str, color_management: ColorManagement, wish: NoDataWish
) -> ImageInfo:
    header = read_tiff_header(name) if loader.startswith("tiffload") else None
    space = image.interpretation
    image = to_rgb(image)
    if image.format not in DTYPES:
        raise InputError(
            f"{name} holds {image.format} samples: convert it to 8 or 16 bits a sample, or to float32, "
            "first."
        )
    nodata = None
    if space not in CONVERTED:
        nodata = _find_nodata(name, header, DTYPES[image.format], wish)
    floats = image.format == "float" and space not in CONVERTED
    masked = (
        bool(header and header.mask and header.mask.name.startswith("page"))
        and wish != "none"
        and (floats or nodata is not None)
    )
    shown = how_to_show(image, color_management, convertible=nodata is None)
    if color_management == "srgb" and shown != "srgb" and image.get_typeof("icc-profile-data"):
        why = (
            "its no-data value would change" if nodata is not None else "its type is kept as it is"
        )
        raise InputError(
            f"{name} cannot be converted to sRGB, since {why}: leave --color-management out."
        )
    image = show(image, shown)
    if image.interpretation not in _COLOUR_SPACES:
        raise InputError(
            f"{name} is in the colour space {image.interpretation}, which is not RGB: convert it to "
            "grey or RGB first."
        )
    if image.bands > MAX_BANDS:
        raise InputError(
            f"{name} has {image.bands} bands: srpipe takes at most {MAX_BANDS}; save fewer of them."
        )
    fields = image.get_fields()
    # libvips reads these as a jumble, or not at all.
    unreadable = "tile-width" in fields or (image.bands > 1 and image.interpretation in _GREYS)
    halves = header is not None and (header.bits, header.sample_format) == (16, 3)
    if header and (unreadable or halves) and header.separate:
        raise InputError(
            f"{name} stores its {image.bands} bands one after another, which srpipe cannot read: save "
            "it pixel by pixel (gdal_translate -co INTERLEAVE=PIXEL) first."
        )
    untrusted = is_untrusted(loader)
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else b""
    content, alpha_band = (
        header.tell_bands(image.bands)
        if header
        else guess_content(image.bands, image.interpretation)
    )
    return ImageInfo(
        path=name,
        size=Size(image.width, image.height),
        bands=image.bands,
        content=content,
        alpha_band=alpha_band,
        dtype=DTYPES[image.format],
        interpretation=image.interpretation,
        icc_bytes=0 if is_damaged(profile) else len(profile),
        loader=loader,
        untrusted=untrusted,
        decoded_whole="interlaced" in fields or loader.startswith(_WHOLE_LOADERS),
        pages=header.pages if header else image.get("n-pages") if "n-pages" in fields else 1,
        identity=identify_file(name),
        converted_from=CONVERTED.get(space, ""),
        shown=shown,
        orientation=read_orientation(image),
        remarks=(*header.remarks, *_mask_remarks(header, masked, nodata)) if header else (),
        bits=header.bits if header and 8 < header.bits < 16 else None,
        nodata=nodata,
        masked=masked,
    )


def _mask_remarks(header: TiffHeader, masked: bool, nodata: float | None) -> list[str]:
    if header.mask is None:
        return []
    what = f"has a mask ({header.mask.name})"
    if not masked:
        return [f"{what}, which is left out: --nodata V makes what it masks V"]
    return [f"{what}: what it masks becomes {'NaN' if nodata is None else f'{nodata:g}'}"]


def _find_nodata(
    name: str, header: TiffHeader | None, dtype: PixelDtype, wish: NoDataWish
) -> float | None:
    if wish == "none":
        return None
    if wish is None:
        return _as_read(read_value(header.nodata, dtype), header) if header else None
    value = read_value(wish, dtype)
    value = _as_read(value, header) if header else value
    if value is None and not (math.isnan(wish) and dtype == "float32"):
        lowest, highest = limits(dtype)
        raise SettingsError(
            f"--nodata {wish:g} is not possible: {name} holds "
            + ("finite numbers" if dtype == "float32" else f"{lowest} to {highest} ({dtype})")
            + "; use another, or none."
        )
    return value


def _as_read(value: float | None, header: TiffHeader) -> float | None:
    """A no-data value of the file as libvips makes it."""
    if value is None or (header.sample_format == 1 and value >= 1 << header.bits):
        return None
    return shown_value(header, value)


def read_orientation(image: Any) -> int:
    """By EXIF's numbers; 1 too where a decoder has turned the pixels, as libheif does."""
    value = image.get("orientation") if image.get_typeof("orientation") else 1
    return value if value in range(1, 9) else 1


def carry_fields(info: ImageInfo, image: Any, scale: float) -> Any:
    """Give ``image`` what an output takes over from its input.

    That is profile, EXIF, XMP, IPTC and orientation, and the resolution times ``scale``, so that the
    print size stays.
    """
    source = open_image(info.path, untrusted=info.untrusted, shown=info.shown)
    types = {bytes: pyvips.GValue.blob_type, int: pyvips.GValue.gint_type}
    # The copy has a header of its own that may be changed.
    image = image.copy(xres=source.xres, yres=source.yres)
    present = set(source.get_fields())
    if not info.icc_bytes:
        present.discard("icc-profile-data")  # it is damaged: savers fail on it
    for name in _CARRIED:
        if name in present:
            value = source.get(name)
            image.set_type(types[type(value)], name, value)
    for name in present:
        if name.startswith("png-comment-") and source.get(name).isascii():
            image.set_type(pyvips.GValue.gstr_type, name, source.get(name))
    if present & {"orientation", "exif-data"}:
        # After EXIF, which may have another one where a decoder has turned the pixels.
        image.set_type(pyvips.GValue.gint_type, "orientation", info.orientation)
    # Last: with EXIF, libvips has taken over the resolution in there, which a WebP says nowhere else.
    return image.copy(xres=image.xres * scale, yres=image.yres * scale)


def same_file(a: str, b: str) -> bool:
    """Whether two paths lead to one existing file."""
    try:
        return Path(a).samefile(b)
    except OSError:
        return False
