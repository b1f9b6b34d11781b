"""Plans survive JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from srpipe.plan.job import Plan
from srpipe.plan.plain import rebuild
from tests.factories import make_test_plan


@pytest.mark.parametrize("options", [
    {}, {"region": (3, 4, 100, 90), "edges": "wrap"}, {"depth": 16, "outscale": 1.5},
    {"output": "a.dzi"}, {"model": {"metadata": {"a": "b"}, "halo_px": 3}},
], ids=str)  # fmt: skip
def test_a_plan_is_what_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    plan = make_test_plan(tmp_path, **options)
    plain = json.loads(json.dumps(asdict(plan), default=list))
    again = rebuild(Plan, plain)
    assert again == plan
    assert hash(again.grid.y.starts_px) == hash(plan.grid.y.starts_px)


@pytest.mark.parametrize(("name", "value"), [
    ("blend", "fold"), ("workers", "two"), ("trim_px", [1]), ("grid", None), ("image", {}),
])  # fmt: skip
def test_what_is_no_plan_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    plain = json.loads(json.dumps(asdict(make_test_plan(tmp_path)), default=list))
    with pytest.raises((KeyError, TypeError, ValueError)):
        rebuild(Plan, plain | {name: value})
