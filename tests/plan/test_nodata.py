"""No-data, sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.alpha_fill import fill
from srpipe.plan.nodata import NoData, converted_value, keep_no_data, read_value

DTYPES = ["uint8", "uint16", "int16", "float32"]


@given(
    dtype=st.sampled_from(DTYPES),
    bands=st.integers(1, 5),
    together=st.sampled_from([0, 1, 3]),
    alpha=st.booleans(),
    value=st.sampled_from([0, 3, 127, -5, None]),
    scale=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_samples_are_empty_where_their_source_is(
    dtype: str, bands: int, together: int, alpha: bool, value: int | None, scale: int, seed: int
) -> None:
    if value == -5 and dtype.startswith("u"):
        value = 5
    together = min(together, bands - alpha) if bands - alpha >= together else 0
    rule = NoData(
        value=value, together=together, alpha=bands - 1 if alpha else None, dtype=dtype,
    )  # type: ignore[arg-type]  # fmt: skip
    rng = np.random.default_rng(seed)
    near = value or 0
    source = rng.choice([near, near + 1, near + 2], (6, 5, bands), p=[0.6, 0.2, 0.2]).astype(dtype)
    result = rng.choice([near, near + 1], (6 * scale, 5 * scale, bands)).astype(dtype)
    if dtype == "float32":
        source[rng.random(source.shape) < 0.1] = np.nan
        source[rng.random(source.shape) < 0.1] = np.inf
    before = result.copy()
    assert keep_no_data(result, source, scale, rule, rule)
    for (y, x, band), sample in np.ndenumerate(result):
        pixel = source[y // scale, x // scale]
        colors = range(bands) if band < together else [band]
        has_value = value is not None and all(
            pixel[i] == value for i in range(together) if i in colors
        )
        if band >= together:
            has_value = value is not None and pixel[band] == value
        if rule.alpha == band and (value is None or value >= 0):
            has_value = False
        if has_value or not np.isfinite(pixel[band]):
            assert np.array_equal(sample, pixel[band], equal_nan=True)
            continue
        group = before[y, x, :together] if band < together else before[y, x, band]
        taken = value is not None and (group == value).all()
        if rule.alpha == band and (value is None or value >= 0):
            taken = False
        if taken:
            assert sample != value
            assert abs(float(sample) - value) <= 1
        else:
            assert sample == before[y, x, band]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0, "uint8", 1), (255, "uint8", 254), (128, "uint8", 127), (-32768, "int16", -32767),
        (-9999, "int16", -10000), (-9999, "float32", -9998.9990234375), (0, "float32", 1.4e-45),
        (-3.4028234663852886e38, "float32", -3.4028232635611926e38),
    ],
)  # fmt: skip
def test_valid_samples_go_one_step_aside(value: float, dtype: str, expected: float) -> None:
    rule = NoData(value=value, together=0, alpha=None, dtype=dtype)  # type: ignore[arg-type]
    assert rule.beside == pytest.approx(expected, rel=1e-9)
    pixels = np.full((1, 1, 1), value, dtype)
    assert keep_no_data(pixels, np.full((1, 1, 1), 5, dtype), 1, rule, rule)
    assert pixels[0, 0, 0] == np.array(rule.beside).astype(dtype) != value


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (None, "uint8", None), (math.nan, "float32", None), (-9999, "uint16", None),
        (256, "uint8", None), (0.5, "int16", None), (0.1, "float32", float(np.float32(0.1))),
        (1e300, "float32", None), (-math.inf, "float32", None), (65535, "uint16", 65535),
        (math.inf, "uint8", None),
    ],
)  # fmt: skip
def test_values_of_a_type(value: float | None, dtype: str, expected: float | None) -> None:
    assert read_value(value, dtype) == expected  # type: ignore[arg-type]


def test_values_of_another_type() -> None:
    assert converted_value(7, "uint16", "uint8") == 7
    assert converted_value(65535, "uint16", "uint8") == 255
    assert converted_value(-9999, "float32", "uint16") == 0
    assert converted_value(255, "uint8", "uint16") == 255


@pytest.mark.parametrize("dtype", DTYPES)
def test_holes_are_filled_band_by_band(dtype: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (40, 30, 3)).astype(dtype)
    holes = rng.random(pixels.shape) < 0.3
    holes[..., 2] = True
    result = fill(pixels, holes, 3, whole=7)
    assert np.array_equal(result[~holes], pixels[~holes])
    assert (result[..., 2] == 7).all()
    for y, x, band in np.argwhere(holes[..., :2]):
        for r in (1, 2, 4, 8, 16):
            part = np.s_[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1, band]
            if (~holes[part]).any():
                mean = pixels[part][~holes[part]].astype(float).mean()
                assert abs(result[y, x, band] - mean) <= (1e-4 if dtype == "float32" else 0.5001)
                break


def test_what_is_far_from_all_data_is_their_mean() -> None:
    pixels = np.full((90, 90, 1), -9999, np.float32)
    pixels[:10] = 100
    pixels[10:20] = 200
    result = fill(pixels, pixels[..., 0] == -9999, 1, whole=0)
    assert result[19 + 17, 40, 0] == 150
    assert result[35, 40, 0] == 200
    assert result.min() == 100
