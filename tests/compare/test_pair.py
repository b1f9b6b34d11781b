"""Sizes and crops of two pictures that belong together."""

from __future__ import annotations

import numpy as np
import pytest

from srpipe.compare.pair import check_crop, choose_crops, make_pair, parse_crop
from srpipe.errors import InputError, SettingsError
from srpipe.plan.geometry import Rect, Size


@pytest.mark.parametrize(
    ("before", "after", "scale"),
    [
        (Size(300, 200), Size(600, 400), 2.0),
        (Size(300, 200), Size(300, 200), 1.0),
        (Size(333, 201), Size(500, 302), 500 / 333),  # 1.5, each side rounded for itself
    ],
)
def test_an_enlargement_is_a_pair(before: Size, after: Size, scale: float) -> None:
    assert make_pair(before, after, "a", "b").scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("before", "after"), [(Size(300, 200), Size(600, 430)), (Size(600, 400), Size(300, 200))]
)
def test_others_are_refused_by_name(before: Size, after: Size) -> None:
    with pytest.raises(InputError, match=r"late\.png .* is no enlargement of early\.png"):
        make_pair(before, after, "early.png", "late.png")


def test_a_crop_lies_at_the_same_place_after() -> None:
    pair = make_pair(Size(300, 200), Size(900, 600), "a", "b")
    assert pair.crop_after(Rect(10, 20, 30, 40)) == Rect(30, 60, 90, 120)
    uneven = make_pair(Size(333, 201), Size(500, 302), "a", "b")
    whole = uneven.crop_after(Rect(0, 0, 333, 201))
    assert whole == Rect(0, 0, 500, 302)


def test_crops_are_read_and_checked() -> None:
    assert parse_crop("1,2,30,40") == Rect(1, 2, 30, 40)
    for wrong in ("1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,0,5"):
        with pytest.raises(SettingsError, match="crop"):
            parse_crop(wrong)
    check_crop(Rect(260, 160, 40, 40), Size(300, 200))
    with pytest.raises(SettingsError, match="not inside the picture of 300x200"):
        check_crop(Rect(261, 160, 40, 40), Size(300, 200))


def test_detailed_places_are_chosen_apart() -> None:
    detail = np.zeros((20, 30))
    detail[3, 4], detail[3, 5], detail[15, 25] = 9, 8, 7
    crops = choose_crops(detail, Size(600, 400), 40, 2)
    assert crops == [Rect(70, 50, 40, 40), Rect(490, 290, 40, 40)]


def test_a_small_picture_is_one_crop() -> None:
    assert choose_crops(np.ones((5, 7)), Size(7, 5), 128, 1) == [Rect(0, 0, 7, 5)]
