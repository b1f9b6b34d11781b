"""The processor: what it is, and how many cores there are."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def available_cores() -> int:
    """Processor cores this process may use, affinity and cgroup quota respected."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or no limit
    return cores


def processor_name() -> str:
    """What tells processors apart that may compute differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line for line in lines if line.startswith(("model name", "CPU part")))
    return f"{platform.machine()} {next(named, platform.processor())}"
