"""ONNX Runtime alone: ready batches through a session, nothing read, blended or written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np

from srpipe.io.beyond import FrameReader
from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.plan.colour import pad_edges
from srpipe.plan.job import Plan
from srpipe.runtime.sessions import session_content

MAX_READY_BATCHES = 16
_CALIBRATION_S = 1.0
_CALIBRATION_ROUNDS = 3


@dataclass(frozen=True)
class Arrangement:
    """How the cores are shared out."""

    callers: int
    """Threads that call ``run`` on one session."""
    threads: int
    """Cores that one run uses."""

    def __str__(self) -> str:
        runs = "run" if self.callers == 1 else "runs"
        return f"{self.callers} {runs} on {self.threads} thread{'s' * (self.threads > 1)}"


def candidates(plan: Plan) -> list[Arrangement]:
    """The arrangements that can be the fastest: one run on all cores, or a run on each."""
    cores = plan.threads * plan.workers
    one_run = Arrangement(1, cores)
    if plan.device != "cpu" or cores == 1:
        return [one_run]
    return [one_run, Arrangement(cores, 1)]


class RawSession:
    """One session with ready batches of a job, run in one arrangement."""

    def __init__(self, plan: Plan, arrangement: Arrangement, batches: Sequence[Tensor]) -> None:
        """Load the model, and run it once in every caller."""
        self._model = plan.model
        self._batches = batches
        self._callers = arrangement.callers
        # The graph that the pipeline runs, so that the difference is what surrounds it.
        content = session_content(plan)
        self._session = Session(plan.model.path, plan.device, arrangement.threads, content)
        shape, dtype = plan.slot_shapes.result, plan.model.dtype
        self._results = [np.zeros(shape, dtype) for _ in range(arrangement.callers)]
        self.time_s(arrangement.callers)

    def time_s(self, count: int) -> float:
        """Seconds that ``count`` batches take."""
        tickets = iter(range(count))  # next() of it is atomic

        def call(result: Tensor) -> None:
            for ticket in tickets:
                batch = self._batches[ticket % len(self._batches)]
                self._session.run(self._model.input_name, self._model.output_name, batch, result)

        with ThreadPoolExecutor(self._callers) as pool:
            begin_s = time.perf_counter()
            for call_done in [pool.submit(call, result) for result in self._results]:
                call_done.result()
            return time.perf_counter() - begin_s


def n_batches(plan: Plan) -> int:
    """Batches in the job, the last one filled up."""
    return -(-plan.grid.n_tiles // plan.batch_size)


def ready_batches(plan: Plan) -> list[Tensor]:
    """Some batches of the job, evenly spread over the picture, as the batcher packs them."""
    n = min(n_batches(plan), MAX_READY_BATCHES)
    reader = FrameReader(plan.image, plan.frame, fill=False, whole_so_far=True)
    colour = plan.colour
    shapes = plan.slot_shapes
    pixels = np.zeros(shapes.tile, plan.image.numpy_dtype)
    batches = []
    for k in range(n):
        batch = np.zeros(shapes.batch, plan.model.dtype)
        first = k * n_batches(plan) // n * plan.batch_size
        tiles = range(first, min(first + plan.batch_size, plan.grid.n_tiles))
        for i, tile in enumerate(tiles):
            rect = plan.grid.at(tile).source
            reader.read(rect, pixels)
            pad_edges(pixels, rect.height, rect.width)
            colour.pack(pixels, batch[i])
        batch[len(tiles) :] = batch[len(tiles) - 1]
        batches.append(batch)
    return batches


def find_fastest(plan: Plan, batches: Sequence[Tensor]) -> Arrangement:
    """Try the candidates in turn, several times for about a second, and take the fastest."""
    choices = candidates(plan)
    if len(choices) == 1:
        return choices[0]
    sessions = [RawSession(plan, choice, batches) for choice in choices]
    multiple = 2 * max(choice.callers for choice in choices)  # no caller is left without work
    guess_s = sessions[0].time_s(multiple) / multiple
    enough = min(_CALIBRATION_S / guess_s, n_batches(plan))
    count = multiple * max(1, round(enough / multiple))
    times: list[list[float]] = [[] for _ in choices]
    for _, k in itertools.product(range(_CALIBRATION_ROUNDS), range(len(choices))):
        times[k].append(sessions[k].time_s(count))
    return min(zip(times, choices, strict=True), key=lambda pair: median(pair[0]))[1]
