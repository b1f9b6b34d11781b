from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.grid import plan_axis
from srpipe.plan.window import axis_weights, default_trim_px, ramp_px
from srpipe.settings import Blend
from tests.naive import covering
from tests.plan.test_grid import axis_requests

scales = st.integers(1, 4)
blends = st.sampled_from(get_args(Blend))
trims = st.integers(0, 40)


@given(axis_requests(), blends, trims, scales)
def test_weights_sum_to_one(request: dict[str, int], blend: Blend, trim: int, scale: int) -> None:
    axis = plan_axis(**request)
    total = np.zeros(axis.length_px * scale)
    for i in range(axis.n_tiles):
        weights = axis_weights(axis, i, blend, trim, scale)
        assert weights.dtype == np.float32
        assert len(weights) == axis.covered_px(i) * scale
        assert weights.min() >= 0
        assert weights.max() <= 1
        begin = axis.starts_px[i] * scale
        total[begin : begin + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=2e-7)


@given(axis_requests(), st.sampled_from(["feather", "crop"]), trims, scales)
def test_image_borders_never_ramp(
    request: dict[str, int], blend: Blend, trim: int, scale: int
) -> None:
    axis = plan_axis(**request)
    assert axis_weights(axis, 0, blend, trim, scale)[0] == 1
    assert axis_weights(axis, axis.n_tiles - 1, blend, trim, scale)[-1] == 1


@given(axis_requests(), scales)
def test_mean_is_one_over_the_number_of_tiles(request: dict[str, int], scale: int) -> None:
    axis = plan_axis(**request)
    share = np.repeat(1 / covering(axis).sum(axis=0), scale)
    for i in range(axis.n_tiles):
        weights = axis_weights(axis, i, "mean", 0, scale)
        begin = axis.starts_px[i] * scale
        np.testing.assert_allclose(weights, share[begin : begin + len(weights)], rtol=1e-6)


@given(axis_requests(), st.integers(1, 20), scales)
def test_feather_leaves_out_what_lacks_context(
    request: dict[str, int], radius: int, scale: int
) -> None:
    axis = plan_axis(**request)
    trim = default_trim_px(axis.overlap_px, radius)
    exact = 2 * radius <= axis.overlap_px
    for i in range(1, axis.n_tiles):
        weights = axis_weights(axis, i, "feather", trim, scale)
        if exact:
            assert not weights[: radius * scale].any()
        start, stop = ramp_px(axis, i - 1, "feather", trim, scale)
        assert start <= stop


def test_ramp_is_a_straight_line_between_neighbours() -> None:
    axis = plan_axis(180, 100, 20, 1, least_px=100)
    left = axis_weights(axis, 0, "feather", 5, 1)
    right = axis_weights(axis, 1, "feather", 5, 1)
    np.testing.assert_allclose(right[5:15], (np.arange(10) + 0.5) / 10)
    np.testing.assert_allclose(left[80:], 1 - right[:20], atol=1e-7)


def test_crop_cuts_in_the_middle() -> None:
    axis = plan_axis(180, 100, 20, 1, least_px=100)
    assert axis_weights(axis, 0, "crop", 0, 2).sum() == 180
    assert axis_weights(axis, 1, "crop", 0, 2).sum() == 180


@pytest.mark.parametrize(
    ("overlap", "radius", "trim"), [(16, 6, 6), (12, 6, 6), (11, 6, 2), (32, None, 8), (0, 0, 0)]
)
def test_default_trim(overlap: int, radius: int | None, trim: int) -> None:
    assert default_trim_px(overlap, radius) == trim
