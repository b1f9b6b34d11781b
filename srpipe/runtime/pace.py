"""How long the rest will take, where not every tile takes as long as another."""

from __future__ import annotations

from collections import deque

# Of the time so far, the latest part counts: tiles that repeat go by fast, and often lie together.
_SHARE = 0.5
# Moments remembered are so many parts of the time so far apart.
_PARTS = 64


class Pace:
    """Tiles a second, lately."""

    def __init__(self) -> None:
        """Begin without anything done."""
        self._moments: deque[tuple[float, int]] = deque([(0.0, 0)])

    def remaining_s(self, elapsed_s: float, tiles_done: int, tiles_left: int) -> float | None:
        """Seconds that ``tiles_left`` take at the pace of the latter half of the time so far.

        Args:
            elapsed_s: since the beginning; not less than at the last call.
            tiles_done: in that time; likewise.
            tiles_left: still to be done.

        Returns:
            None until a tile is done.
        """
        if elapsed_s - self._moments[-1][0] >= elapsed_s / _PARTS:
            self._moments.append((elapsed_s, tiles_done))
        # The last moment before the time that counts, or the first in it.
        while len(self._moments) > 1 and self._moments[1][0] <= (1 - _SHARE) * elapsed_s:
            self._moments.popleft()
        since_s, tiles_before = self._moments[0]
        tiles = tiles_done - tiles_before
        if not tiles_left:
            return 0.0
        return (elapsed_s - since_s) * tiles_left / tiles if tiles else None
