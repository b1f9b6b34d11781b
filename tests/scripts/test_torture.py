"""Short forms of the campaigns that try to break srpipe."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from torturing.decode import odd_tiffs, picture_cases, tiff_cases
from torturing.decode import run_cases as decode_cases
from torturing.fuzz import make_cases, run_cases
from torturing.judging import decode, judge_image
from torturing.kill import run_campaign
from torturing.mutate import MUTATIONS, finding, mutated

from tests.conftest import photograph_pixels, write_pixels


@pytest.mark.parametrize("kinds", [("tif", "zarr"), ("folder", "slabs")], ids=" and ".join)
def test_kills(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """A finding is an error that names the job."""
    tally = run_campaign(4, 2, seed=3, folder=tmp_path, elsewhere=None, kinds=kinds)
    assert tally.kills.total() >= 4
    assert len({name for _, name in tally.kills}) >= 3
    assert tally.resumes >= 1


def test_damaged_images_and_models(tmp_path: Path) -> None:
    findings = run_cases(make_cases(tmp_path, 60, seed=5), tmp_path, keep=None)
    assert not findings.bad
    assert sum(findings.outcomes.values()) == 60
    outcomes = {outcome for _, outcome in findings.outcomes}
    assert {"right", "InputError", "ModelError", "ReadError"} <= outcomes


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.webp"])
def test_a_wrong_pixel_is_found(tmp_path: Path, name: str) -> None:
    pixels = photograph_pixels(40, 60)
    image = write_pixels(tmp_path / name, pixels)
    seen = np.asarray(decode(image)).copy()
    output = write_pixels(tmp_path / "out.tif", seen)
    assert judge_image(image, image, output) == "right"
    seen[7, 9, 1] ^= 0x10
    write_pixels(output, seen)
    assert judge_image(image, image, output).startswith("1 pixels wrong, the first at 9,7: ")
    image.write_bytes(image.read_bytes()[:-500])
    damaged = tmp_path / f"damaged{image.suffix}"
    image.rename(damaged)
    write_pixels(image, pixels)
    write_pixels(output, seen)
    assert judge_image(damaged, image, output) == "unjudged"
    seen[32:] = 0
    write_pixels(output, seen)
    assert "filled where the input cannot be read" in judge_image(damaged, image, output)


def test_every_mutation_can_be_made(tmp_path: Path) -> None:
    """What they replace is still there; ``scripts/torture mutate`` tries them."""
    for number, mutation in enumerate(MUTATIONS):
        mutated(mutation, tmp_path / str(number))
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 18


@pytest.mark.parametrize("name", ["no fsync", "no msync"])
def test_a_power_cut_finds_what_is_not_on_the_disk(tmp_path: Path, name: str) -> None:
    (mutation,) = (mutation for mutation in MUTATIONS if mutation.name == name)
    assert finding(mutated(mutation, tmp_path / "copy"), mutation.campaign)


def test_every_layout_is_read_right_or_refused(tmp_path: Path) -> None:
    """Damage is an error, or told where gaps are filled; never a wrong pixel in silence."""
    cases = itertools.chain(
        odd_tiffs(tmp_path), picture_cases(tmp_path, seed=1), tiff_cases(tmp_path, 0.008, seed=1)
    )
    findings = decode_cases(cases)
    assert not findings.bad
    outcomes = {outcome for _, outcome in findings.outcomes}
    assert outcomes == {"read", "refused", "filled"}
