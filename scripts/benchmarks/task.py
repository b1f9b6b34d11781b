"""One measurement in a process of its own: ``python -m benchmarks.task REQUEST``.

The request is a JSON object, and so is the answer, the last line on standard output. A fresh process
makes the memory of each measurement its own, and lets none warm another up.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .processes import TreeSampler, Usage

Kind = Literal["calibrate", "raw", "pipeline", "loop"]

_SCRIPTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Request:
    """What to measure."""

    kind: Kind
    source: str
    output: str
    model: str
    """The path of an .onnx file."""
    callers: int = 0
    """Of the raw session's arrangement."""
    threads: int = 0


class TaskError(RuntimeError):
    """A measurement failed; the message is the last line of what it said."""


def run_task(request: Request) -> tuple[dict[str, Any], Usage]:
    """Carry out a request in a new process; returns its answer and what it took.

    Raises:
        TaskError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.task", json.dumps(asdict(request))]
    paths = [str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        with TreeSampler(process.pid) as sampler:
            said, complained = process.communicate()
        if process.returncode:
            words = complained.strip().splitlines() or [f"exit code {process.returncode}"]
            raise TaskError(f"measuring the {request.kind} of {request.model} failed: {words[-1]}")
    answer: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return answer, sampler.usage


@contextmanager
def _timed(answer: dict[str, Any]) -> Iterator[None]:
    """Put wall and processor seconds of the block, its processes included, into ``answer``."""
    begin_s, begin_cpu_s = time.perf_counter(), _cpu_s()
    yield
    answer["seconds"] = time.perf_counter() - begin_s
    answer["cpu_s"] = _cpu_s() - begin_cpu_s


def _cpu_s() -> float:
    """Processor seconds of this process and of those it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _calibrate(request: Request) -> dict[str, Any]:
    from .raw_session import find_fastest, ready_batches

    plan = _plan(request)
    return asdict(find_fastest(plan, ready_batches(plan)))


def _raw(request: Request) -> dict[str, Any]:
    from .raw_session import Arrangement, RawSession, n_batches, ready_batches

    plan = _plan(request)
    arrangement = Arrangement(request.callers, request.threads)
    session = RawSession(plan, arrangement, ready_batches(plan))
    answer: dict[str, Any] = {}
    with _timed(answer):
        session.time_s(n_batches(plan))
    return answer


def _pipeline(request: Request) -> dict[str, Any]:
    import srpipe

    answer: dict[str, Any] = {}
    with _timed(answer):
        report = srpipe.enhance(request.source, request.output, model=request.model, overwrite=True)
    return answer | {"stage_s": report.stage_s}


def _loop(request: Request) -> dict[str, Any]:
    from .plain_loop import enhance_plainly

    answer: dict[str, Any] = {}
    with _timed(answer):
        enhance_plainly(request.source, request.output, request.model)
    return answer


def _plan(request: Request) -> Any:
    from srpipe.api import prepare
    from srpipe.settings import Settings

    settings = Settings(model=request.model, overwrite=True)
    return prepare(request.source, request.output, settings)


_TASKS = {"calibrate": _calibrate, "raw": _raw, "pipeline": _pipeline, "loop": _loop}

if __name__ == "__main__":
    _request = Request(**json.loads(sys.argv[1]))
    print(json.dumps(_TASKS[_request.kind](_request)))
