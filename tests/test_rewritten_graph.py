"""Runs with a rewritten graph: the same picture, the same bytes from every engine, and resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import srpipe
from srpipe.api import prepare
from srpipe.io.job_record import read_plan
from srpipe.models.rewrite import choose, verdict
from srpipe.settings import Settings
from srpipe.stop import StopRequest
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.models.nets import Net


class Job:
    """A request of 20 tiles with a model whose graph is rewritten."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.source = write_pixels(folder / "in.tif", photograph_pixels(200, 260))
        self.output, self.job_dir = folder / "out.tif", folder / "out.tif.srpipe"

    @property
    def arguments(self) -> dict[str, Any]:
        return {"model": str(self.model), "tile_size": 64, "overlap": 8}

    def run(self, **changes: Any) -> bytes:
        srpipe.enhance(self.source, self.output, **(self.arguments | changes))
        content = self.output.read_bytes()
        self.output.unlink()
        return content

    def interrupt(self, **changes: Any) -> None:
        stop = StopRequest()

        def watch(event: Any) -> None:
            if event.tiles_done >= 5 and not stop.times:
                stop.request()

        with pytest.raises(srpipe.Interrupted):
            srpipe.enhance(
                self.source, self.output, stop=stop, progress=watch, **(self.arguments | changes)
            )

    @property
    def rewrites(self) -> tuple[str, ...]:
        return prepare(str(self.source), str(self.output), Settings(**self.arguments)).rewrites


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    net = Net()
    x, slopes = net.conv("input", 3, 16), np.linspace(-0.5, 1.5, 16).reshape(16, 1, 1)
    x = net.add("PRelu", x, net.weight(slopes))
    change = net.add("Mul", net.conv(x, 16, 3), net.weight(0.1))
    onnx.save(net.model(net.add("Add", "input", change)), tmp_path / "m.onnx")
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choose, "LEAST_GAIN", 0.0)  # a small net may not be faster
    monkeypatch.setattr(verdict, "WORTHWHILE_S", 0.0)
    monkeypatch.setattr(choose, "ROUNDS", 1)
    return Job(tmp_path, tmp_path / "m.onnx")


def test_the_picture_is_the_same_from_every_engine(job: Job, tmp_path: Path) -> None:
    plain = job.run(engine="serial", rewrite=False)
    serial = job.run(engine="serial")
    assert job.rewrites == ("prelu",)
    assert job.run(engine="local", workers=2, runners=2, threads=2) == serial
    assert job.run(engine="serial", transfer="integer") == serial
    pixels = []
    for name, content in (("plain.tif", plain), ("serial.tif", serial)):
        (tmp_path / name).write_bytes(content)
        pixels.append(read_pixels(tmp_path / name).astype(int))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize(
    ("engine", "lost"),
    [("serial", "nothing"), ("serial", "graph"), ("serial", "verdict"), ("local", "all")],
)
def test_a_job_goes_on_with_its_graph(
    job: Job, engine: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = job.run(engine="serial")
    job.interrupt(engine=engine)
    assert "prelu rewritten" in read_plan(job.job_dir)["graph"]
    for file in (job.folder / "cache" / "graphs").iterdir():
        if lost == "all" or file.suffix == {"graph": ".onnx", "verdict": ".json"}.get(lost):
            file.unlink()
    monkeypatch.setattr(choose, "LEAST_GAIN", float("inf"))  # would be chosen otherwise now
    assert job.run(engine=engine) == undisturbed


def test_a_job_begun_as_it_is_goes_on_so(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = job.run(engine="serial", rewrite=False)
    with monkeypatch.context() as patch:
        patch.setattr(verdict, "WORTHWHILE_S", float("inf"))
        job.interrupt(engine="serial")
    assert "graph" not in read_plan(job.job_dir)
    assert job.run(engine="serial") == plain


def test_a_job_with_a_rewritten_graph_does_not_go_on_without(job: Job) -> None:
    job.interrupt(engine="serial")
    with pytest.raises(srpipe.JobError, match="graph: with prelu rewritten"):
        job.run(engine="serial", rewrite=False)


def test_few_tiles_pay_for_nothing(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    small = write_pixels(job.folder / "small.tif", photograph_pixels(40, 50))
    with caplog.at_level(logging.WARNING):
        plan = prepare(str(small), str(job.output), Settings(**job.arguments))
    assert plan.rewrites == ()
    assert not caplog.messages
    assert job.rewrites == ("prelu",)  # found out for a larger one
    assert prepare(str(small), str(job.output), Settings(**job.arguments)).rewrites == ("prelu",)
