"""The processor: how many cores there are, and how it adds up products of 8 bits."""

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
    """What the processor calls itself, its architecture where it does not."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def saturates_sums() -> bool:
    """Whether sums of two products of unsigned and signed 8 bits stop at 16 bits.

    So it is on x86 without VNNI, where ONNX Runtime uses VPMADDUBSW: results are then wrong where
    weights use all 8 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True  # unknown: the careful answer
    return not {"avx512_vnni", "avx_vnni"} & set(flags)
