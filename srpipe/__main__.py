"""The ``srpipe`` command and ``python -m srpipe``: interruptions are caught from the first moment."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from srpipe.stop import StopRequest
from srpipe.terminal import open_standard_streams, say

_INTERRUPTED = "srpipe: interrupted.\n"


class _Interruptions:
    """Turns SIGINT and SIGTERM into a request to stop.

    While modules are imported there is nothing to clean up, and compiled ones print a KeyboardInterrupt
    before they pass it on: the process ends at once. After that, where no run listens yet, the first
    one is a KeyboardInterrupt as well, and later ones are nothing: they must not break the clean-up.
    They are not ignored by SIG_IGN: Python complains of a signal that came just before it was ignored.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self.importing = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        first = not self._stop.times
        if first:
            self._stop.signal_number = number
        self._stop.request()
        if self.importing:
            os.write(sys.stderr.fileno(), _INTERRUPTED.encode())
            os._exit(self._stop.exit_code)
        if first and not self._stop.heeded:
            raise KeyboardInterrupt


def main() -> int:
    """Run the command line; returns the exit code."""
    open_standard_streams()
    stop = StopRequest()
    try:
        interruptions = _Interruptions(stop)
        try:
            from srpipe.cli.main import main as run
        except ImportError as error:  # a damaged installation
            return _without_commands(error)

        interruptions.importing = False
        return run(stop=stop)
    except BaseException:
        # Modules that are imported late make of an interruption whatever they like.
        if stop.times:
            sys.stderr.write(_INTERRUPTED)
            return stop.exit_code
        raise


def _without_commands(error: ImportError) -> int:
    """What can be done where a library cannot be imported: tell which."""
    if sys.argv[1:2] == ["doctor"]:
        from srpipe.cli.doctor import run_alone

        return run_alone(sys.argv[2:])
    reason = (str(error).splitlines() or ["?"])[0]
    say(f"srpipe: cannot start ({reason}): 'srpipe doctor' tells what is amiss.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
