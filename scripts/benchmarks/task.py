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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .processes import TreeSampler, Usage

Kind = Literal[
    "calibrate", "raw", "pipeline", "loop", "wheel", "ncnn", "torch", "whole", "codec", "many",
    "one by one", "raw many",
]  # fmt: skip

_SCRIPTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Request:
    """What to measure."""

    kind: Kind
    source: str
    """A picture; for the kinds of many pictures their folder."""
    output: str
    """The picture to write; for the kinds of many pictures their folder."""
    model: str
    """The path of an .onnx file; for wheel and ncnn of a .param."""
    callers: int = 0
    """Of the raw session's arrangement; for many the threads that call one Enhancer."""
    threads: int = 0
    cores: int = 0
    """Of the process and its children; 0: as many as there are."""


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


def _time(work: Callable[[], object]) -> dict[str, Any]:
    """Wall and processor seconds of ``work``, its processes included."""
    begin_s, begin_cpu_s = time.perf_counter(), _cpu_s()
    work()
    return {"seconds": time.perf_counter() - begin_s, "cpu_s": _cpu_s() - begin_cpu_s}


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
    return _time(lambda: session.time_s(n_batches(plan)))


def _pipeline(request: Request) -> dict[str, Any]:
    import srpipe

    reports = []
    answer = _time(
        lambda: reports.append(
            srpipe.enhance(request.source, request.output, model=request.model, overwrite=True)
        )
    )
    return answer | {"stages": reports[0].as_dict()["stages"]}


def _loop(request: Request) -> dict[str, Any]:
    from .plain_loop import enhance_plainly

    return _time(lambda: enhance_plainly(request.source, request.output, request.model))


def _wheel(request: Request) -> dict[str, Any]:

    from .ncnn_loop import enhance_by_wheel

    return _time(lambda: enhance_by_wheel(request.source, request.output, request.model))


def _ncnn(request: Request) -> dict[str, Any]:
    import ncnn  # noqa: F401

    from .ncnn_loop import enhance_by_ncnn

    n = available_threads()
    return _time(lambda: enhance_by_ncnn(request.source, request.output, request.model, n))


def _torch(request: Request) -> dict[str, Any]:
    from .torch_loop import enhance_by_torch

    n = available_threads()
    return _time(lambda: enhance_by_torch(request.source, request.output, request.model, n))


def _whole(request: Request) -> dict[str, Any]:
    """The picture as one tile: what all tilings want to be."""
    import srpipe

    size = srpipe.read_image_info(request.source).size
    side_px = max(size.width, size.height)
    srpipe.enhance(
        request.source, request.output, model=request.model, tile_size=side_px, overlap=0,
        engine="serial", rewrite=False, reuse=False, overwrite=True,
    )  # fmt: skip
    return {}


def _codec(request: Request) -> dict[str, Any]:
    """Decode the source, and encode what lies decoded of the output, as its file stands there."""
    from .pixels import read_picture, write_picture

    result = read_picture(request.output)

    def both() -> None:
        read_picture(request.source)
        write_picture(result, again)

    again = f"{request.output}.again.tif"
    answer = _time(both)
    os.unlink(again)
    return answer


def _many(request: Request) -> dict[str, Any]:
    from .many import enhance_many

    return _time(
        lambda: enhance_many(request.source, request.output, request.model, request.callers)
    )


def _one_by_one(request: Request) -> dict[str, Any]:
    from .many import enhance_one_by_one

    return _time(lambda: enhance_one_by_one(request.source, request.output, request.model))


def _raw_many(request: Request) -> dict[str, Any]:
    from .many import raw_session_of_many

    session, count = raw_session_of_many(request)
    return _time(lambda: session.time_s(count))


def available_threads() -> int:
    """Cores of this process."""
    from srpipe.api import available_cores

    return available_cores()


def _plan(request: Request) -> Any:
    from srpipe.api import prepare
    from srpipe.settings import Settings

    settings = Settings(model=request.model, overwrite=True)
    return prepare(request.source, request.output, settings)


_TASKS: dict[Kind, Callable[[Request], dict[str, Any]]] = {
    "calibrate": _calibrate,
    "raw": _raw,
    "pipeline": _pipeline,
    "loop": _loop,
    "wheel": _wheel,
    "ncnn": _ncnn,
    "torch": _torch,
    "whole": _whole,
    "codec": _codec,
    "many": _many,
    "one by one": _one_by_one,
    "raw many": _raw_many,
}


def _keep_to(cores: int) -> None:
    """Leave this process, and those it starts, so many of the cores it has."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


if __name__ == "__main__":
    _request = Request(**json.loads(sys.argv[1]))
    if _request.cores:
        _keep_to(_request.cores)
    print(json.dumps(_TASKS[_request.kind](_request)))
