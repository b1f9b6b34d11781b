"""A few tasks at a time, in threads, taken as they can be begun and given as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from srpipe.forks import refuse_in_fork
from srpipe.stop import StopRequest

_WAIT_S = 0.5
T = TypeVar("T")


def run_at_once(tasks: Iterator[Callable[[], T]], at_once: int, stop: StopRequest) -> Iterator[T]:
    """Run tasks.

    Args:
        tasks: each is called in a thread; they must not raise.
        at_once: how many are under way.
        stop: once it is asked, no task is begun; tasks see to it themselves that they end. Asked
            where the iterator is given up.

    Yields:
        What tasks return, as they are done.
    """
    futures: set[Future[T]] = set()
    with ThreadPoolExecutor(at_once, "srpipe-image") as pool:
        try:
            while True:
                refuse_in_fork()
                room = 0 if stop.times else at_once - len(futures)
                futures |= {pool.submit(task) for task in islice(tasks, room)}
                if not futures:
                    return
                done, _ = wait(futures, _WAIT_S, FIRST_COMPLETED)
                for future in done:
                    futures.remove(future)
                    yield future.result()
        except BaseException:
            if not stop.times:
                stop.request()
            raise
