"""Sessions timed in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

import srpipe
from srpipe.plan.geometry import Size
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.stopwatch import Stopwatch
from tests.onnx_models import conv_model

ONE = Arrangement("cpu", 1, 1, 1)


def test_room_is_made_before_a_session_is_loaded(
    x2_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = srpipe.probe_model(x2_model)
    asked = []
    ask = Stopwatch._ask

    def note(self: Stopwatch, workers: int, **request: object) -> object:
        asked.append((request["do"], request["name"]))
        return ask(self, workers, **request)

    monkeypatch.setattr(Stopwatch, "_ask", note)
    small, large = (Candidate(ONE, Size(px, px), 1) for px in (256, 512))
    with Stopwatch(info, most_bytes=1) as timer:
        timer.load(small)
        timer.load(large)
    assert asked == [("load", str(small)), ("drop", str(small)), ("load", str(large))]


def test_other_devices_have_a_file_of_their_own(tmp_path: Path, x2_model: Path) -> None:
    info = srpipe.probe_model(x2_model)
    other = conv_model(tmp_path / "other.onnx", features=3)
    with Stopwatch(info, 2**62, str(tmp_path / "missing.onnx")) as timer:
        timer.load(Candidate(ONE, Size(64, 64), 1))
    with Stopwatch(info, 2**62) as timer:
        assert timer.agrees(ONE, Size(64, 64))
    with Stopwatch(srpipe.probe_model(other), 2**62, info.path) as timer:
        # The processor's file is what a job on it runs.
        assert timer.agrees(ONE, Size(64, 64))


def test_each_worker_has_its_device(x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from srpipe.tune import stopwatch

    info = srpipe.probe_model(x2_model)
    sent = []
    send = stopwatch._Process.send

    def note(self: stopwatch._Process, request: dict[str, object]) -> None:
        sent.append(request["device"])
        send(self, request | {"device": "cpu"})

    monkeypatch.setattr(stopwatch._Process, "send", note)
    arrangement = Arrangement("cuda:0,cuda:1", 3, 1, 1)
    with Stopwatch(info, 2**62) as timer:
        timer.load(Candidate(arrangement, Size(64, 64), 1))
    assert sent == ["cuda:0", "cuda:1", "cuda:0"]
