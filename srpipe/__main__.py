"""The ``srpipe`` command and ``python -m srpipe``: interruptions are caught from the first moment."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class _Interruptions:
    """Turns the first SIGINT or SIGTERM into KeyboardInterrupt, and later ones into nothing.

    A second signal must not break the clean-up. Later ones are not ignored by SIG_IGN: Python
    complains of a signal that came just before it was ignored.
    """

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


def main() -> int:
    """Run the command line; returns the exit code."""
    interruptions = None
    try:
        interruptions = _Interruptions()
        from srpipe.cli.main import main as run

        return run()
    except BaseException:
        # An interruption in the middle of an import comes as whatever that module made of it.
        if interruptions is not None and interruptions.came:
            print("srpipe: interrupted.", file=sys.stderr)
            return 130
        raise


if __name__ == "__main__":
    sys.exit(main())
