"""Joins the parts of a job in slabs to its output, without encoding again where the format lets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import Interrupted, WriteError
from srpipe.io.finishing import add_metadata, finish_image, interpretation
from srpipe.io.joined_tiff import join_tiffs
from srpipe.io.output_place import sync_output
from srpipe.io.savers import save_image
from srpipe.io.source import carry_fields
from srpipe.io.vips import FORMATS, VIPS_ERRORS, first_line, pyvips
from srpipe.plan.job import Plan
from srpipe.plan.slabs import Cut


def takes_parts_one_by_one(plan: Plan, cut: Cut) -> bool:
    """Whether joining can begin before all parts are there."""
    return cut.part == "encoded" and plan.output.format.name == "TIFF"


def assemble_parts(
    plan: Plan, cut: Cut, parts: Iterable[str], path: str, look: Callable[[], None]
) -> None:
    """Write the output from the parts of all slabs.

    Args:
        plan: of the whole.
        cut: the plan in slabs.
        parts: of the slabs, in their order.
        path: of the output on its way to its place.
        look: called now and then; what it raises ends the joining.

    Raises:
        WriteError: the output cannot be written, or a part is not what it should be.
        Interrupted: ``look`` asked for it.
    """
    try:
        if cut.part == "pixels":
            _save_pixels(plan, cut, list(parts), path, look)
        elif plan.output.format.name == "Zarr":
            from srpipe.io.joined_zarr import join_zarrs  # its package is an extra

            join_zarrs(list(parts), path, plan.output, no_data=plan.written.no_data, beat=look)
        else:
            join_tiffs(parts, path, beat=look)
            add_metadata(plan, path, carry_fields(plan.image, _nothing(plan), plan.output_factor))
        sync_output(Path(path))
    except VIPS_ERRORS as error:
        raise _failed(plan, first_line(error)) from None
    except OSError as error:
        raise _failed(plan, error.strerror or str(error)) from None


def _failed(plan: Plan, why: str) -> WriteError:
    return WriteError(
        f"{plan.output.path} cannot be joined from its slabs ({why}): check the free space, the folder "
        "and the options in brackets."
    )


def _nothing(plan: Plan) -> Any:
    """An image that takes the fields of the output."""
    written = plan.written
    pixel = np.zeros((1, 1, written.bands), written.numpy_dtype)
    return pyvips.Image.new_from_array(pixel).copy(interpretation=interpretation(written))


def _stacked(images: list[Any]) -> Any:
    """Images one below the other; in halves, because libvips descends once for each join."""
    if len(images) == 1:
        return images[0]
    middle = len(images) // 2
    return _stacked(images[:middle]).join(_stacked(images[middle:]), "vertical")


def _save_pixels(
    plan: Plan, cut: Cut, parts: Sequence[str], path: str, look: Callable[[], None]
) -> None:
    """Encode the output here, from parts that hold its pixels."""
    written, width = plan.written, plan.cropped_size.width
    format_ = FORMATS[written.dtype]
    bands = [
        pyvips.Image.rawload(
            part, width, slab.height_px * plan.scale, written.bands, format=format_
        )
        for part, slab in zip(parts, cut.slabs, strict=True)
    ]
    image = finish_image(plan, _stacked(bands))
    stopped: list[Interrupted] = []

    def look_between(*_: object) -> None:
        try:
            look()
        except Interrupted as error:  # an exception would be lost in libvips
            stopped.append(error)
            image.set_kill(True)

    image.set_progress(True)
    image.signal_connect("eval", look_between)
    try:
        save_image(image, plan.output, path, plan.written.no_data)
    except VIPS_ERRORS:
        if stopped:
            raise stopped[0] from None
        raise
    if stopped:
        raise stopped[0]
    add_metadata(plan, path, image)
