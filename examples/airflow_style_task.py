"""A task for Airflow, Prefect or another orchestrator: it may be retried, and be run twice.

    python airflow_style_task.py INPUT OUTPUT [MODEL]

In Airflow, decorate ``enhance_task`` with ``@task(retries=5)`` and let it raise
``AirflowFailException`` in place of ``NoRetryError``; in Prefect, with ``@task(retries=5)`` and a
``retry_condition_fn``.
A retry goes on where the last attempt ended if it finds the job's files again, which are beside OUTPUT:
where workers have disks of their own, OUTPUT belongs on a shared one.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import srpipe

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0


class NoRetryError(Exception):
    """The request itself is wrong: another attempt would fail in the same way."""


def enhance_task(
    src: str,
    dst: str,
    model: str = "lite-x2",
    on_progress: Callable[[float], None] | None = None,
    stop: srpipe.StopRequest | None = None,
) -> dict[str, object]:
    """Enhance one image, unless that has been done.

    Args:
        src: the input.
        dst: the output; it appears only when it is complete, so if it is there, the task is done.
            Name it after what it is made of: the run, the version of the input, the model.
        model: a bundled model's name, or the path of an .onnx file.
        on_progress: called with the share that is done, now and then.
        stop: lets who runs the task in a thread ask it to stop; there no signal arrives.

    Returns:
        What the next task may want to know, as JSON has it.
    """
    if Path(dst).exists():
        return {"output": dst, "skipped": True}
    stop = stop or srpipe.StopRequest()
    last_s = 0.0

    def note(event: srpipe.ProgressEvent) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if event.state == "finished" or now_s - last_s >= HEARTBEAT_S:
            last_s = now_s
            logger.info("%s: %d of %d tiles", dst, event.tiles_done, event.tiles_total)
            if on_progress is not None:
                on_progress(event.tiles_done / event.tiles_total)

    try:
        with stopped_by_sigterm(stop):
            report = srpipe.enhance(src, dst, model=model, progress=note, stop=stop)
    except srpipe.RequestError as error:
        raise NoRetryError(str(error)) from error
    return {
        "output": report.output,
        "skipped": False,
        "size": [report.output_size.width, report.output_size.height],
        "resumed_tiles": report.resumed_tiles,
        "seconds": round(report.seconds, 3),
    }


@contextlib.contextmanager
def stopped_by_sigterm(stop: srpipe.StopRequest) -> Iterator[None]:
    """Orchestrators stop a process by SIGTERM; what is done by then is kept for the next attempt.

    Python takes signals in the main thread only; a task in another one is left to its ``stop``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.request())
    try:
        yield
    finally:
        # None: a handler that is not Python's, which cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(enhance_task(*sys.argv[1:4]))
    except NoRetryError as error:
        sys.exit(f"not to be retried: {error}")
    except srpipe.SrpipeError as error:  # RunError or Interrupted: the next attempt goes on
        sys.exit(f"to be retried: {error}")
