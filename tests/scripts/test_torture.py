"""Short forms of the campaigns that try to break srpipe."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from torturing.fuzz import make_cases, run_cases
from torturing.kill import KINDS, run_campaign


def test_kills(tmp_path: Path) -> None:
    """A finding is an error that names the job."""
    tally = run_campaign(kills=4, jobs=1, seed=3, folder=tmp_path, elsewhere=None)
    assert sum(tally.kills.values()) >= 4
    assert {kind for kind, _ in tally.kills} <= set(KINDS)
    assert len({kind for kind, _ in tally.kills}) >= 2
    assert tally.resumes >= 1


def test_damaged_images_and_models(tmp_path: Path) -> None:
    findings = run_cases(make_cases(tmp_path, 60, seed=5), tmp_path, keep=None)
    assert not findings.bad
    assert sum(findings.outcomes.values()) == 60
    outcomes = {outcome for _, outcome in findings.outcomes}
    assert {"success", "InputError", "ModelError", "ReadError"} <= outcomes
