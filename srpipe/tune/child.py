"""What the processes of :mod:`srpipe.tune.stopwatch` do: they run candidates.

Every candidate has a session of its own, as the job would have it, so that what it takes of the memory
can be told from the others.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from srpipe.errors import SrpipeError
from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.models.sample import make_picture
from srpipe.models.tile_memory import reset_peak, status_bytes
from srpipe.plan.geometry import Size
from srpipe.plan.model_info import ModelInfo

# A first run pays for memory that later ones find: there are others unless they would take long.
_SHORT_S = 1.0
_MORE_S = 0.1
_PICTURE_TILES = 4


class _Runs:
    """One candidate's session, and what its runners read and write."""

    def __init__(self, info: ModelInfo, request: dict[str, Any]) -> None:
        self._names = info.input_name, info.output_name
        batch = _noise(info, request["shape"])
        results = [
            np.ones(info.result_shape(batch.shape), info.dtype) for _ in range(request["runners"])
        ]
        before = status_bytes("VmRSS")
        peak = reset_peak()
        self._session = _load(info, request, request["device"])
        self._batch, self._results = batch, results
        self._pool = ThreadPoolExecutor(len(results))
        self.first_s = self.time_s(1)
        self.n_bytes = max(status_bytes(peak) - before, 0)
        if self.first_s < _SHORT_S:
            begin_s = time.perf_counter()
            times_s = [self.time_s(1)]
            while time.perf_counter() - begin_s < _MORE_S:
                times_s.append(self.time_s(1))
            self.first_s = min(times_s)

    def time_s(self, rounds: int) -> float:
        """Seconds in which every runner runs so often."""
        begin_s = time.perf_counter()
        for done in [self._pool.submit(self._run, result, rounds) for result in self._results]:
            done.result()
        return time.perf_counter() - begin_s

    def _run(self, result: Tensor, rounds: int) -> None:
        for _ in range(rounds):
            self._session.run(*self._names, self._batch, result)

    def close(self) -> None:
        self._pool.shutdown()


_loaded: dict[str, _Runs] = {}


def carry_out(info: ModelInfo, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request of :class:`srpipe.tune.stopwatch.Stopwatch`.

    Args:
        info: the model.
        request: what to ``do``, and with what.

    Returns:
        What was measured, or an ``error``.
    """
    try:
        return _answer(info, request)
    except (SrpipeError, MemoryError) as error:
        return {"error": str(error) or "too little memory"}


def _answer(info: ModelInfo, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "load":
            runs = _loaded[request["name"]] = _Runs(info, request)
            return {"seconds": runs.first_s, "bytes": runs.n_bytes}
        case "time":
            begin_s = time.process_time()
            seconds = _loaded[request["name"]].time_s(request["rounds"])
            return {"seconds": seconds, "cpu_s": time.process_time() - begin_s}
        case "drop":
            _loaded.pop(request["name"]).close()
            return {}
        case "differ":
            return {"levels": _differ(info, request)}
    raise SrpipeError(f"there is no request {request['do']!r}.")


def _differ(info: ModelInfo, request: dict[str, Any]) -> float:
    """The largest difference of a device's results from the processor's, levels of 255."""
    first, second = (_load(info, request, name) for name in ("cpu", request["device"]))
    low, high = info.value_range
    n, height, width = request["shape"]
    picture = make_picture(Size(_PICTURE_TILES * n * width, height), info.channels)
    largest = 0.0
    for k in range(_PICTURE_TILES):
        tiles = picture[:, k * n * width : (k + 1) * n * width]
        tiles = tiles.reshape(height, n, width, -1).transpose(1, 3, 0, 2)
        batch = _laid_out(info, tiles / np.float32(255) * (high - low) + low)
        results = []
        for session in (first, second):
            result = np.zeros(info.result_shape(batch.shape), info.dtype)
            session.run(info.input_name, info.output_name, batch, result)
            results.append(np.clip(result.astype(np.float32), low, high))
        difference = float(np.abs(results[0] - results[1]).max())
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest / float(high - low) * 255


def _load(info: ModelInfo, request: dict[str, Any], device: str) -> Session:
    path = info.path if device == "cpu" else request["other_path"]
    return Session(path, device, request["threads"])


def _noise(info: ModelInfo, shape: list[int]) -> Tensor:
    n, height, width = shape
    low, high = info.value_range
    noise = np.random.default_rng(0).random((n, info.channels, height, width), np.float32)
    return _laid_out(info, noise * np.float32(high - low) + np.float32(low))


def _laid_out(info: ModelInfo, nchw: Tensor) -> Tensor:
    axes = (0, 1, 2, 3) if info.layout == "NCHW" else (0, 2, 3, 1)
    return np.ascontiguousarray(nchw.transpose(axes), info.dtype)
