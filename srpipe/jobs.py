"""A job that runs by itself: it is iterated for its progress, cancelled, and asked for its report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

from srpipe.api import PathLike, enhance
from srpipe.forks import note_work, refuse_in_fork
from srpipe.runtime.events import ProgressCallback, ProgressEvent, Report
from srpipe.stop import StopRequest

Run = Callable[[ProgressCallback, StopRequest], Report]

_MOST_EVENTS = 1000


class Job:
    """One image under way in a thread of its own; :func:`start` and :meth:`Enhancer.start` make them.

    Iterating it, with ``for`` or ``async for``, yields its progress events to the end, which may be an
    error that :meth:`result` raises. A loop that is left before the end cancels the job, as leaving the
    block does where the job is a context manager: ask :attr:`done` and :meth:`result` of one that shall
    run on unwatched. One that was cancelled goes on from its last checkpoint when started again.
    """

    def __init__(self, run: Run, name: str) -> None:
        """Start a job.

        Args:
            run: carries it out; called in a thread.
            name: of the thread.
        """
        note_work()
        self._run = run
        self._stop = StopRequest()
        self._events: deque[ProgressEvent] = deque(maxlen=_MOST_EVENTS)
        """Not yet given; nobody need take them, so the oldest go."""
        self._ended = False
        self._news = threading.Condition()
        self._outcome: Report | BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._outcome = self._run(self._put, self._stop)
        except BaseException as error:  # result() raises it
            self._outcome = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _put(self, event: ProgressEvent) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify()

    def __iter__(self) -> Iterator[ProgressEvent]:
        """Progress events as they come, to the end of the job; each is given once, the last thousand
        to who comes late.
        """
        with self._cancelled_if_left():
            while (event := self._next_event()) is not None:
                yield event

    async def __aiter__(self) -> AsyncIterator[ProgressEvent]:
        """The same, for asyncio."""
        with self._cancelled_if_left():
            while (event := await asyncio.to_thread(self._next_event)) is not None:
                yield event

    @contextlib.contextmanager
    def _cancelled_if_left(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.cancel()
            raise

    def _next_event(self) -> ProgressEvent | None:
        refuse_in_fork()
        with self._news:
            self._news.wait_for(lambda: self._events or self._ended)
            return self._events.popleft() if self._events else None

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ask it to stop, once tiles in flight are finished and saved; to ask again changes nothing."""
        if not self._stop.times:
            self._stop.request()

    def result(self) -> Report:
        """Wait for the end.

        Raises:
            SrpipeError: as :func:`srpipe.enhance`; Interrupted where it was cancelled.
        """
        refuse_in_fork()
        self._thread.join()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def __enter__(self) -> Job:
        """The job itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel it, if it is not done, and wait."""
        if not self.done:
            self.cancel()
        self._thread.join()


def start(src: PathLike, dst: PathLike, **settings: Any) -> Job:
    """Enhance one image file in a thread of its own.

    Args:
        src: the input.
        dst: the output.
        settings: as :func:`srpipe.enhance` takes them, but for ``progress`` and ``stop``.
    """
    return start_job(enhance, src, dst, settings)


def start_job(
    enhance_file: Callable[..., Report], src: PathLike, dst: PathLike, settings: dict[str, Any]
) -> Job:
    """Start a job of whatever enhances a file.

    Args:
        enhance_file: called as :func:`srpipe.enhance` is.
        src: the input.
        dst: the output.
        settings: of the caller's.
    """

    def run(progress: ProgressCallback, stop: StopRequest) -> Report:
        return enhance_file(src, dst, progress=progress, stop=stop, **settings)

    return Job(run, f"srpipe-job-{os.path.basename(os.fspath(dst))}")
