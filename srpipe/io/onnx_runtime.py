"""ONNX Runtime, loaded once with its reports to its maker off, and how to read what it raises."""

from __future__ import annotations

import os

_QUIETLY = "ORT_DISABLE_TELEMETRY"

# From version 1.29 on it reports to its maker, and leaves files, unless told not to when loaded. What
# the caller starts later is not told.
_said = os.environ.get(_QUIETLY)
os.environ.setdefault(_QUIETLY, "1")
try:
    import onnxruntime as ort
finally:
    if _said is None:
        del os.environ[_QUIETLY]

if not hasattr(ort, "InferenceSession"):
    raise ImportError(
        "onnxruntime is damaged, as it is after one of two builds was uninstalled: pip uninstall -y "
        "onnxruntime onnxruntime-gpu, then pip install the one you want."
    )

__all__ = ["is_out_of_memory", "one_line", "onnx_runtime_version", "ort", "session_options"]

_QUIET = 4  # fatal only: every error also comes as an exception


def session_options() -> ort.SessionOptions:
    """Options for a session whose results are right on every processor, and that prints nothing.

    x86 without VNNI adds up products of unsigned and signed 8 bits in 16 bits, which overflow where
    weights use all 8 bits: ONNX Runtime then takes slower instructions, if it is asked to.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


# How ONNX Runtime and its providers say that an allocation failed, in small letters. Words that are
# said of other failures too (CUDNN_STATUS_INTERNAL_ERROR, "failed to create engine") are left out.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "out of memory",  # CUDA, HIP and TensorRT: "CUDA failure 2: out of memory"
    "outofmemory",  # hipErrorOutOfMemory, cudaErrorMemoryAllocation's text in TensorRT
    "failed to allocate memory",  # ONNX Runtime's arenas
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "8007000e",  # DirectML: E_OUTOFMEMORY, whose text is in the system's language
    "memory not available to allocate",  # MIGraphX
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether what ONNX Runtime raised means that memory, of the host or a device, ran out."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in said for sign in _OUT_OF_MEMORY)


def one_line(error: Exception) -> str:
    """What ONNX Runtime said, short enough for a message."""
    return " ".join(str(error).split())[:300]


def onnx_runtime_version() -> str:
    """The version of the build that is in use, whichever package it came in."""
    return str(ort.__version__)
