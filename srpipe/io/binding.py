"""How a session's input and output reach it: by address, or through a buffer on a device.

On a CPU the session works where the slots are. On a GPU, ONNX Runtime would take new device memory for
every input that is bound by address; one buffer that all runs use again costs nothing and cannot
fail later. Outputs are bound by address in both cases: ONNX Runtime copies them from its arena straight
into the slot at the end of a run, which any buffer of ours would only make longer.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import numpy.typing as npt

from srpipe.io.onnx_runtime import ort

Tensor = npt.NDArray[np.floating]
Batch = npt.NDArray[np.floating] | npt.NDArray[np.integer]


class Binding(Protocol):
    """What a session needs of a way to bind."""

    def run(
        self,
        input_name: str,
        output_name: str,
        batch: Batch,
        result: Tensor,
        options: ort.RunOptions | None = None,
    ) -> None:
        """Run the model from ``batch`` into ``result``, both C-contiguous, from any thread.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """


class HostBinding:
    """Binds input and output by their addresses in the host's memory."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(
        self,
        input_name: str,
        output_name: str,
        batch: Batch,
        result: Tensor,
        options: ort.RunOptions | None = None,
    ) -> None:
        """Run the model; see :class:`Binding`."""
        binding = self._session.io_binding()
        binding.bind_input(input_name, "cpu", 0, batch.dtype, batch.shape, batch.ctypes.data)
        binding.bind_output(output_name, "cpu", 0, result.dtype, result.shape, result.ctypes.data)
        self._session.run_with_iobinding(binding, options)


class DeviceBinding:
    """Copies inputs into one buffer on a device; runs wait for each other."""

    def __init__(self, session: ort.InferenceSession, memory: str, number: int) -> None:
        """Bind for a device.

        Args:
            session: runs on the device.
            memory: ONNX Runtime's name for its kind of memory: ``cuda``, or ``cpu`` for trying out.
            number: the device's number.
        """
        self._session = session
        self._memory = memory
        self._number = number
        self._lock = threading.Lock()
        self._buffer: ort.OrtValue | None = None
        self._holds: tuple[str, tuple[int, ...], np.dtype] | None = None

    def run(
        self,
        input_name: str,
        output_name: str,
        batch: Batch,
        result: Tensor,
        options: ort.RunOptions | None = None,
    ) -> None:
        """Run the model; see :class:`Binding`."""
        with self._lock:
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(input_name, self._filled(input_name, batch))
            binding.bind_output(
                output_name, "cpu", 0, result.dtype, result.shape, result.ctypes.data
            )
            self._session.run_with_iobinding(binding, options)

    def _filled(self, input_name: str, batch: Batch) -> ort.OrtValue:
        """The buffer with ``batch`` in it; the copy is complete when this returns."""
        holds = (input_name, batch.shape, batch.dtype)
        if self._buffer is None or holds != self._holds:
            self._buffer = None  # gone before the next is made
            # Made by the thread that runs: CUDA's current device is a thread's own.
            self._buffer = ort.OrtValue.ortvalue_from_shape_and_type(
                list(batch.shape), batch.dtype, self._memory, self._number
            )
            self._holds = holds
        self._buffer.update_inplace(batch)
        return self._buffer
