"""The job that candidates are measured for: a large image, whatever image comes after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from srpipe.errors import SettingsError
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import FileIdentity, ImageInfo
from srpipe.plan.job import Plan, make_plan, plan_grid
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.output import parse_output
from srpipe.settings import Settings
from srpipe.tune.choice import Planner

_SIZE = Size(16384, 16384)


def nominal_planner(info: ModelInfo, cores: int) -> Planner:
    """Plans for a picture of 16384x16384 in 8 bits."""
    image = nominal_image(info)
    output = parse_output("nominal.tif")

    def plan_for(settings: Settings, device: str) -> Plan:
        return make_plan(settings, image, info, output, device=device, cores=cores, job_dir="")

    return plan_for


def nominal_image(info: ModelInfo) -> ImageInfo:
    """A picture that a model takes as it is."""
    bands = 3 if info.channels in (1, 3) else info.channels
    return ImageInfo(
        path="nominal.tif",
        size=_SIZE,
        bands=bands,
        dtype="uint8",
        interpretation="srgb" if bands == 3 else "multiband",
        content="RGB" if bands == 3 else "data",
        icc_bytes=0,
        loader="tiffload",
        pages=1,
        untrusted=False,
        decoded_whole=False,
        identity=FileIdentity(0, 0, ""),
    )


def usefulness(info: ModelInfo, settings: Settings) -> Callable[[Size], float]:
    """The share of a tile's pixels that are not computed twice; 0: the overlap is too large."""
    image = nominal_image(info)
    known: dict[Size, float] = {}

    def useful(tile: Size) -> float:
        if tile not in known:
            free = info.width_px is None and info.height_px is None
            try:
                asked = replace(settings, tile_size=tile.width) if free else settings
                known[tile] = image.size.pixels / plan_grid(asked, image, info).model_pixels
            except SettingsError:
                known[tile] = 0.0
        return known[tile]

    return useful
