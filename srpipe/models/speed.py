"""Compares how fast models run here, in the arrangement srpipe uses on a processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.plan.model_info import ModelInfo

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


class _Runner:
    def __init__(
        self, path: Path, model: ModelInfo, tile: Tensor, cores: int, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._session = Session(str(path), "cpu", 1)
        self._names = model.input_name, model.output_name
        self._tile = tile
        axes = (2, 3) if model.layout == "NCHW" else (1, 2)
        shape = [n * model.scale if i in axes else n for i, n in enumerate(tile.shape)]
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
