"""ONNX Runtime's devices: their names here, their providers and options, and why one is not there.

Options: https://onnxruntime.ai/docs/execution-providers/ (CUDA, TensorRT, ROCm, MIGraphX, DirectML).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import io
import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from srpipe.errors import DeviceError
from srpipe.io.cache import cache_folder
from srpipe.io.external_data import hash_model
from srpipe.io.onnx_runtime import onnx_runtime_version, ort
from srpipe.io.processor import available_cores

Provider = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What there is to know of one kind of device."""

    provider: str
    package: str = "onnxruntime"
    """The build of ONNX Runtime that has it."""
    extras: str = ""
    """What brings its libraries along, behind the package's name."""
    numbered: bool = False
    """Whether there can be several, told apart by the provider's ``device_id``."""
    buffers: str | None = None
    """ONNX Runtime's name for its memory, where Python can allocate it."""
    options: dict[str, str] = field(default_factory=dict)
    follower: str | None = None
    """The kind that runs what this one cannot."""
    threads_option: str | None = None
    """The option that says how many of the processor's cores a run takes, where it runs on those."""


_KINDS = {
    "cpu": _Kind(provider="CPUExecutionProvider"),
    "cuda": _Kind(
        provider="CUDAExecutionProvider",
        package="onnxruntime-gpu",
        extras="[cuda,cudnn]",
        numbered=True,
        buffers="cuda",
        options={
            # The default tries every algorithm of every convolution at the first run.
            "cudnn_conv_algo_search": "HEURISTIC",
            # The default takes the next power of two, up to twice what is needed.
            "arena_extend_strategy": "kSameAsRequested",
        },
    ),
    "tensorrt": _Kind(
        provider="TensorrtExecutionProvider",
        package="onnxruntime-gpu",
        extras="[cuda,cudnn]",
        numbered=True,
        buffers="cuda",
        follower="cuda",
    ),
    "rocm": _Kind(
        provider="ROCMExecutionProvider",
        package="onnxruntime-rocm",
        numbered=True,
        options={"arena_extend_strategy": "kSameAsRequested"},
    ),
    "migraphx": _Kind(
        provider="MIGraphXExecutionProvider", package="onnxruntime-migraphx", numbered=True
    ),
    "openvino": _Kind(
        provider="OpenVINOExecutionProvider",
        package="onnxruntime-openvino",
        options={"device_type": "CPU"},
        threads_option="num_of_threads",
    ),
    "directml": _Kind(
        provider="DmlExecutionProvider", package="onnxruntime-directml", numbered=True
    ),
    "coreml": _Kind(provider="CoreMLExecutionProvider"),
}
_AUTO_ORDER = ("cuda", "rocm", "cpu")
# All are installed as the same module, so that one at a time can be used.
_PACKAGES = sorted({kind.package for kind in _KINDS.values()})


def is_numbered(name: str) -> bool:
    """Whether a device, such as ``cuda`` or ``cuda:1``, is of a kind of which there can be several."""
    kind = _KINDS.get(name.partition(":")[0])
    return kind is not None and kind.numbered


@dataclass(frozen=True, slots=True)
class Device:
    """One device, such as ``cpu`` or ``cuda:1``."""

    kind: str
    number: int

    @classmethod
    def parse(cls, name: str) -> Device:
        """Take a name apart as :func:`resolve_device` returns it (between its commas)."""
        kind, _, number = name.partition(":")
        return cls(kind, int(number or 0))

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if _KINDS[self.kind].numbered else self.kind

    @property
    def buffers(self) -> str | None:
        """ONNX Runtime's name for the device's memory, where Python can allocate it."""
        return _KINDS[self.kind].buffers

    @property
    def probing(self) -> Device:
        """Where to try a model on many sizes: TensorRT would compile it for each."""
        return Device(_KINDS[self.kind].follower or self.kind, self.number)

    def providers(self, model: str, threads: int = 0) -> list[Provider]:
        """Execution providers with their options, all of which a session must have.

        Args:
            model: the .onnx file it is for.
            threads: cores that a run may take, 0 for all, where the provider runs on the processor.
        """
        kind = _KINDS[self.kind]
        options = dict(kind.options)
        if kind.numbered:
            options["device_id"] = str(self.number)
        if kind.threads_option is not None:
            options[kind.threads_option] = str(threads or available_cores())
        if self.kind == "tensorrt":
            options |= _engine_cache(_engine_folder(model, self.number))
        chain = [(kind.provider, options)]
        if kind.follower is not None:
            chain += Device(kind.follower, self.number).providers(model)
        return chain

    def prepare(self) -> None:
        """Get this process ready for a session on the device."""
        if self.kind == "cpu":
            return
        # What it says of a device that is not there goes into our error.
        ort.set_default_logger_severity(4)
        if self.buffers == "cuda":
            _load_cuda_libraries()

    def error(self, reason: str) -> DeviceError:
        """What to raise where no session can be made on the device.

        Args:
            reason: what ONNX Runtime says; the system's loader may know better.
        """
        kind = _KINDS[self.kind]
        hint = f" (pip install '{kind.package}{kind.extras}' brings CUDA's)" if kind.extras else ""
        return DeviceError(
            f"device '{self}' could not be started ({_missing_library(self.kind) or reason}): check "
            f"its driver and libraries{hint}."
        )


def available_devices() -> list[str]:
    """Kinds of devices that this build of ONNX Runtime can use."""
    providers = set(ort.get_available_providers())
    return [name for name, kind in _KINDS.items() if kind.provider in providers]


def is_available(devices: str) -> bool:
    """Whether this build of ONNX Runtime can use devices, named as :func:`resolve_device` does."""
    return {name.partition(":")[0] for name in devices.split(",")} <= set(available_devices())


def runs_on_processor(devices: str) -> bool:
    """Whether devices, named as :func:`resolve_device` does, are the processor."""
    return (
        devices == "cpu"
        or _KINDS[Device.parse(devices.split(",")[0]).kind].threads_option is not None
    )


def processor_devices() -> tuple[str, ...]:
    """Devices of this build of ONNX Runtime that run on the processor, ONNX Runtime's own first."""
    there = available_devices()
    return ("cpu", *(name for name in there if name != "cpu" and runs_on_processor(name)))


def resolve_device(wanted: str) -> str:
    """Turn ``auto`` into a device, and check that named ones can be there.

    Args:
        wanted: ``auto``, or one or more names of one kind between commas: ``cpu``, ``cuda`` (the
            first: ``cuda:0``), ``cuda:1``, ``cuda:0,cuda:1``. A number alone is of the kind before
            it, at first ``cuda``: ``0`` is ``cuda:0``, and ``tensorrt:0,1`` names two.

    Returns:
        The devices' full names between commas: ``cuda:0,cuda:1``.

    Raises:
        DeviceError: unknown, named twice, of several kinds, or not in this build of ONNX Runtime.
    """
    there = available_devices()
    if wanted == "auto":
        return str(Device.parse(next(kind for kind in _AUTO_ORDER if kind in there)))
    devices: list[Device] = []
    for part in wanted.split(","):
        before = devices[-1].kind if devices else "cuda"
        devices.append(_parse(part.strip(), before, wanted))
    kind = devices[0].kind
    if len({device.kind for device in devices}) > 1:
        raise DeviceError(f"device {wanted!r} is of several kinds: name devices of one kind.")
    if len(set(devices)) < len(devices):
        raise DeviceError(
            f"device {wanted!r} names a device twice: name it once, and give --workers 2."
        )
    if kind not in there:
        raise DeviceError(
            f"device {wanted!r} is not there: this ONNX Runtime has {', '.join(there)}"
            f"{_how_to_install(kind)}."
        )
    return ",".join(map(str, devices))


def _parse(name: str, kind_before: str, wanted: str) -> Device:
    kind, colon, number = name.partition(":")
    if _is_number(name):
        kind, colon, number = kind_before, ":", name
    known = kind in _KINDS
    if not known or (colon and not (_is_number(number) and _KINDS[kind].numbered)):
        raise DeviceError(
            f"device {wanted!r} is unknown: use auto, {', '.join(_KINDS)}, or cuda:1 and so on."
        )
    return Device(kind, int(number or 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 5


def _how_to_install(kind: str) -> str:
    package = _KINDS[kind].package
    installed = [name for name in _PACKAGES if _is_installed(name)]
    if package == "onnxruntime" or not installed:
        return ""
    state = "are installed and hide each other" if len(installed) > 1 else "is installed"
    return (
        f" ({' and '.join(installed)} {state}: pip uninstall -y {' '.join(installed)}, then pip "
        f"install '{package}{_KINDS[kind].extras}')"
    )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _missing_library(kind: str) -> str:
    """What the system's loader says of a provider's library; empty if it can be loaded."""
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{kind}.so"
    if not library.is_file():
        return ""
    try:
        ctypes.CDLL(os.fspath(library))
    except OSError as error:
        return str(error)
    return ""


@functools.cache
def _load_cuda_libraries() -> None:
    """Find the CUDA libraries that pip has installed; those of the system are found anyway."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None and importlib.util.find_spec("nvidia") is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def _engine_cache(folder: Path | None) -> dict[str, str]:
    """TensorRT's options to keep what it compiles; without a folder it compiles every time."""
    if folder is None:
        return {}
    # Without the paths both would be in the current folder.
    return {
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_engine_cache_path": os.fspath(folder),
        "trt_timing_cache_path": os.fspath(folder),
    }


def _engine_folder(model: str, number: int) -> Path | None:
    """Where TensorRT keeps what it has compiled for a model and a device.

    Its file names tell neither a model's weights nor versions (onnxruntime issue 6455): the folder's
    name does. Devices may differ, and their workers may write at the same time.
    """
    name = f"{hash_model(model)[:16]}-onnxruntime-{onnx_runtime_version()}-{number}"
    return cache_folder(f"tensorrt/{name}")
