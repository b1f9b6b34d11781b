"""Short forms of the campaigns that try to break srpipe."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from torturing.decode import odd_tiffs, picture_cases, tiff_cases
from torturing.decode import run_cases as decode_cases
from torturing.fuzz import make_cases, run_cases
from torturing.kill import run_campaign


@pytest.mark.parametrize("kinds", [("tif", "zarr"), ("folder", "slabs")], ids=" and ".join)
def test_kills(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """A finding is an error that names the job."""
    tally = run_campaign(6, 2, seed=3, folder=tmp_path, elsewhere=None, kinds=kinds)
    assert tally.kills.total() >= 6
    assert len({name for _, name in tally.kills}) >= 3
    assert tally.resumes >= 1


def test_damaged_images_and_models(tmp_path: Path) -> None:
    findings = run_cases(make_cases(tmp_path, 60, seed=5), tmp_path, keep=None)
    assert not findings.bad
    assert sum(findings.outcomes.values()) == 60
    outcomes = {outcome for _, outcome in findings.outcomes}
    assert {"right", "InputError", "ModelError", "ReadError"} <= outcomes


def test_every_layout_is_read_right_or_refused(tmp_path: Path) -> None:
    """Damage is an error, or told where gaps are filled; never a wrong pixel in silence."""
    cases = itertools.chain(
        odd_tiffs(tmp_path), picture_cases(tmp_path, seed=1), tiff_cases(tmp_path, 0.008, seed=1)
    )
    findings = decode_cases(cases)
    assert not findings.bad
    outcomes = {outcome for _, outcome in findings.outcomes}
    assert outcomes == {"read", "refused", "filled"}
