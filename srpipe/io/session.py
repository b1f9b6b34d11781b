"""ONNX Runtime sessions: devices, creation, and runs whose input and output are bound to buffers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.errors import DeviceError, InferenceError, ModelError, OutOfMemoryError
from srpipe.io.external_data import external_files

# From version 1.29 on it reports to its maker, and leaves files, unless told not to when loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_AUTO_ORDER = ("cuda", "rocm", "cpu")
# How ONNX Runtime and its providers say that an allocation failed.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "failed to allocate memory",
    "cublas_status_alloc_failed",
)
_QUIET = 4  # ONNX Runtime's "fatal only": every error also comes as an exception

Tensor = npt.NDArray[np.floating]


def available_devices() -> list[str]:
    """Names of the devices that this build of ONNX Runtime can use."""
    providers = set(ort.get_available_providers())
    return [device for device, provider in _PROVIDERS.items() if provider in providers]


def resolve_device(wanted: str) -> str:
    """Turn ``auto`` into a device, and check that a named one is there.

    Raises:
        DeviceError: unknown, or not in this build of ONNX Runtime.
    """
    there = available_devices()
    if wanted == "auto":
        return next(device for device in _AUTO_ORDER if device in there)
    kind, _, number = wanted.partition(":")
    numbered = number.isascii() and number.isdigit() and kind != "cpu"
    if kind not in _PROVIDERS or (":" in wanted and not numbered):
        raise DeviceError(
            f"device {wanted!r} is unknown: use auto, {', '.join(_PROVIDERS)}, or cuda:1 and so on."
        )
    if kind not in there:
        hint = " (install onnxruntime-gpu instead of onnxruntime)" if kind == "cuda" else ""
        raise DeviceError(
            f"device {wanted!r} is not there: this ONNX Runtime has {', '.join(there)}{hint}."
        )
    return wanted


class Session:
    """One InferenceSession of an image-to-image model; safe to run from several threads.

    ``inputs`` and ``outputs`` are ONNX Runtime's descriptions, ``metadata`` the file's key-value pairs.
    """

    def __init__(self, path: str, device: str, threads: int) -> None:
        """Load a model.

        Args:
            path: an .onnx file.
            device: as :func:`resolve_device` returns it.
            threads: cores one run may use on a CPU.

        Raises:
            ModelError: the file is missing or no ONNX model, or keeps weights outside its folder.
            DeviceError: the device's libraries cannot be loaded.
            OutOfMemoryError: too little memory for it.
        """
        if not os.path.isfile(path):
            raise ModelError(f"model file {path} does not exist: check the path.")
        external_files(path)
        self._path = path
        kind, _, number = device.partition(":")
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Costs 38–47 % more memory at batch 4 and gains nothing (DESIGN.md).
        options.enable_mem_pattern = False
        provider: Any = _PROVIDERS[kind]
        if number:
            provider = (provider, {"device_id": int(number)})
        try:
            # Its fallback prints, and would hide that a device is not there.
            self._session = ort.InferenceSession(
                path, options, providers=[provider], enable_fallback=0
            )
            # Names in a damaged file need not be text.
            self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()
            _ = [(port.name, port.shape) for port in (*self.inputs, *self.outputs)]
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            if _is_out_of_memory(error):
                raise OutOfMemoryError(f"there is too little memory to load {path}.") from None
            raise ModelError(
                f"{path} cannot be loaded as an ONNX model: {_one_line(error)}"
            ) from None
        if self._session.get_providers()[0] != _PROVIDERS[kind]:
            raise DeviceError(
                f"device {device!r} could not be started (ONNX Runtime fell back to "
                f"{self._session.get_providers()[0]}): check its driver and libraries."
            )

    def run(self, input_name: str, output_name: str, batch: Tensor, result: Tensor) -> None:
        """Run the model from ``batch`` straight into ``result``, both C-contiguous.

        Raises:
            OutOfMemoryError: it ran out of memory; the session must not be used again.
            InferenceError: the model failed otherwise.
        """
        binding = self._session.io_binding()
        binding.bind_input(input_name, "cpu", 0, batch.dtype, batch.shape, batch.ctypes.data)
        binding.bind_output(output_name, "cpu", 0, result.dtype, result.shape, result.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._failure(error, batch) from None

    def run_free(self, input_name: str, output_name: str, batch: Tensor) -> Tensor | None:
        """Run the model into a new array; None where it fails (for probing)."""
        try:
            (result,) = self._session.run([output_name], {input_name: batch})
        except Exception:  # any failure means that the model does not take this shape
            return None
        return result if isinstance(result, np.ndarray) else None

    def run_several(self, input_name: str, output_names: list[str], batch: Tensor) -> list[Tensor]:
        """Run the model into new arrays, one for each of several outputs.

        Raises:
            OutOfMemoryError: it ran out of memory; the session must not be used again.
            InferenceError: the model failed otherwise.
        """
        try:
            return list(self._session.run(output_names, {input_name: batch}))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._failure(error, batch) from None

    def _failure(self, error: Exception, batch: Tensor) -> InferenceError:
        if _is_out_of_memory(error):
            return OutOfMemoryError(
                f"model {self._path} ran out of memory on a batch of {batch.shape}."
            )
        return InferenceError(
            f"model {self._path} failed on a batch of {batch.shape}: {_one_line(error)}"
        )


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in said for sign in _OUT_OF_MEMORY)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
