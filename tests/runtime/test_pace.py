from __future__ import annotations

import pytest

from srpipe.runtime.pace import Pace


def told_s(tile_s: list[float]) -> list[float | None]:
    """What is told after every tile."""
    pace, elapsed_s, told = Pace(), 0.0, []
    for done, seconds in enumerate(tile_s, 1):
        elapsed_s += seconds
        told.append(pace.remaining_s(elapsed_s, done, len(tile_s) - done))
    return told


def test_an_even_pace_is_told_exactly() -> None:
    assert told_s([2.0] * 50) == pytest.approx([2.0 * left for left in reversed(range(50))])


@pytest.mark.parametrize("fast", [100, 900])
def test_tiles_that_repeat_at_the_beginning_are_soon_forgotten(fast: int) -> None:
    told = told_s([0.01] * fast + [1.0] * 300)
    for i in range(fast + 30, fast + 300):
        assert told[i] == pytest.approx(fast + 299 - i, rel=0.02)


def test_nothing_is_told_before_a_tile_is_done() -> None:
    assert Pace().remaining_s(3.0, 0, 10) is None


def test_moments_remembered_are_few() -> None:
    pace = Pace()
    for done in range(1, 20_000):
        pace.remaining_s(done / 7, done, 1)
    assert len(pace._moments) < 70
