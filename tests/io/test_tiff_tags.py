from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from srpipe.io.tiff_tags import has_separate_planes
from tests.tiff_files import write_band_tiff


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_are_told_apart(tmp_path: Path, big: bool, order: str) -> None:
    pixels = np.zeros((3, 4, 5), np.uint16)
    for separate in (False, True):
        path = write_band_tiff(tmp_path / "a.tif", pixels, separate=separate, big=big, order=order)
        assert has_separate_planes(path) == separate


@pytest.mark.parametrize("big", [False, True])
def test_damaged_files_are_left_to_libvips(tmp_path: Path, big: bool) -> None:
    pixels = np.zeros((3, 4, 5), np.uint8)
    whole = write_band_tiff(tmp_path / "a.tif", pixels, separate=True, big=big).read_bytes()
    broken = tmp_path / "broken.tif"
    for length in range(0, len(whole) - 50, 3):
        broken.write_bytes(whole[:length])
        assert not has_separate_planes(broken)
    chance = random.Random(0)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
        broken.write_bytes(data)
        has_separate_planes(broken)  # says something, and raises nothing
