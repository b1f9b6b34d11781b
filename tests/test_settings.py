"""What settings are read from."""

from __future__ import annotations

import pytest

from srpipe.errors import SettingsError
from srpipe.settings import Settings, parse_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4G", 4 * 10**9), ("1.5GiB", 3 * 2**29), ("500 mb", 5 * 10**8), ("123", 123)],
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "1.2.3", "0", "4i"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match="must be a size such as 4G"):
        parse_bytes(text)


@pytest.mark.parametrize("outscale", [0, -1, float("nan"), float("inf"), "large", 1e9])
def test_what_is_no_factor(outscale: float) -> None:
    with pytest.raises(SettingsError, match=r"outscale is .* a number above 0"):
        Settings(outscale=outscale)


@pytest.mark.parametrize("depth", [0, 1, 32, "8", 12.5])
def test_what_is_no_depth(depth: int) -> None:
    with pytest.raises(SettingsError, match=r"depth is .*: it must be 8 or 16 bits"):
        Settings(depth=depth)
