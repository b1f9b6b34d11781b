"""Functions in a process of their own: what comes back, and what is contained there."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from srpipe.errors import ModelError, OutOfMemoryError, SettingsError, StageError
from srpipe.io import child
from srpipe.io.child import Child, try_out
from srpipe.io.space import format_bytes
from tests.processes import wait_until

NO_LIMIT = None


def endure(folder: str) -> None:
    """Leave a note in a temporary folder, and stay in a call under the time limit."""
    with tempfile.TemporaryDirectory(dir=folder), child.time_limit(1):
        time.sleep(600)


def take(n_bytes: int) -> float:
    return float(np.ones(n_bytes, np.uint8)[-1])


def say(text: str) -> None:
    logging.getLogger("srpipe.io.known_models").warning("%s", text)


def test_results_and_errors_come_back() -> None:
    assert try_out("m", partial(format_bytes, 12_900_000_000), NO_LIMIT) == "12.9 GB"
    with pytest.raises(SettingsError, match=r"\$NOWHERE is 'x'"):
        try_out("m", partial(_bad_setting), NO_LIMIT)
    with pytest.raises(ZeroDivisionError):
        try_out("m", partial(divmod, 1, 0), NO_LIMIT)
    with pytest.raises(ModelError, match=r"m cannot be used: UnicodeError"):
        try_out("m", _unpicklable, NO_LIMIT)


def _bad_setting() -> None:
    os.environ["NOWHERE"] = "x"
    child._from_environment("NOWHERE", 1)


def _unpicklable() -> None:
    error = UnicodeError("no")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def test_several_calls_and_threads() -> None:
    with Child() as process:
        for number in (1, 1000):
            process.start(format_bytes, number)
            assert process.result() == format_bytes(number)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(try_out("m", os.getpid, NO_LIMIT)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({os.getpid(), *found}) == 4


def test_what_is_logged_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    try_out("m", partial(say, "100 %s"), NO_LIMIT)
    assert caplog.record_tuples == [("srpipe.io.known_models", logging.WARNING, "100 %s")]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_an_error(number: signal.Signals) -> None:
    with pytest.raises(
        ModelError, match=rf"m cannot be used: ONNX Runtime crashed \({number.name}\)"
    ):
        try_out("m", partial(signal.raise_signal, number), NO_LIMIT)
    with pytest.raises(ModelError, match=r"m needs too much memory: .* killed for want of memory"):
        try_out("m", partial(signal.raise_signal, signal.SIGKILL), NO_LIMIT)
    with pytest.raises(ModelError, match="the process that tries the model failed: 7"):
        try_out("m", partial(os._exit, 7), NO_LIMIT)


def test_memory_is_limited() -> None:
    assert try_out("m", partial(take, 10**8), 10**9) == 1
    with pytest.raises(ModelError, match=r"too much memory.*was given 1 GB.*SRPIPE_MODEL_BYTES"):
        try_out("m", partial(take, 2 * 10**9), 10**9)


def test_memory_for_trying_out_grows_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRPIPE_MODEL_BYTES", "1000000")
    small, large = child.model_bytes(0), child.model_bytes(1_000_000)
    assert large == small + 4_000_000
    monkeypatch.setenv("SRPIPE_MODEL_BYTES", "1e30")
    with pytest.raises(SettingsError, match=r"\$SRPIPE_MODEL_BYTES is '1e30'"):
        child.model_bytes(0)


def test_a_call_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRPIPE_MODEL_SECONDS", "0.5")
    with pytest.raises(ModelError, match=r"more than 0\.5 seconds: \$SRPIPE_MODEL_SECONDS \(now 0"):
        try_out("m", partial(endure, str(tmp_path)), NO_LIMIT)
    with Child() as process:
        process.start(time.sleep, 600)
        with pytest.raises(StageError, match=r"more than 0\.1 seconds"):
            process.result(0.1)


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: list(tmp_path.iterdir()), "a file of the child")
        # As a terminal does: to the thread that waits.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        try_out("m", partial(endure, str(tmp_path)), NO_LIMIT)
    assert not list(tmp_path.iterdir())
    assert not psutil.Process().children()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    with Child() as parent:
        parent.start(try_out, "m", partial(endure, str(tmp_path)), NO_LIMIT)
        wait_until(lambda: list(tmp_path.iterdir()), "a file of the child")
        (first,) = psutil.Process().children()
        (second,) = first.children()
        first.kill()
        with pytest.raises(OutOfMemoryError):
            parent.result()
        wait_until(
            lambda: not second.is_running() or second.status() == psutil.STATUS_ZOMBIE,
            "the end of the second child",
        )
        assert not list(tmp_path.iterdir())
