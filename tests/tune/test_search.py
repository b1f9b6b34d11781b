"""The search on machines that are formulas: what it finds can be compared with what there is."""

from __future__ import annotations

import itertools
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.plan.geometry import Size
from srpipe.settings import Settings
from srpipe.tune.candidates import Arrangement, Candidate, Choices, batches_for, list_choices
from srpipe.tune.search import MAX_RUN_S, Loaded, Search, expected_bytes
from tests.factories import model_info

MB = 1_000_000
BYTES_PER_PIXEL = 500
OVERLAP_PX = 24


class Machine:
    """Speed by a formula: cores shared with some loss, calls that cost, a cache that is left."""

    def __init__(
        self, mp_s: float, sharing: float, call_s: float, cache_px: float, beyond: float
    ) -> None:
        self.parameters = mp_s, sharing, call_s, cache_px, beyond
        self.loaded: list[Candidate] = []
        self.bad: set[str] = set()
        self.most_bytes = 10**15

    def seconds(self, candidate: Candidate) -> float:
        """Of one run in each runner."""
        mp_s, sharing, call_s, cache_px, beyond = self.parameters
        threads, runs = candidate.arrangement.threads, candidate.arrangement.runs
        speed = mp_s * threads * (sharing ** math.log2(threads))
        if candidate.run_pixels * runs > cache_px:
            speed *= beyond
        return call_s / threads + candidate.run_pixels / 1e6 / speed

    def n_bytes(self, candidate: Candidate) -> int:
        return 10 * MB + BYTES_PER_PIXEL * candidate.session_pixels

    def load(self, candidate: Candidate) -> Loaded:
        self.loaded.append(candidate)
        if self.n_bytes(candidate) > self.most_bytes:
            raise OutOfMemoryError("too much")
        return Loaded(self.seconds(candidate) * 1.1, self.n_bytes(candidate))

    def time_s(self, candidate: Candidate, rounds: int) -> float:
        return rounds * self.seconds(candidate)

    def agrees(self, arrangement: Arrangement, tile: Size) -> bool:
        if arrangement.device == "broken":
            raise StageError("no")
        return arrangement.device not in self.bad


def useful(tile: Size) -> float:
    return max(0.0, 1 - OVERLAP_PX / tile.width) ** 2


def everything(choices: Choices) -> list[Candidate]:
    return [
        Candidate(a, t, n)
        for a, t in itertools.product(choices.arrangements, choices.tiles)
        for n in batches_for(t, choices.batches)
    ]


machines = st.builds(
    Machine,
    mp_s=st.floats(0.05, 5),
    sharing=st.floats(0.7, 1.1),
    call_s=st.floats(0, 0.02),
    cache_px=st.floats(1e4, 1e7),
    beyond=st.floats(0.75, 1),
)


def share_of_best(machine: Machine, cores: int) -> float:
    """The merit of what the search chooses, relative to the best there is."""
    choices = list_choices(model_info(), Settings(), ("cpu",), cores)
    search = Search(choices, machine, useful, lambda *_: True)
    search.run()

    def merit(candidate: Candidate) -> float:
        return useful(candidate.tile) * candidate.pixels / machine.seconds(candidate)

    chosen = max(search.rows, key=search.merit)
    # An interruption waits for the runs in flight: what would take too long is no choice.
    most_pixels = 0.9 * MAX_RUN_S * max(c.pixels / machine.seconds(c) for c in search.rows)
    runs = max(a.runs for a in choices.arrangements)
    possible = [c for c in everything(choices) if runs * c.run_pixels <= most_pixels]
    return merit(chosen) / max(map(merit, possible), default=merit(chosen))


def test_the_choice_is_near_the_best_of_all() -> None:
    """A search that does not try everything can be misled, so the shares are of many machines."""
    draw = random.Random(5)
    shares = [
        share_of_best(
            Machine(
                mp_s=draw.uniform(0.05, 5),
                sharing=draw.uniform(0.7, 1.1),
                call_s=draw.uniform(0, 0.02),
                cache_px=10 ** draw.uniform(4, 7),
                beyond=draw.uniform(0.75, 1),
            ),
            cores=draw.randint(1, 8),
        )
        for _ in range(300)
    ]
    assert sum(share < 0.97 for share in shares) <= 6
    assert min(shares) > 0.85


@given(machine=machines, cores=st.integers(1, 8))
def test_no_choice_is_far_from_the_best_of_all(machine: Machine, cores: int) -> None:
    assert share_of_best(machine, cores) > 0.7


@given(mp_s=st.floats(1e-4, 0.05))
def test_slow_models_are_tried_on_little(mp_s: float) -> None:
    machine = Machine(mp_s, 1.0, 0.0, 1e9, 1.0)
    choices = list_choices(model_info(), Settings(), ("cpu",), 2)
    search = Search(choices, machine, useful, lambda *_: True)
    search.run()
    first, *others = machine.loaded
    assert first.tile == Size(128, 128)
    assert all(c.tile == choices.base or machine.seconds(c) <= 1.2 * MAX_RUN_S for c in others)
    # The usual tile is a choice even where it is too slow to be timed.
    assert any(c.tile == choices.base for c in search.rows)


@given(machine=machines, budget=st.integers(12 * MB, 600 * MB))
def test_what_does_not_fit_is_not_tried(machine: Machine, budget: int) -> None:
    choices = list_choices(model_info(), Settings(), ("cpu",), 4)

    def fits(candidate: Candidate, worker_bytes: int) -> bool:
        return worker_bytes * candidate.arrangement.workers <= budget

    search = Search(choices, machine, useful, fits)
    search.run()
    for candidate in machine.loaded[1:]:
        taken = machine.n_bytes(candidate) * candidate.arrangement.workers
        # Until two sizes are known, the share that does not grow with the tile is not.
        assert taken <= 2 * budget
    found = search.largest_that_fits()
    fitting = [
        t
        for t in choices.smaller
        if machine.n_bytes(Candidate(choices.arrangements[-1], t, 1)) <= budget
    ]
    assert (found is None) == (not fitting)
    if found is not None:
        assert fits(found, machine.n_bytes(found))


def test_what_fails_is_left_out() -> None:
    machine = Machine(2.0, 0.9, 0.0, 1e9, 1.0)
    machine.most_bytes = 60 * MB
    choices = list_choices(model_info(), Settings(), ("cpu",), 2)
    search = Search(choices, machine, useful, lambda *_: True)
    search.run()
    assert search.rows
    assert all(machine.n_bytes(c) <= machine.most_bytes for c in search.rows)
    machine.most_bytes = 0
    empty = Search(choices, machine, useful, lambda *_: True)
    empty.run()
    assert not empty.rows
    assert empty.largest_that_fits() is None


def test_other_providers_must_agree() -> None:
    machine = Machine(2.0, 0.9, 0.0, 1e9, 1.0)
    arrangements = tuple(Arrangement(d, 1, 1, 2) for d in ("cpu", "same", "wrong", "broken"))
    machine.bad = {"wrong"}
    tiles = (Size(128, 128), Size(256, 256))
    search = Search(Choices(arrangements, tiles, tiles[1], (1,)), machine, useful, lambda *_: True)
    search.run()
    assert {c.arrangement.device for c in search.rows} == {"cpu", "same"}


def test_memory_is_expected_from_the_nearest() -> None:
    machine = Machine(2.0, 0.9, 0.0, 1e9, 1.0)
    choices = list_choices(model_info(), Settings(), ("cpu",), 2)
    search = Search(choices, machine, useful, lambda *_: True)
    candidate = Candidate(choices.arrangements[0], Size(2048, 2048), 1)
    assert expected_bytes(search.rows, candidate) == 0
    search.run()
    assert expected_bytes(search.rows, candidate) > 2 * 500 * 2048**2
