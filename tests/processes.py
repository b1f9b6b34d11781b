"""Finding, stopping and measuring the processes of a run."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import psutil

STAGE_NAMES = ("reader", "batcher", "worker 0", "accumulator", "writer")
_NOTES = ("Finding out, once, whether", "measuring how much overlap the tiles of model")
PATIENCE_S = float(os.environ.get("SRPIPE_TEST_PATIENCE_S", "300"))
"""How long tests wait for what must come: any machine, busy with anything, is that fast."""


def start_srpipe(*arguments: object, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """``srpipe`` in a process of its own."""
    command = [sys.executable, "-m", "srpipe", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)


def run_srpipe(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``srpipe``, waited for."""
    process = start_srpipe(*arguments)
    out, err = output_of(process)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def output_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process to end, and return what it has said on both channels, but for some notes."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return out, without_notes(err or "")


def without_notes(said: str) -> str:
    """What srpipe has said, without the notes that only a slow machine makes it give."""
    lines = said.splitlines(keepends=True)
    return "".join(line for line in lines if not any(note in line for note in _NOTES))


def wait_for_line(process: subprocess.Popen[str], is_wanted: Callable[[str], bool]) -> str:
    """Read on in what a process says on stderr, and return the first line that is wanted."""
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        if is_wanted(line):
            return line
        read.append(line)
    raise AssertionError(f"it ended with exit code {process.wait()} and said {read[-5:]}")


def is_running(line: str) -> bool:
    """Whether a line of ``--progress json`` says that tiles are being done."""
    return '"running"' in line


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


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until ``condition()`` is true; an AssertionError that names ``what`` if it never is."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s:.0f} s in vain for {what}"
        time.sleep(0.02)


def wait_until_gone(processes: Iterable[psutil.Process]) -> None:
    """Wait until all processes have ended, whoever's children they are."""
    _, alive = psutil.wait_procs(list(processes), timeout=PATIENCE_S)
    assert not alive, f"processes left: {alive}"


def wait_for_stages(parent: int, names: Sequence[str] = STAGE_NAMES) -> dict[str, psutil.Process]:
    """Wait until all stages have started, and return them."""
    found: dict[str, psutil.Process] = {}

    def all_there() -> bool:
        found.update(stages_of(parent))
        return set(names) <= set(found)

    wait_until(all_there, f"the stages {', '.join(names)}")
    return found


def named_memory(processes: Iterable[psutil.Process]) -> set[str]:
    """Names in /dev/shm that processes have open or mapped.

    A list of the folder would show those of other programs too.
    """
    paths: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            paths |= {file.path for file in process.open_files()}
            paths |= {mapping.path for mapping in process.memory_maps()}
    folder = "/dev/shm/"
    return {
        path.removeprefix(folder)
        for path in paths
        if path.startswith(folder) and os.path.exists(path)
    }
