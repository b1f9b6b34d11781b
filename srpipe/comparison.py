"""Shows a picture before and after: as a page with a slider, or as a strip of crops."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srpipe.compare.page import OVERLAP_PX, TILE_PX, Labels, page_html
from srpipe.compare.pair import Pair, check_crop, choose_crops, make_pair
from srpipe.errors import InputError, OutputError, ReadError, WriteError
from srpipe.forks import note_work
from srpipe.io.showable import make_strip, measure_detail, open_showable, save_tiles
from srpipe.io.small_files import check_name
from srpipe.io.source import read_image_info, same_file
from srpipe.io.viewer_script import load_viewer
from srpipe.io.vips import VIPS_ERRORS, first_line
from srpipe.plan.geometry import Rect
from srpipe.plan.image_info import ImageInfo

PAGE_SUFFIXES = (".html", ".htm")
STRIP_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_QUALITY = 90
_CROPS = 4
_CROP_PX = 128

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was made."""

    output: str
    folder: str | None
    """Beside a page: its tiles and its viewer."""
    scale: float
    crops: tuple[Rect, ...]
    """Of a strip, pixels of the picture before."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def compare(
    before: PathLike,
    after: PathLike,
    output: PathLike,
    *,
    crops: Sequence[Rect] = (),
    overwrite: bool = False,
    openseadragon: str | None = None,
    allow_untrusted: bool = False,
) -> Comparison:
    """Make a page with a slider (``.html``), or a picture of crops side by side (``.png`` …).

    A page needs the folder beside it, ``page_files`` for ``page.html``, and neither server nor
    network. Colours are converted to sRGB from the profiles in the files.

    Args:
        before: the picture that was enhanced.
        after: its enhanced version, the same multiple of its size on both axes.
        output: the page or picture; its ending says which.
        crops: of a strip, pixels of the picture before; none: the most detailed places.
        overwrite: replace what is there.
        openseadragon: the viewer's npm package, where it cannot be fetched.
        allow_untrusted: read formats too that libvips does not trust with files from strangers.

    Raises:
        RequestError: an input is missing or they do not belong together, the output exists, a crop is
            outside, or the viewer cannot be had.
        RunError: an input cannot be read, or the output not be written.
    """
    note_work()
    check_name(os.fspath(output), OutputError)
    path = Path(os.path.abspath(output))
    images = [read_image_info(p, allow_untrusted=allow_untrusted) for p in (before, after)]
    for image in images:
        if not image.is_picture:
            raise InputError(
                f"{image.path} has {image.bands} bands of data: name grey or RGB pictures."
            )
        if same_file(image.path, os.fspath(path)):
            raise OutputError(f"{path} is one of the pictures: write to another file.")
    pair = make_pair(images[0].size, images[1].size, images[0].path, images[1].path)
    _check_place(path, overwrite=overwrite)
    try:
        if path.suffix.lower() in PAGE_SUFFIXES:
            if crops:
                raise OutputError(
                    f"crops are for a strip: write {path} as .png, or leave them out."
                )
            folder = path.with_name(f"{path.stem}_files")
            _check_place(folder, overwrite=overwrite)
            _make_page(path, folder, images, pair, openseadragon)
            return Comparison(os.fspath(path), os.fspath(folder), pair.scale, ())
        for crop in crops:
            check_crop(crop, pair.before)
        chosen = _make_strip(path, images, pair, crops)
        return Comparison(os.fspath(path), None, pair.scale, tuple(chosen))
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from None
    except VIPS_ERRORS as error:
        raise ReadError(f"{before} and {after} cannot be compared: {first_line(error)}.") from None


def _check_place(path: Path, *, overwrite: bool) -> None:
    suffixes = (*PAGE_SUFFIXES, *STRIP_SUFFIXES)
    if path.suffix and path.suffix.lower() not in suffixes:
        raise OutputError(
            f"cannot tell from {path.name!r} what to make: .html is a page, and "
            f"{' '.join(STRIP_SUFFIXES)} a picture of crops."
        )
    if not path.suffix and not path.name.endswith("_files"):
        raise OutputError(f"{path} has no ending: .html is a page, .png a picture of crops.")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first.")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists: name another, or replace it with --overwrite.")
    is_folder_of_ours = path.name.endswith("_files") and (path / "openseadragon.min.js").is_file()
    if path.is_dir() and not is_folder_of_ours:
        raise OutputError(f"{path} is a folder that is not of such a page: name another output.")


def _make_page(
    path: Path, folder: Path, images: list[ImageInfo], pair: Pair, package: str | None
) -> None:
    viewer = load_viewer(package)
    new = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
    try:
        inside = new / folder.name
        inside.mkdir()
        (inside / "openseadragon.min.js").write_bytes(viewer.script)
        (inside / "openseadragon.LICENSE.txt").write_bytes(viewer.license)
        for name, image in zip(("before", "after"), images, strict=True):
            save_tiles(
                open_showable(image, streaming=True), inside / name,
                tile_px=TILE_PX, overlap_px=OVERLAP_PX, quality=_QUALITY,
            )  # fmt: skip
        labels = Labels(*(f"{side}: {Path(image.path).name}" for side, image in
                          zip(("Before", "After"), images, strict=True)))  # fmt: skip
        page = new / path.name
        page.write_text(page_html(pair, labels, folder.name, "jpg"), encoding="utf-8")
        if folder.is_dir():
            shutil.rmtree(folder)
        inside.rename(folder)
        page.replace(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _make_strip(
    path: Path, images: list[ImageInfo], pair: Pair, crops: Sequence[Rect]
) -> Sequence[Rect]:
    before, after = (open_showable(image, streaming=False) for image in images)
    chosen = crops or choose_crops(measure_detail(before), pair.before, _CROP_PX, _CROPS)
    headings = ["before, as it is", "before, bicubic", "after"]
    strip = make_strip(before, after, [(c, pair.crop_after(c)) for c in chosen], headings)
    new = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        strip.write_to_file(os.fspath(new))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return chosen
