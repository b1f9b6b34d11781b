"""The ``srpipe`` command and ``python -m srpipe``: interruptions are caught from the first moment."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from srpipe.stop import StopRequest


class _Interruptions:
    """Turns SIGINT and SIGTERM into a request to stop.

    Where no run listens yet, the first one is a KeyboardInterrupt as well, and later ones are
    nothing: they must not break the clean-up. They are not ignored by SIG_IGN: Python complains of
    a signal that came just before it was ignored.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        first = not self._stop.times
        if first:
            self._stop.signal_number = number
        self._stop.request()
        if first and not self._stop.heeded:
            raise KeyboardInterrupt


def main() -> int:
    """Run the command line; returns the exit code."""
    stop = StopRequest()
    try:
        _Interruptions(stop)
        from srpipe.cli.main import main as run

        return run(stop=stop)
    except BaseException:
        # An interruption in the middle of an import comes as whatever that module made of it.
        if stop.times:
            print("srpipe: interrupted.", file=sys.stderr)
            return stop.exit_code
        raise


if __name__ == "__main__":
    sys.exit(main())
