"""Finding, stopping and measuring the processes of a run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil

STAGE_NAMES = ("reader", "batcher", "worker 0", "accumulator", "writer")


def start_srpipe(*arguments: object, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """``srpipe`` in a process of its own."""
    command = [sys.executable, "-m", "srpipe", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)


def run_srpipe(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """``srpipe``, waited for."""
    process = start_srpipe(*arguments)
    out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def stages_of(parent: int) -> dict[str, psutil.Process]:
    """The stage processes below ``parent`` by name."""
    stages = {}
    for child in psutil.Process(parent).children(recursive=True):
        try:
            found = re.search(r"srpipe-([a-z]+(?: \d+)?)$", child.cmdline()[-1])
        except (psutil.Error, IndexError):
            continue
        if found:
            stages[found[1]] = child
    return stages


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until ``condition()`` is true; an AssertionError if it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)


def wait_for_stages(parent: int, names: Sequence[str] = STAGE_NAMES) -> dict[str, psutil.Process]:
    """Wait until all stages have started, and return them."""
    wait_until(lambda: set(names) <= set(stages_of(parent)))
    return stages_of(parent)
