"""Memory and processor time of a tree of processes, sampled while it runs."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

INTERVAL_S = 0.1
MAIN = "main"
_STAGE_PREFIX = "srpipe-"


@dataclass(frozen=True)
class Usage:
    """What a tree of processes took, by stage name and in total.

    Memory is RssAnon + RssShmem of /proc/PID/status: what a process allocated and what it shares
    with others, without mapped files, which the kernel takes back at need. Shared memory counts once
    for every process that touched it, so the total errs upwards.
    """

    peak_bytes: int
    """Largest sum over all processes at one moment."""
    peak_shared_once_bytes: int
    """The same with shared memory counted for one process only, the one that touched most of it."""
    stage_peak_bytes: dict[str, int]
    """Largest value of each process; reached at different moments."""
    stage_cpu_s: dict[str, float]
    """User and system seconds of each process as last seen."""
    others_cpu_s: float
    """What all other processes took meanwhile, niced ones left out, and the host of a guest."""


@dataclass
class TreeSampler:
    """Samples a process and its descendants in a thread, as a context manager."""

    pid: int
    interval_s: float = INTERVAL_S
    _peak_bytes: int = 0
    _peak_shared_once_bytes: int = 0
    _stage_peak_bytes: dict[str, int] = field(default_factory=dict)
    _cpu_s: dict[int, float] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> TreeSampler:
        """Begin to sample."""
        self._machine_cpu_s = -_machine_cpu_s()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._machine_cpu_s += _machine_cpu_s()

    @property
    def usage(self) -> Usage:
        """What was seen from beginning to end."""
        stage_cpu_s: dict[str, float] = {}
        for pid, cpu_s in self._cpu_s.items():
            name = self._names[pid]
            stage_cpu_s[name] = stage_cpu_s.get(name, 0.0) + cpu_s
        return Usage(
            self._peak_bytes,
            self._peak_shared_once_bytes,
            dict(self._stage_peak_bytes),
            stage_cpu_s,
            max(0.0, self._machine_cpu_s - sum(stage_cpu_s.values())),
        )

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._sample()
            self._stop.wait(self.interval_s)

    def _sample(self) -> None:
        anonymous_bytes, shared_bytes = 0, [0]
        for pid in _tree(self.pid):
            memory = process_memory(pid)
            if memory is None:
                continue
            name = self._name(pid)
            self._stage_peak_bytes[name] = max(self._stage_peak_bytes.get(name, 0), sum(memory))
            anonymous_bytes += memory[0]
            shared_bytes.append(memory[1])
            self._cpu_s[pid] = _cpu_s(pid) or self._cpu_s.get(pid, 0.0)
        self._peak_bytes = max(self._peak_bytes, anonymous_bytes + sum(shared_bytes))
        self._peak_shared_once_bytes = max(
            self._peak_shared_once_bytes, anonymous_bytes + max(shared_bytes)
        )

    def _name(self, pid: int) -> str:
        # A child that has not yet replaced its parent's image bears the parent's command line.
        known = self._names.get(pid)
        if known is None or known == MAIN:
            known = self._names[pid] = stage_name(pid)
        return known


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def process_memory(pid: int) -> tuple[int, int] | None:
    """RssAnon and RssShmem of a process, bytes; None if it is gone."""
    wanted = {"RssAnon:": 0, "RssShmem:": 0}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition("\t")
        if key in wanted:
            wanted[key] = int(value.split()[0]) * 1024
    return wanted["RssAnon:"], wanted["RssShmem:"]


def stage_name(pid: int) -> str:
    """The stage a process of srpipe carries out (its last argument says it), or ``main``."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return MAIN
    last = arguments[-1].decode(errors="replace")
    return last.removeprefix(_STAGE_PREFIX) if last.startswith(_STAGE_PREFIX) else MAIN


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "steal", 0.0))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_peak_bytes() -> int:
    """The largest resident memory of this process so far, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
