"""Entries of the model caches that are damaged or made up: each is dropped with one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srpipe.io.model_probe import probe_model
from srpipe.models.rewrite.verdict import AS_IT_IS, find_graph
from srpipe.models.speed import rough_speed
from srpipe.plan.geometry import Size
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.search import Row
from srpipe.tune.table import Table, load_table, save_table
from tests.onnx_models import conv_model

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1.5, float("nan"), "text", "\0", [], [[]], {}, {"a": []}, [None],
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def poisoned(value: Any) -> Iterator[Any]:
    """A value with each part in turn replaced by strange things, or gone."""
    yield from STRANGE
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value)
    elif isinstance(value, list):
        parts = list(range(len(value)))
    for part in parts:
        for other in poisoned(value[part]):
            changed = value.copy()
            changed[part] = other
            yield changed
        if isinstance(value, dict):
            yield {key: value[key] for key in value if key != part}


def test_known_models(tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = conv_model(tmp_path / "m.onnx", metadata={"name": "mine"})
    probed = probe_model(path)
    (entry,) = (own_cache / "models").iterdir()
    whole = json.loads(entry.read_text())
    # Probing anew costs a process each time: entries of one kind are enough to see it happen.
    from srpipe.io import known_models

    for changed in poisoned(whole):
        if isinstance(changed, dict) and {"facts", "props"} <= changed.keys():
            signed = json.dumps([changed["facts"], changed["props"]], sort_keys=True)
            changed["digest"] = hashlib.sha256(signed.encode()).hexdigest()
        if changed == whole:
            continue
        entry.write_text(json.dumps(changed))
        caplog.clear()
        known = known_models.KnownModel(str(path), "cpu", None, None).read()
        if known is None:
            assert caplog.messages == [f"{entry} is damaged: it is dropped, and found out again."]
            assert not entry.exists()
        else:
            assert not caplog.messages
            assert known.scale in range(1, 9)
    entry.write_text("[" * 100_000)
    caplog.clear()
    assert probe_model(path) == probed
    assert caplog.messages == [f"{entry} is damaged: it is dropped, and found out again."]
    assert json.loads(entry.read_text()) == whole


def test_tables(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    candidate = Candidate(Arrangement("cpu", 1, 2, 1), Size(192, 192), 4)
    table = Table({candidate: Row(candidate, 12345, [1.5, 1.25], False)}, {"": None, "x": 7})
    save_table("t", table)
    entry = own_cache / "tuned" / "t.json"
    for changed in poisoned(json.loads(entry.read_text())):
        entry.write_text(json.dumps(changed))
        caplog.clear()
        found = load_table("t")
        for row in found.rows.values():
            assert row.mp_s > 0
            assert row.candidate.pixels > 0
        assert len(caplog.messages) == (not entry.exists())


def test_verdicts_and_speeds(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", scale=1))
    assert find_graph(info, 1e-6) == AS_IT_IS
    (verdict,) = (own_cache / "graphs").iterdir()
    (speed,) = (own_cache / "speeds").iterdir()
    kept = {"rewrites": ["prelu"], "sha256": "0" * 64}
    for changed in (*poisoned(json.loads(verdict.read_text())), *poisoned(kept)):
        verdict.write_text(json.dumps(changed))
        caplog.clear()
        assert find_graph(info, 0) == AS_IT_IS
        assert len(caplog.messages) == (not verdict.exists())
    fast = rough_speed(info, "cpu", 1)
    assert fast
    for changed in STRANGE[:4]:
        speed.write_text(json.dumps(changed))
        assert (rough_speed(info, "cpu", 1) or 0) > 0
