"""ONNX Runtime sessions: creation on a device, and runs whose input and output are bound to buffers."""

from __future__ import annotations

import os

import numpy as np

from srpipe.errors import DeviceError, InferenceError, ModelError, OutOfMemoryError
from srpipe.forks import keep_in_forks, refuse_in_fork
from srpipe.io.binding import Batch, Binding, DeviceBinding, HostBinding, Tensor
from srpipe.io.child import time_limit
from srpipe.io.devices import Device, Provider
from srpipe.io.external_data import external_files, loadable_path
from srpipe.io.onnx_runtime import is_out_of_memory, one_line, ort, session_options


class Terminator:
    """Ends runs that are under way, from any thread; those that begin later end at once."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    @property
    def terminated(self) -> bool:
        """Whether they are ended."""
        return bool(self.options.terminate)

    def terminate(self) -> None:
        """End them; they raise."""
        self.options.terminate = True


class Session:
    """One InferenceSession of an image-to-image model; safe to run from several threads.

    ``inputs`` and ``outputs`` are ONNX Runtime's descriptions, ``metadata`` the file's key-value pairs.
    """

    def __init__(self, path: str, device: str, threads: int, content: bytes | None = None) -> None:
        """Load a model.

        Args:
            path: an .onnx file.
            device: one device, as :func:`srpipe.io.devices.resolve_device` returns it.
            threads: cores one run may use on a CPU.
            content: what to load instead of the file, serialized; weights in other files are still
                looked for beside it.

        Raises:
            ModelError: the file is missing or no ONNX model, or keeps weights outside its folder.
            DeviceError: the device is not there, its libraries cannot be loaded, or it cannot run
                the model.
            OutOfMemoryError: too little memory for it.
        """
        if not os.path.isfile(path):
            raise ModelError(f"model file {path} does not exist: check the path.")
        external_files(path)
        self._path = path
        self._content = content
        self._threads = threads
        refuse_in_fork()
        wanted = Device.parse(device)
        wanted.prepare()
        providers = wanted.providers(path, threads)
        self._session = self._load(wanted, providers)
        keep_in_forks(self._session)
        names = {name for name, _ in providers}
        if dropped := names - set(self._session.get_providers()):
            raise wanted.error(f"ONNX Runtime dropped {', '.join(sorted(dropped))}")
        # Names in a damaged file need not be text.
        try:
            self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()
            _ = [(port.name, port.shape) for port in (*self.inputs, *self.outputs)]
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._model_error(error) from None
        self._binding: Binding = (
            HostBinding(self._session)
            if wanted.buffers is None
            else DeviceBinding(self._session, wanted.buffers, wanted.number)
        )

    def _load(self, device: Device, providers: list[Provider]) -> ort.InferenceSession:
        try:
            return self._start(providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    f"there is too little memory to load {self._path} on {device}."
                ) from None
            if device.kind == "cpu":
                raise self._model_error(error) from None
            raise self._blame(device, error) from None

    def _blame(self, device: Device, error: Exception) -> ModelError | DeviceError:
        """Whether the model or the device is why a session cannot be made: a CPU tells."""
        try:
            self._start(Device("cpu", 0).providers(self._path))
        except Exception as model_error:
            return self._model_error(model_error)
        return device.error(one_line(error))

    def _start(self, providers: list[Provider]) -> ort.InferenceSession:
        options = session_options()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Costs 38–47 % more memory at batch 4 and gains nothing (DESIGN.md).
        options.enable_mem_pattern = False
        if self._content is not None:
            folder = os.path.dirname(os.path.abspath(self._path))
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", folder
            )
        # Its fallback prints, and would hide that a device is not there.
        with time_limit():
            return ort.InferenceSession(
                loadable_path(self._path) if self._content is None else self._content,
                options,
                providers=providers,
                enable_fallback=0,
            )

    def _model_error(self, error: Exception) -> ModelError:
        return ModelError(f"{self._path} cannot be loaded as an ONNX model: {one_line(error)}")

    def run(
        self,
        input_name: str,
        output_name: str,
        batch: Batch,
        result: Tensor,
        terminator: Terminator | None = None,
    ) -> None:
        """Run the model from ``batch`` straight into ``result``, both C-contiguous.

        Raises:
            OutOfMemoryError: it ran out of memory; the session must not be used again.
            InferenceError: the model failed otherwise.
        """
        try:
            options = terminator.options if terminator else None
            with time_limit(batch.size):
                self._binding.run(input_name, output_name, batch, result, options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._failure(error, batch) from None

    def run_free(self, input_name: str, output_name: str, batch: Tensor) -> Tensor | None:
        """Run the model into a new array; None where it fails (for probing).

        Raises:
            OutOfMemoryError: it ran out of memory.
        """
        try:
            (result,) = self.run_several(input_name, [output_name], batch)
        except OutOfMemoryError:
            raise
        except InferenceError:  # any failure means that the model does not take this shape
            return None
        return result if isinstance(result, np.ndarray) else None

    def run_several(self, input_name: str, output_names: list[str], batch: Tensor) -> list[Tensor]:
        """Run the model into new arrays, one for each of several outputs.

        Raises:
            OutOfMemoryError: it ran out of memory; the session must not be used again.
            InferenceError: the model failed otherwise.
        """
        try:
            with time_limit(batch.size):
                return list(self._session.run(output_names, {input_name: batch}))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._failure(error, batch) from None

    def _failure(self, error: Exception, batch: Batch) -> InferenceError:
        if is_out_of_memory(error):
            return OutOfMemoryError(
                f"model {self._path} ran out of memory on a batch of {batch.shape}."
            )
        return InferenceError(
            f"model {self._path} failed on a batch of {batch.shape}: {one_line(error)}"
        )
