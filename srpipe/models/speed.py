"""How fast models run here: about, for deciding what is worth measuring, and against each other."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from srpipe.errors import ModelError, SrpipeError
from srpipe.io.binding import Tensor
from srpipe.io.cache import read_cached_json, write_cached_json
from srpipe.io.child import most_bytes, try_out
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import processor_name
from srpipe.io.session import Session
from srpipe.plan.model_info import ModelInfo

logger = logging.getLogger(__name__)

_KIND = "speeds"
_ROUGH_PX = 128
ROUNDS = 7
_ROUND_S = 0.25
_MAX_RUNS = 1000


def compare_speeds(
    paths: Sequence[Path],
    model: ModelInfo,
    tile: Tensor,
    cores: int,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Megapixels of input a second of models that take and give the same.

    One session each, run by as many threads as there are cores with one core each; the models take
    turns, so that what else the machine does meets all alike; the median counts.

    Args:
        paths: .onnx files.
        model: what is known of all of them.
        tile: a batch.
        cores: how many to use.
        rounds: turns that each takes.
        clock: tells seconds; with ``time.process_time``, seconds of processor time, which depend
            little on what else the machine does.
    """
    runners = [_Runner(path, model, tile, cores, clock) for path in paths]
    runs = 2 * cores
    runs = min(_MAX_RUNS, max(runs, round(runs * _ROUND_S / runners[0].time_s(runs))))
    times = [[runner.time_s(runs) for runner in runners] for _ in range(rounds)]
    megapixels = runs * tile.size / model.channels / 1e6
    return [megapixels / median(taken) for taken in zip(*times, strict=True)]


def rough_speed(info: ModelInfo, device: str, cores: int) -> float | None:
    """About how many megapixels of input a model computes in a second; None if it cannot be run.

    It is measured once, in a process of its own, and kept: it decides what is worth measuring well.

    Args:
        info: the model.
        device: one device.
        cores: of the processor, for one run.
    """
    facts = (info.sha256, device, cores, processor_name(), onnx_runtime_version())
    name = hashlib.sha256(repr(facts).encode()).hexdigest()
    kept: float | None = read_cached_json(_KIND, name, _parse_speed)
    if kept is not None:
        return kept
    try:
        speed = try_out(info.path, partial(_measure_speed, info, device, cores), most_bytes())
    except SrpipeError as error:
        logger.info("the speed of %s cannot be measured: %s", info.name, error)
        return None
    write_cached_json(_KIND, name, speed)
    return speed


def _parse_speed(value: Any) -> float:
    speed = float(value)
    if not (speed > 0 and math.isfinite(speed)):
        raise ValueError(f"{speed} is no speed")
    return speed


def _measure_speed(info: ModelInfo, device: str, cores: int) -> float:
    from srpipe.models.rewrite.check import laid_out, tile_shape  # imports onnx

    side_px = min(_ROUGH_PX, info.tile_px or _ROUGH_PX)
    shape = tile_shape(info, side_px, side_px)
    tile = laid_out(info, np.full(shape, sum(info.value_range) / 2, np.float32))
    session = Session(info.path, device, cores)
    times = []
    for _ in range(2):  # the first pays for memory that the second finds
        begin_s = time.perf_counter()
        if session.run_free(info.input_name, info.output_name, tile) is None:
            raise ModelError(f"{info.path} fails on a tile of {shape}.")
        times.append(time.perf_counter() - begin_s)
    return tile.size / info.channels / 1e6 / min(times)


class _Runner:
    def __init__(
        self, path: Path, model: ModelInfo, tile: Tensor, cores: int, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._session = Session(str(path), "cpu", 1)
        self._names = model.input_name, model.output_name
        self._tile = tile
        shape = model.result_shape(tile.shape)
        self._results = [np.zeros(shape, tile.dtype) for _ in range(cores)]
        self.time_s(cores)

    def time_s(self, runs: int) -> float:
        """Seconds that a number of runs take."""
        tickets = iter(range(runs))  # next() of it is atomic

        def call(result: Tensor) -> None:
            for _ in tickets:
                self._session.run(*self._names, self._tile, result)

        with ThreadPoolExecutor(len(self._results)) as pool:
            begin_s = self._clock()
            for done in [pool.submit(call, result) for result in self._results]:
                done.result()
            return self._clock() - begin_s
