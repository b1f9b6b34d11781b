"""Finds the fastest way to run a model in a few seconds: in stages, each a race that drops the slow.

How the cores are shared comes first, at the tile that is used anyway; then tiles, then batches, and
at last the best of all against each other. In a race the candidates take turns, so that what else
the machine does meets all alike, and the best round counts. Merit is *useful* speed: what a tile's
overlap makes the model compute twice counts once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from srpipe.errors import SrpipeError
from srpipe.plan.geometry import Size
from srpipe.tune.candidates import Arrangement, Candidate, Choices, batches_for

DEFAULT_TIME_S = 20.0
# A run in flight is waited for when a job is interrupted.
MAX_RUN_S = 4.0
_ROUND_S = 0.12
# Before each round, who has less than this share of the best merit goes.
_KEPT = (0.85, 0.92, 0.96)
_FINAL_ROUNDS = 1
# Who was so near the best arrangement at the first tile gets another chance at the last.
_NEAR = 0.75
_TIED = 0.98
_MOST_TIED = 2
# How much faster than another a tile's pixels may be at most, all cache effects together.
_MAX_GAIN = 1.4
_FINALISTS = 3
_FIRST_TILE_PX = 128
# A tile of which so much less is useful cannot be the best: its pixels would have to be twice as fast.
_SWEPT = 0.5
_STAGE_S = 0.5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A candidate's first run."""

    seconds: float
    """With everything that only a first run has to do."""
    worker_bytes: int
    """What one session takes at its peak, weights and all its runs, without their input and output."""


class Timer(Protocol):
    """Runs candidates by the clock."""

    def load(self, candidate: Candidate) -> Loaded:
        """Start the sessions, and run each runner once.

        Raises:
            SrpipeError: it cannot be run, for want of memory or otherwise.
        """

    def time_s(self, candidate: Candidate, rounds: int) -> float:
        """Seconds in which every runner runs ``rounds`` times.

        Raises:
            SrpipeError: as for ``load``.
        """

    def agrees(self, arrangement: Arrangement, tile: Size) -> bool:
        """Whether a device gives the processor's results, within a level of 255."""


@dataclass(slots=True)
class Row:
    """What was measured of one candidate."""

    candidate: Candidate
    worker_bytes: int
    """What one of its sessions takes."""
    speeds_mp_s: list[float] = field(default_factory=list)
    """Megapixels of input the model computes in a second, of every round; the first is of the first
    runs while there are no others."""
    cold: bool = True
    """Only first runs have been timed."""

    @property
    def mp_s(self) -> float:
        """Megapixels of input that the model computes in a second: of the best round.

        Whatever else the machine does can only make a round slower.
        """
        return max(self.speeds_mp_s)

    def add(self, mp_s: float) -> None:
        """Note another round."""
        if self.cold:
            self.speeds_mp_s.clear()
        self.cold = False
        self.speeds_mp_s.append(mp_s)

    def begin_anew(self) -> None:
        """Let the next round replace what was measured so far."""
        self.speeds_mp_s, self.cold = [self.mp_s], True


Rows = dict[Candidate, Row]


def expected_bytes(rows: Rows, candidate: Candidate) -> int:
    """What one session would take, in proportion to the nearest that was measured; 0 if none was."""
    if candidate in rows:
        return rows[candidate].worker_bytes
    pixels = candidate.session_pixels
    nearest = min(
        rows.values(),
        key=lambda row: abs(math.log(row.candidate.session_pixels / pixels)),
        default=None,
    )
    if nearest is None:
        return 0
    return round(nearest.worker_bytes * pixels / nearest.candidate.session_pixels)


class Search:
    """One search; what it measures is in ``rows``."""

    def __init__(
        self,
        choices: Choices,
        timer: Timer,
        useful: Callable[[Size], float],
        fits: Callable[[Candidate, int], bool],
        *,
        rows: Mapping[Candidate, Row] | None = None,
        time_s: float = DEFAULT_TIME_S,
    ) -> None:
        """Prepare a search.

        Args:
            choices: what there is to try.
            timer: runs candidates.
            useful: the share of a tile's pixels that are not computed twice; 0 if it is not possible.
            fits: whether a candidate fits into the memory, given what one of its sessions takes.
            rows: what was measured before.
            time_s: when to stop.
        """
        self.rows: Rows = dict(rows or {})
        self.short_of_memory = False
        """Whether something was left out for want of memory."""
        self.out_of_time = False
        """Whether something was left out for want of time."""
        self._choices = choices
        self._timer = timer
        self._useful = useful
        self._fits = fits
        self._begin_s = time.monotonic()
        self._time_s = time_s
        self.failed: set[Candidate] = set()
        """What could not be run."""

    def run(self) -> None:
        """Race through the stages."""
        choices = self._choices
        batch, default = choices.batches[0], choices.arrangements[0]
        small = max(
            (t for t in choices.smaller if t.width <= _FIRST_TILE_PX),
            key=lambda tile: tile.pixels,
            default=choices.smaller[-1],
        )
        self._measure(Candidate(default, small, batch))  # tells how slow and how large the rest is
        stage = next(
            (t for t in choices.smaller if self._possible(Candidate(default, t, batch), _STAGE_S)),
            small,
        )
        agreeing = [a for a in choices.arrangements if self._may_run(a, small)]
        arrangements = self._race(Candidate(a, stage, batch) for a in agreeing)
        if not arrangements:
            return
        best = arrangements[0].arrangement
        near = self._leaders((c for c in self.rows if c.tile == stage), _NEAR)
        if stage != choices.base:
            self._take_base(Candidate(best, choices.base, batch))
        # Arrangements that are alike at one tile need not be at another.
        tied = self._leaders((c for c in self.rows if c.tile == stage), _TIED)[:_MOST_TIED]
        tiles = self._race(
            Candidate(c.arrangement, t, batch)
            for c in (tied or arrangements[:1])
            for t in self._promising()
        )
        self._race(
            replace(c, batch=n) for c in tiles[:2] for n in batches_for(c.tile, choices.batches)
        )
        # Who lost at the first tile may win at the last; and the best meet once more.
        leaders = self._leaders(self.rows)
        others = [
            replace(leader, arrangement=c.arrangement) for leader in leaders[:2] for c in near
        ]
        usual = Candidate(default, choices.base, batch)
        self._race([*leaders[:_FINALISTS], *others, usual], again=True)

    def sweep(self, chosen: Candidate) -> None:
        """Race everything there is against each other, and at last the best against the chosen."""
        choices = self._choices
        candidates = [
            Candidate(arrangement, tile, n)
            for tile in choices.tiles
            for n in batches_for(tile, choices.batches)
            for arrangement in choices.arrangements
            if self._useful(tile) > _SWEPT * self._useful(choices.base)
        ]
        self._race(candidates, again=True)
        self._compare([*dict.fromkeys([chosen, *self._leaders(self.rows)[:_FINALISTS]])])

    def largest_that_fits(self) -> Candidate | None:
        """The usual tile or the largest below that fits, with as many runs at once as fit with it."""
        default = self._choices.arrangements[0]
        threads = default.session_threads * default.workers
        single = replace(default, workers=1, runners=1, threads=threads)
        for tile in self._choices.smaller:
            for arrangement in dict.fromkeys((default, single)):
                candidate = Candidate(arrangement, tile, self._choices.batches[0])
                # What is expected may be too much by far: the first try alone is spared.
                if not self._fits(candidate, expected_bytes(self.rows, candidate) // 2):
                    continue
                if self._measure(candidate) and self._fits(
                    candidate, self.rows[candidate].worker_bytes
                ):
                    return candidate
        return None

    def _compare(self, candidates: Sequence[Candidate]) -> None:
        """Time some candidates in turn again, and drop none."""
        for candidate in candidates:
            self.rows[candidate].begin_anew()
        for _ in _KEPT:
            for candidate in candidates:
                if candidate in self.rows:  # one that fails now is gone
                    self._time(candidate)

    def merit(self, candidate: Candidate) -> float:
        """Useful megapixels of input a second."""
        return self.rows[candidate].mp_s * self._useful(candidate.tile)

    def _may_run(self, arrangement: Arrangement, tile: Size) -> bool:
        if arrangement.device == self._choices.arrangements[0].device:
            return True
        try:
            return self._timer.agrees(arrangement, tile)
        except SrpipeError:
            return False

    def _take_base(self, candidate: Candidate) -> None:
        """A row for the usual tile where its runs are long, if need be without running it."""
        if self._possible(candidate, self._time_s) and self._measure(candidate):
            return
        worker_bytes = expected_bytes(self.rows, candidate)
        if candidate not in self.failed and self._fits(candidate, worker_bytes):
            same = (r for c, r in self.rows.items() if c.arrangement == candidate.arrangement)
            largest = max(same, key=lambda row: row.candidate.run_pixels)
            self.rows[candidate] = Row(candidate, worker_bytes, [largest.mp_s])

    def _promising(self) -> list[Size]:
        """Tiles that can be better than the usual one, whatever their speed turns out to be."""
        base = self._choices.base
        enough = self._useful(base) / _MAX_GAIN
        return [t for t in self._choices.tiles if t == base or self._useful(t) > enough]

    def _race(self, candidates: Iterable[Candidate], *, again: bool = False) -> list[Candidate]:
        """Time candidates in turn; returns those that were left at the end, the best first."""
        alive = [c for c in dict.fromkeys(candidates) if self._possible(c) and self._measure(c)]
        shares: tuple[float, ...] = _KEPT
        if again and not self._over:
            shares = (0.0, *_KEPT, *_KEPT[-1:] * _FINAL_ROUNDS)
            for candidate in alive:
                self.rows[candidate].begin_anew()
        for share in shares:
            alive = self._leaders(alive, share)
            if len(alive) < 2 and not (alive and self.rows[alive[0]].cold):
                break
            if self._over:
                break
            for candidate in alive:
                if self._over:
                    break
                self._time(candidate)
            alive = [c for c in alive if c in self.rows]
        return self._leaders(alive)

    def _leaders(self, candidates: Iterable[Candidate], share: float = 0.0) -> list[Candidate]:
        ranked = sorted((c for c in candidates if c in self.rows), key=self.merit, reverse=True)
        return [c for c in ranked if self.merit(c) >= share * self.merit(ranked[0])]

    @property
    def _over(self) -> bool:
        return time.monotonic() - self._begin_s > self._time_s

    def _possible(self, candidate: Candidate, most_s: float = MAX_RUN_S) -> bool:
        """Whether to try a candidate: it fits, a run takes no longer than it may, there is time."""
        if candidate in self.failed or self._useful(candidate.tile) <= 0:
            return False
        if candidate in self.rows:
            return self._fits(candidate, self.rows[candidate].worker_bytes)
        if not self._fits(candidate, expected_bytes(self.rows, candidate)):
            self.short_of_memory = True
            return False
        if self._over:
            self.out_of_time = True
            return False
        fastest = max((row.mp_s for row in self.rows.values()), default=0.0)
        return not fastest or candidate.pixels / 1e6 / fastest <= most_s

    def _measure(self, candidate: Candidate) -> bool:
        """Load and run a candidate for the first time; returns whether it can be run."""
        if candidate in self.rows:
            return True
        try:
            loaded = self._timer.load(candidate)
        except SrpipeError:
            self.failed.add(candidate)
            return False
        row = Row(candidate, loaded.worker_bytes, [candidate.pixels / 1e6 / loaded.seconds])
        if not self._fits(candidate, row.worker_bytes):
            self.short_of_memory = True
        self.rows[candidate] = row
        return True

    def _time(self, candidate: Candidate) -> None:
        row = self.rows[candidate]
        rounds = max(1, round(_ROUND_S * row.mp_s / (candidate.pixels / 1e6)))
        try:
            seconds = self._timer.time_s(candidate, rounds)
        except SrpipeError:
            self.failed.add(candidate)
            del self.rows[candidate]
            return
        row.add(rounds * candidate.pixels / 1e6 / seconds)
