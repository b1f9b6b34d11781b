"""What a bug report needs to know of a machine, and what to do about what is amiss there.

Nothing of srpipe is imported before a check needs it: what cannot be imported is a finding too.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_NEEDED = ("numpy", "numba", "onnx", "onnxruntime", "opencv-python-headless", "pyvips", "tqdm")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_OPENCVS = ("opencv-python-headless", "opencv-python", "opencv-contrib-python",
            "opencv-contrib-python-headless")  # fmt: skip
_EXTRAS = ("onnxruntime-gpu", "onnxruntime-openvino", "torch", "safetensors", "spandrel",
           "matplotlib", "zarr", "fsspec", "ray")  # fmt: skip
_LOADERS = ("tiff", "png", "jpeg", "webp", "heif", "jp2k", "jxl", "gif", "svg", "openslide", "vips")
_LEAST_MEMORY_BYTES = 1_000_000_000
_LEAST_DISK_BYTES = 1_000_000_000
_LEAST_OPEN_FILES = 256
_TILE_PX = 64
# A model that sharpens stays this near to what it was given, on the mean.
_MOST_LEVELS = 8.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    value: str
    ok: bool = True
    advice: str = ""
    """What to do about it, where it is not well."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(finding.ok for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return {"ok": self.ok, **asdict(self)}


def examine() -> Diagnosis:
    """Look at everything; whatever goes wrong with that is a finding, never an exception."""
    return Diagnosis(tuple(f for name, check in _CHECKS.items() for f in _findings(name, check)))


def _findings(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # the very thing that this is for
        reason = (str(error).strip().splitlines() or [""])[0]
        advice = (
            "install srpipe again in an environment of its own; if that does not help, report this."
        )
        return [Finding(name, f"{type(error).__name__}: {reason}", ok=False, advice=advice)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _software() -> list[Finding]:
    from srpipe import __version__

    findings = [
        Finding("srpipe", f"{__version__} in {Path(__file__).parent}"),
        Finding("Python", f"{platform.python_version()} ({sys.executable})"),
        Finding("system", platform.platform()),
    ]
    for package in _NEEDED:
        found = _version(package)
        # Another build of the same, such as onnxruntime-gpu, does as well.
        kin = _RUNTIMES if package in _RUNTIMES else _OPENCVS if package in _OPENCVS else ()
        others = [other for other in kin if _version(other)]
        ok = found is not None or bool(others)
        findings.append(
            Finding(package, found or ", ".join(others) or "missing", ok,
                    "" if ok else f"pip install {package}")
        )  # fmt: skip
    extras = [f"{package} {found}" for package in _EXTRAS if (found := _version(package))]
    findings.append(Finding("extras", ", ".join(extras) or "none"))
    several = [package for package in _RUNTIMES if _version(package)]
    if len(several) > 1:
        findings.append(
            Finding("ONNX Runtime", " and ".join(several), False,
                    "they overwrite each other's files: uninstall all of them, then install one.")
        )  # fmt: skip
    return findings


def _imports() -> list[Finding]:
    import cv2
    import numba
    import numpy
    import onnxruntime

    from srpipe.io.vips import libvips_version

    return [
        Finding("libvips", libvips_version()),
        Finding("loaded", f"numpy {numpy.__version__}, numba {numba.__version__}, "
                          f"cv2 {cv2.__version__}, onnxruntime {onnxruntime.__version__}"),
        Finding("providers", ", ".join(onnxruntime.get_available_providers())),
    ]  # fmt: skip


def _formats() -> list[Finding]:
    from srpipe.io.vips import pyvips

    def has(operation: str) -> bool:
        return bool(pyvips.type_find("VipsOperation", operation))

    reads = [name for name in _LOADERS if has(f"{name}load_source")]
    writes = [name for name in (*_LOADERS, "dz", "raw") if has(f"{name}save")]
    missing = [name for name in ("tiff", "png", "jpeg", "webp") if name not in reads]
    return [
        Finding("reads", ", ".join(reads), not missing,
                f"libvips lacks {', '.join(missing)}: pip install 'pyvips[binary]'."
                if missing else ""),
        Finding("writes", ", ".join(writes)),
    ]  # fmt: skip


def _processor() -> list[Finding]:
    from srpipe.io.processor import available_cores

    cores, there = available_cores(), os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return [
        Finding("cores", f"{cores} used by srpipe, {affinity} by affinity, {there} in the machine")
    ]


def _memory() -> list[Finding]:
    from srpipe.io.space import available_memory_bytes, format_bytes, memory_limit_bytes

    free, limit = available_memory_bytes(), memory_limit_bytes()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = free is None or free >= _LEAST_MEMORY_BYTES
    findings = [
        Finding("memory", f"{'unknown' if free is None else format_bytes(free)} free of "
                          f"{format_bytes(total)}, cgroup limit "
                          f"{'none' if limit is None else format_bytes(limit)}",
                ok, "" if ok else "end other programs or raise the container's limit; else give "
                                  "--memory and small tiles."),
    ]  # fmt: skip
    shared = Path("/dev/shm")
    size = _disk_bytes(shared) if shared.is_dir() else None
    anonymous = hasattr(os, "memfd_create")
    findings.append(
        Finding("/dev/shm", f"{'none' if size is None else format_bytes(size)}, "
                            f"{'not needed' if anonymous else 'memfd_create is missing'}")
    )  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft == resource.RLIM_INFINITY or soft >= _LEAST_OPEN_FILES
    findings.append(
        Finding("open files", f"at most {soft} (may be raised to {hard})", ok,
                "" if ok else f"raise it with 'ulimit -n {_LEAST_OPEN_FILES * 4}'.")
    )  # fmt: skip
    return findings


def _disk_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_blocks * stat.f_frsize


def _folders() -> list[Finding]:
    from srpipe.io.cache import cache_folder

    findings = []
    for kind in ("graphs", "models", "tuned"):
        folder = cache_folder(kind)
        ok = folder is not None and _can_write(folder)
        findings.append(
            Finding(f"cache of {kind}", "none" if folder is None else str(folder), ok,
                    "" if ok else "it cannot be written, so the same is found out for every job: set "
                                  "SRPIPE_CACHE to a folder that can.")
        )  # fmt: skip
    findings.append(_temporary_folder())
    return findings


def _temporary_folder() -> Finding:
    from srpipe.io.space import format_bytes, free_disk_bytes

    folder = tempfile.gettempdir()
    free = free_disk_bytes(folder)
    ok = free >= _LEAST_DISK_BYTES
    return Finding("temporary files", f"{folder}, {format_bytes(free)} free", ok,
                   "" if ok else "make room there, or set TMPDIR.")  # fmt: skip


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _models() -> list[Finding]:
    from srpipe.models.zoo import bundled_models

    models = bundled_models()
    if not models:
        return [Finding("models", "none in the box", False, "install srpipe again.")]
    return [_try_model(name, path) for name, path in models.items()]


def _try_model(name: str, path: Path) -> Finding:
    """Whether a model gives, of a small picture, one that looks like it."""
    import cv2
    import numpy as np

    from srpipe.io.model_probe import probe_model
    from srpipe.io.session import Session
    from srpipe.models.sample import make_picture
    from srpipe.plan.geometry import Size, round_up

    try:
        info = probe_model(os.fspath(path), "cpu")
        side_px = round_up(max(_TILE_PX, info.least_px), info.multiple_px)
        picture = make_picture(Size(side_px, side_px), info.channels)
        low, high = info.value_range
        batch = (picture.transpose(2, 0, 1)[None] / 255 * (high - low) + low).astype(info.dtype)
        result = Session(os.fspath(path), "cpu", 1).run_free(
            info.input_name, info.output_name, np.ascontiguousarray(batch)
        )
        if result is None:
            raise ValueError("it does not run")
        levels = (result[0].astype(np.float64).transpose(1, 2, 0) - low) / (high - low) * 255
        smaller = cv2.resize(levels, (side_px, side_px), interpolation=cv2.INTER_AREA)
        differs = float(np.abs(smaller.reshape(picture.shape) - picture).mean())
    except Exception as error:  # the very thing that this is for
        return Finding(f"model {name}", str(error), False, "install srpipe again.")
    ok = differs <= _MOST_LEVELS
    return Finding(
        f"model {name}", f"gives what it should ({differs:.2f} levels of 255 from its input)"
        if ok else f"is {differs:.1f} levels of 255 from its input", ok,
        "" if ok else "install onnxruntime and srpipe again; if that does not help, report this.",
    )  # fmt: skip


_CHECKS: dict[str, Callable[[], list[Finding]]] = {
    "software": _software,
    "libraries": _imports,
    "formats": _formats,
    "processor": _processor,
    "memory": _memory,
    "folders": _folders,
    "models": _models,
}
