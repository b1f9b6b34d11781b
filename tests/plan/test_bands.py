"""Which images a model works on, and what the caller may say of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srpipe.errors import InputError, SettingsError
from tests.factories import make_test_plan

SATELLITE = {"bands": 4, "dtype": "uint16", "interpretation": "grey16"}


@pytest.mark.parametrize(
    ("channels", "image", "seen", "kept"),
    [
        (3, {"bands": 3}, 3, False),
        (3, {"bands": 4}, 3, True),  # alpha
        (3, {"bands": 1}, 1, False),
        (1, {"bands": 3}, 3, True),  # chroma
        (1, {"bands": 2}, 1, True),  # alpha
        (4, {"bands": 4}, 4, False),  # alpha is the model's own business
        (4, SATELLITE, 4, False),
        (2, {"bands": 2}, 2, False),
        (13, {"bands": 13}, 13, False),
        (3, {"bands": 3, "interpretation": "multiband"}, 3, False),
    ],
)
def test_what_a_model_sees(
    tmp_path: Path, channels: int, image: dict[str, Any], seen: int, kept: bool
) -> None:
    plan = make_test_plan(tmp_path, image=image, model={"channels": channels})
    assert (plan.colour.colours, plan.colour.needs_source) == (seen, kept)
    assert plan.slot_shapes.batch[1] == channels
    assert plan.slot_shapes.tile[2] == plan.image.bands


@pytest.mark.parametrize(
    ("channels", "image", "message"),
    [
        (3, SATELLITE, r"4 bands \(data, no alpha\).*3 channels.*a model of 4 channels"),
        (1, SATELLITE, r"takes only grey or RGB"),
        (3, {"bands": 4, "interpretation": "multiband"}, "data, no alpha"),
        (1, {"bands": 2, "interpretation": "multiband"}, "data, no alpha"),
        (4, {"bands": 3}, r"3 bands \(RGB\).*4 channels takes only 4 bands.*an image of 4 bands"),
        (5, SATELLITE, "an image of 5 bands"),
        (2, {"bands": 4}, r"RGB \+ alpha"),
    ],
)
def test_bands_that_a_model_cannot_work_on(
    tmp_path: Path, channels: int, image: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_test_plan(tmp_path, image=image, model={"channels": channels})
    assert str(caught.value).startswith("in.tif has ")


def test_white_is_asked_for_or_told_or_the_largest_value(tmp_path: Path) -> None:
    deep = {"dtype": "uint16"}
    told = {"white": 10_000}
    assert make_test_plan(tmp_path).white == 255
    assert make_test_plan(tmp_path, image=deep).white == 65_535
    assert make_test_plan(tmp_path, image=deep, model=told).white == 10_000
    plan = make_test_plan(tmp_path, image=deep, model=told, white=4095)
    assert (plan.white, plan.colour.white, plan.colour.highest) == (4095, 4095, 65_535)
    with pytest.raises(SettingsError, match=r"10000 by the metadata of model m.* 0 to 255"):
        make_test_plan(tmp_path, model=told)
    with pytest.raises(SettingsError, match="--white 256 is not possible"):
        make_test_plan(tmp_path, white=256)


def test_settings_stand_above_metadata(tmp_path: Path) -> None:
    told = {"bgr": True, "value_range": (0.0, 255.0)}
    assert make_test_plan(tmp_path, model=told).colour.bgr
    plan = make_test_plan(tmp_path, model=told, channel_order="rgb", value_range=(-1, 1))
    assert (plan.colour.bgr, plan.colour.value_range) == (False, (-1, 1))
    with pytest.raises(SettingsError, match="has not 3 channels but 4"):
        make_test_plan(tmp_path, image=SATELLITE, model={"channels": 4}, channel_order="bgr")
