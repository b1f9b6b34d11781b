from __future__ import annotations

import numpy as np
import pytest

from srpipe.runtime.seen_tiles import SeenTiles


def noise(seed: int, shape: tuple[int, ...] = (9, 7, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 1), (9, 7, 3), (32, 32, 4)])
def test_the_same_pixels_are_found_and_others_are_not(dtype: str, shape: tuple[int, ...]) -> None:
    seen = SeenTiles(shape, dtype)
    rng = np.random.default_rng(5)
    tiles = [rng.integers(0, 256, shape).astype(dtype) for _ in range(8)]
    for _ in range(3):  # one value changed at any place
        other = tiles[0].copy()
        other.reshape(-1)[rng.integers(other.size)] ^= 1
        tiles.append(other)
    for i, pixels in enumerate(tiles):
        found = seen.find(i, pixels)
        equal = [j for j in range(i) if np.array_equal(tiles[j], pixels)]
        assert found in (equal or [None])
    for i in reversed(range(8)):
        found = seen.find(100 + i, tiles[i].copy())
        assert found is not None
        assert np.array_equal(tiles[found], tiles[i])


def test_pixels_are_copied() -> None:
    seen = SeenTiles((9, 7, 3), "uint8")
    pixels = noise(0)
    assert seen.find(0, pixels) is None
    pixels[...] = noise(1)
    assert seen.find(1, pixels) is None
    assert seen.find(2, noise(0)) == 0


def test_what_is_kept_is_bounded_and_what_repeats_outlives_what_does_not() -> None:
    seen = SeenTiles((9, 7, 3), "uint8")
    seen.find(0, noise(0))
    assert seen.find(1, noise(0)) == 0
    for i in range(1, 500):
        assert seen.find(i, noise(i)) is None
    assert seen.find(500, noise(0)) == 0
    assert seen.find(501, noise(1)) is None  # forgotten, but its hash is known
    for i in range(1000, 1500):
        seen.find(i, noise(i))
    assert seen.find(502, noise(1)) == 501


def test_large_tiles_are_few() -> None:
    seen = SeenTiles((2048, 2048, 3), "uint8")
    tiles = [np.full((2048, 2048, 3), value, np.uint8) for value in range(1, 5)]
    for i, pixels in enumerate(tiles):
        assert seen.find(i, pixels) is None
    assert seen.find(4, tiles[0]) is None
    assert seen.find(5, tiles[3]) == 3
