from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from srpipe.settings import Settings
from srpipe.tune.budget import DEFAULT_SHARE, job_budget_bytes, pipeline_bytes
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.choice import Choice, as_asked, choose, consider
from srpipe.tune.search import Row
from tests.factories import make_test_plan

MB = 1_000_000


def row(
    device: str = "cpu", workers: int = 1, runners: int = 2, tile_px: int = 256, mp_s: float = 1.0
) -> Row:
    arrangement = Arrangement(device, workers, runners, 1)
    return Row(Candidate(arrangement, Size(tile_px, tile_px), 1), 10 * MB, [mp_s])


@st.composite
def options(draw: st.DrawFn) -> Choice:
    plan = draw(st.sampled_from([None]))
    device = draw(st.sampled_from(["cpu", "openvino"]))
    seconds = draw(st.floats(1, 100))
    return Choice(row(device), plan, seconds, draw(st.integers(1, 1000)))  # type: ignore[arg-type]


@given(found=st.lists(options(), max_size=8), budget=st.none() | st.integers(0, 1000))
def test_the_fastest_that_fits(found: list[Choice], budget: int | None) -> None:
    fitting = [c for c in found if budget is None or c.job_bytes <= budget]
    choice = choose(found, budget)
    assert (choice is None) == (not fitting)
    if choice is None:
        return
    assert choice in fitting
    device = choice.row.candidate.arrangement.device
    for other in fitting:
        same_kind = other.row.candidate.arrangement.device == device
        # Nearly as fast, and another provider has to be faster by more than noise.
        assert choice.seconds <= other.seconds * (1.03 if same_kind else 1.06)
        if device != "cpu" and not same_kind:
            assert choice.seconds < other.seconds


def test_a_job_takes_its_slots_its_rows_and_its_sessions(tmp_path: Path) -> None:
    large = {"size": Size(8000, 6000)}

    def plan_for(settings: Settings, device: str) -> Plan:
        names = ("tile_size", "batch_size", "workers", "threads", "runners", "overlap")
        asked = {name: getattr(settings, name) for name in names}
        return make_test_plan(tmp_path, image=large, device=device, **asked)

    one, two = (consider(row(workers=n), Settings(), plan_for) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert (one.plan.workers, one.plan.runners, one.plan.batch_size) == (1, 2, 1)
    assert one.job_bytes == pipeline_bytes(one.plan) + 10 * MB
    assert two.job_bytes > one.job_bytes + 10 * MB
    # Everything the model computes, at its speed.
    assert one.seconds >= one.plan.grid.model_pixels / 1e6
    assert consider(row(tile_px=64), Settings(overlap=40), plan_for) is None
    # A single tile takes one run at a time.
    assert consider(row(tile_px=8192), Settings(), plan_for) is None


def test_explicit_settings_restrict() -> None:
    candidate = row().candidate
    for fits in ({}, {"tile_size": 256}, {"threads": 2}, {"threads": 3}, {"runners": 2}):
        assert as_asked(candidate, Settings(**fits), ("cpu",)), fits
    for other in (
        {"tile_size": 128},
        {"batch_size": 2},
        {"workers": 2},
        {"threads": 4},
        {"threads": 1},
    ):
        assert not as_asked(candidate, Settings(**other), ("cpu",)), other
    assert not as_asked(candidate, Settings(), ("cuda:0",))


def test_the_budget_is_a_share_of_what_is_free() -> None:
    usual = job_budget_bytes(None)
    assert usual is not None
    everything = job_budget_bytes(2**60)
    assert everything is not None
    assert abs(usual / everything - DEFAULT_SHARE) < 0.1
    assert job_budget_bytes(1000) == 1000
