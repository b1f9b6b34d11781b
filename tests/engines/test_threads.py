"""Stages in threads of one process: none outlives the run, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import srpipe
from srpipe.runtime.failures import failed
from srpipe.runtime.messages import Done, Failed, Instruction, Read
from srpipe.runtime.stage_threads import StageThreads
from srpipe.runtime.stages import STAGES
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S, is_running, output_of, wait_for_line, wait_until


def threads_of_runs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "srpipe" in thread.name]


class Slow:
    """A stage that is busy until it is told to give up."""

    runners = 2

    def __init__(self) -> None:
        self.given_up = threading.Event()
        self.begun: list[Instruction] = []

    def handle(self, instruction: Instruction) -> Done:
        self.begun.append(instruction)
        self.given_up.wait(PATIENCE_S)
        raise srpipe.InferenceError("given up")

    def abort(self) -> None:
        self.given_up.set()


def start(make: Callable[[], Slow]) -> tuple[StageThreads, list[Done | Failed]]:
    heard: list[Done | Failed] = []
    return StageThreads("worker 0", make, lambda _, message: heard.append(message)), heard


def test_a_stage_gives_up_and_begins_nothing_more() -> None:
    slow = Slow()
    stage, _ = start(lambda: slow)
    for tile in range(4):
        stage.send(Read(tile, tile))
    wait_until(lambda: len(slow.begun) == 2, "both runners to begin")
    stage.give_up()
    stage.join()
    assert len(slow.begun) == 2
    assert not threads_of_runs()


def test_a_stage_that_is_given_up_while_it_is_set_up_hears_of_it() -> None:
    slow, may_begin = Slow(), threading.Event()

    def make() -> Slow:
        may_begin.wait(PATIENCE_S)
        return slow

    stage, _ = start(make)
    stage.send(Read(0, 0))
    stage.give_up()
    may_begin.set()
    stage.join()
    assert slow.given_up.is_set()
    assert not slow.begun


def test_a_stage_that_cannot_be_set_up_says_so() -> None:
    def make() -> Slow:
        raise ZeroDivisionError("by nought")

    stage, heard = start(make)
    wait_until(lambda: heard, "word of the failure")
    stage.end()
    stage.join()
    (message,) = heard
    assert isinstance(message, Failed)
    assert message.instruction is None
    assert "the worker 0 failed unexpectedly (ZeroDivisionError: by nought)" in str(message.error)
    assert "in make" in message.traceback


def test_out_of_memory_does_not_hold_on_to_the_memory() -> None:
    try:
        raise srpipe.OutOfMemoryError("too much")
    except srpipe.OutOfMemoryError as error:
        message = failed(error, "worker", None)
    assert isinstance(message.error, srpipe.OutOfMemoryError)
    assert message.error.__traceback__ is message.error.__context__ is None


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    """Half a second and more for a tile of 256."""
    return conv_model(tmp_path / "slow.onnx", layers=10, features=96)


def test_an_exception_in_the_callback_ends_the_run_at_once(
    tmp_path: Path, slow_model: Path
) -> None:
    """Runs of the model that are under way are ended between two nodes, not waited for."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(512, 512))

    def fail(event: srpipe.ProgressEvent) -> None:
        if event.state == "running":
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        srpipe.enhance(
            source, tmp_path / "out.tif", model=slow_model, tile_size=128, overlap=0,
            engine="threads", progress=fail,
        )  # fmt: skip
    assert not threads_of_runs()
    assert not (tmp_path / "out.tif").exists()


_INTERRUPTED = """
import signal, sys, threading
import srpipe

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
source, target, model = sys.argv[1:]
try:
    srpipe.enhance(
        source, target, model=model, tile_size=64, overlap=4, engine="threads",
        progress=lambda event: print(event.tiles_done, flush=True),
    )
except KeyboardInterrupt:
    print("interrupted", *[t.name for t in threading.enumerate() if "srpipe" in t.name])
"""


def test_ctrl_c_in_a_script(tmp_path: Path, slow_model: Path) -> None:
    """No handler of srpipe's: a plain KeyboardInterrupt, wherever the caller's thread is."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(700, 1000))
    command = [sys.executable, "-c", _INTERRUPTED, source, tmp_path / "out.tif", slow_model]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 3:
        pass
    process.send_signal(signal.SIGINT)
    out, err = output_of(process)
    assert not (tmp_path / "out.tif").exists()
    assert out.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert {p.name for p in tmp_path.iterdir()} <= {"in.tif", "slow.onnx", "out.tif.srpipe"}
    assert not list(tmp_path.glob("out.tif.srpipe/output*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command(tmp_path: Path, slow_model: Path, number: signal.Signals) -> None:
    """Few tiles, so that the command runs them in threads; many seconds, so that it can be stopped."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(700, 1000))
    command = ["enhance", source, tmp_path / "out.tif", "-m", slow_model, "-t", "128",
               "--checkpoint-every", "0"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "srpipe", *map(str, command), "--progress", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_line(process, is_running)
    job_dir = tmp_path / "out.tif.srpipe"
    wait_until(lambda: list(job_dir.glob("checkpoint-?.json")), "a checkpoint")
    process.send_signal(number)
    _, err = output_of(process)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "repeat the command to go on" in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("out.tif.srpipe/output*"))


@pytest.mark.parametrize(("stages", "runners"), [(0, 0), (3, 0), (5, 0), (5, 1)])
def test_where_no_more_threads_can_be_started(
    tmp_path: Path, photograph: Path, x2_model: Path, stages: int, runners: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Runners are done without; a stage is not."""
    started: Counter[str] = Counter()
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("srpipe-") and "saver" not in thread.name:
            first = thread.name not in started
            if (len(started) if first else started.total() - len(started)) == (
                stages if first else runners
            ):
                raise RuntimeError("can't start new thread")
            started[thread.name] += 1
        start(thread)

    def run() -> None:
        srpipe.enhance(
            photograph, tmp_path / "out.tif", model=x2_model, tile_size=64, engine="threads",
            threads=4, runners=4,
        )  # fmt: skip

    monkeypatch.setattr(threading.Thread, "start", limited)
    if stages < len(STAGES):
        with pytest.raises(srpipe.StageError, match="no thread can be started for the "):
            run()
        assert not (tmp_path / "out.tif").exists()
    else:
        run()
    assert not threads_of_runs()
