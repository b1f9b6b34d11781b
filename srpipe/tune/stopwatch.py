"""Times a model in processes of their own: their memory is given back, their failure is contained."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.io.child import Child
from srpipe.io.devices import runs_on_processor
from srpipe.plan.geometry import Size
from srpipe.plan.model_info import ModelInfo
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.child import carry_out
from srpipe.tune.search import Loaded

_TIMEOUT_S = 120.0
_MAX_LEVELS = 1.0
# Threads of ONNX Runtime that wait for each other spin, so that all cores of a run are busy.
_UNDISTURBED = 0.85
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    # Large blocks go back to the system when they are freed: else glibc keeps more and more of them,
    # and what a session takes could not be seen.
    "MALLOC_MMAP_THRESHOLD_": "262144",
}


class Stopwatch:
    """Runs candidates; a context manager that leaves no process behind."""

    def __init__(self, info: ModelInfo, most_bytes: int, other_path: str = "") -> None:
        """Prepare to time a model.

        Args:
            info: the model.
            most_bytes: what all sessions that are kept ready may take together.
            other_path: the file for all devices but the plain processor; "": the same.
        """
        self._info = info
        self._other_path = other_path or info.path
        self._most_bytes = most_bytes
        self._processes: list[_Process] = []
        self._loaded: dict[Candidate, int] = {}
        """Bytes by candidate, the one used last at the end."""
        self._got_s = self._wanted_s = 0.0

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def load(self, candidate: Candidate) -> Loaded:
        """Start a candidate's sessions, and run each runner once; see :class:`Timer`."""
        arrangement = candidate.arrangement
        self._make_room(candidate)
        answers = self._ask(
            arrangement.workers,
            do="load",
            name=str(candidate),
            shape=_shape(candidate),
            devices=arrangement.device.split(","),
            threads=arrangement.threads,
            runners=arrangement.runners,
        )
        taken = max(int(answer["bytes"]) for answer in answers)
        self._loaded[candidate] = taken * arrangement.workers
        self._make_room()
        return Loaded(max(float(answer["seconds"]) for answer in answers), taken)

    def time_s(self, candidate: Candidate, rounds: int) -> float:
        """Seconds in which every runner runs ``rounds`` times; see :class:`Timer`."""
        if candidate not in self._loaded:
            self.load(candidate)
        self._loaded[candidate] = self._loaded.pop(candidate)
        answers = self._ask(
            candidate.arrangement.workers, do="time", name=str(candidate), rounds=rounds
        )
        seconds = [float(answer["seconds"]) for answer in answers]
        if runs_on_processor(candidate.arrangement.device):
            self._got_s += sum(float(answer["cpu_s"]) for answer in answers)
            self._wanted_s += sum(seconds) * candidate.arrangement.session_threads
        return max(seconds)

    @property
    def is_disturbed(self) -> bool:
        """Whether others have taken much of the processor's time while candidates were timed."""
        return self._got_s < _UNDISTURBED * self._wanted_s

    def agrees(self, arrangement: Arrangement, tile: Size) -> bool:
        """Whether a device gives the processor's results, within a level of 255."""
        (answer,) = self._ask(
            1,
            do="differ",
            devices=[arrangement.device],
            shape=_shape(Candidate(arrangement, tile, self._info.batch or 1)),
            threads=arrangement.threads,
        )
        return float(answer["levels"]) <= _MAX_LEVELS

    def _make_room(self, candidate: Candidate | None = None) -> None:
        """Let go of sessions, for one more that takes as much for its pixels as any did."""
        more_bytes, least = 0.0, 1
        if candidate is not None and self._loaded:
            shares = (taken / other.pixels for other, taken in self._loaded.items())
            more_bytes, least = max(shares) * candidate.pixels, 0
        while sum(self._loaded.values()) + more_bytes > self._most_bytes:
            if len(self._loaded) <= least:
                break
            self._drop(next(iter(self._loaded)))

    def _drop(self, candidate: Candidate) -> None:
        del self._loaded[candidate]
        self._ask(candidate.arrangement.workers, do="drop", name=str(candidate))

    def _ask(self, workers: int, **request: Any) -> list[dict[str, Any]]:
        """The answers of so many processes, which work at the same time."""
        try:
            while len(self._processes) < workers:
                self._processes.append(_Process(self._info, self._other_path))
            asked = self._processes[:workers]
            devices = request.pop("devices", ())
            for i, process in enumerate(asked):
                device = {"device": devices[i % len(devices)]} if devices else {}
                process.send(request | device)
            answers = [process.receive() for process in asked]
        except (OutOfMemoryError, StageError):
            self._end()
            raise
        for answer in answers:
            if "error" in answer:
                raise StageError(answer["error"])
        return answers

    def _end(self) -> None:
        self._loaded.clear()
        while self._processes:
            self._processes.pop().end()


class _Process:
    def __init__(self, info: ModelInfo, other_path: str) -> None:
        self._info, self._other_path = info, other_path
        self._child = Child(environment=_ENVIRONMENT)
        self.end = self._child.end

    def send(self, request: dict[str, Any]) -> None:
        self._child.start(carry_out, self._info, request | {"other_path": self._other_path})

    def receive(self) -> dict[str, Any]:
        told: dict[str, Any] = self._child.result(_TIMEOUT_S)
        return told


def _shape(candidate: Candidate) -> tuple[int, int, int]:
    return candidate.batch, candidate.tile.height, candidate.tile.width
