"""How an image's bands and a model's channels come together, and what the caller says of both."""

from __future__ import annotations

from dataclasses import replace

from srpipe.errors import InputError, SettingsError
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.model_info import ModelInfo
from srpipe.settings import Settings


def as_asked(model: ModelInfo, settings: Settings) -> ModelInfo:
    """The model as the settings want it used, whatever its metadata say.

    Raises:
        SettingsError: a channel order for a model that has no three channels.
    """
    if settings.value_range is not None:
        model = replace(model, value_range=settings.value_range)
    if settings.channel_order == "auto":
        return model
    if model.channels != 3:
        raise SettingsError(
            f"channel order {settings.channel_order} is not possible: model {model.name} has not 3 "
            f"channels but {model.channels}; leave --channel-order out."
        )
    return replace(model, bgr=settings.channel_order == "bgr")


def bands_seen(image: ImageInfo, model: ModelInfo) -> int:
    """How many of the image's bands, from the first, the model sees; the others are resized.

    A model of as many channels as the image has bands sees them all, alpha or not.
    """
    return image.bands if image.bands == model.channels else image.colours


def check_bands(image: ImageInfo, model: ModelInfo) -> None:
    """Refuse a model that cannot work on the image's bands.

    Raises:
        InputError: it has neither as many channels as the image has bands, nor are these grey or
            RGB and it has 1 channel or 3.
    """
    if model.channels in (image.bands, image.colours):
        return
    if image.is_picture and model.channels in (1, 3):
        return
    if model.channels in (1, 3):
        wanted = "grey or RGB"
        remedy = f"use a model of {image.colours} channels, or save the bands you want as"
    else:
        wanted = f"{model.channels} bands"
        remedy = "use another model, or an image of"
    raise InputError(
        f"{image.path} has {image.bands} bands ({image.kind}), and model {model.name} of "
        f"{model.channels} channels takes only {wanted}: {remedy} {wanted}."
    )


def find_black_and_white(
    settings: Settings, image: ImageInfo, model: ModelInfo
) -> tuple[float, float]:
    """The pixel values that are black and white to the model.

    Raises:
        SettingsError: the image's type does not hold them, or black is not below white.
    """
    found = []
    lowest, highest = image.limits
    for name, asked, told, usual in (
        ("black", settings.black, model.black, lowest),
        ("white", settings.white, model.white, highest),
    ):
        value = next(v for v in (asked, told, usual) if v is not None)
        if not image.is_float and not lowest <= value <= highest:
            limit = f"{image.path} holds {lowest} to {highest} ({image.dtype})"
            if asked is not None:
                raise SettingsError(
                    f"--{name} {value:g} is not possible: {limit}; use another, or leave --{name} out."
                )
            raise SettingsError(
                f"{name} is {value:g} by the metadata of model {model.name}, and {limit}: give the "
                f"pixel value that is {name} with --{name}."
            )
        found.append(value)
    black, white = found
    # float32 must tell a thousand values apart between them.
    if not white - black >= 1e-3 * max(abs(black), abs(white)) or white - black < 1e-30:
        raise SettingsError(
            f"black is {black:g} and white is {white:g}: white must be the larger pixel value, and "
            "well apart; give both, --black and --white."
        )
    return black, white
