"""The scheduler as a state machine: no processes, any order of completion."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.errors import CoverageError
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Write
from srpipe.runtime.scheduler import Scheduler, SlotTable

ROW_TILES = 5
ROW_PX = 10


def make(
    n_tiles: int, batch: int = 1, workers: int = 1, runs: int = 1, *, kept: bool = False,
    tile_slots: int = 8, batch_slots: int = 3, result_slots: int = 3,
) -> Scheduler:  # fmt: skip
    rows_px = ROW_PX * -(-n_tiles // ROW_TILES)
    return Scheduler(
        n_tiles=n_tiles,
        batch_size=batch,
        tile_slots=SlotTable(max(tile_slots, batch)),
        batch_slots=SlotTable(batch_slots),
        result_slots=SlotTable(result_slots),
        workers=workers,
        runs_per_worker=runs,
        tiles_kept=kept,
        total_rows_px=rows_px,
        total_px=rows_px * 7,
        max_lag_px=2 * ROW_PX,
    )


class World:
    """Carries instructions out in any order, and checks who touches which slot."""

    def __init__(self, scheduler: Scheduler, seed: int) -> None:
        self.scheduler = scheduler
        self.random = random.Random(seed)
        self.under_way: list[Instruction] = []
        self.blended: list[int] = []
        self.read: list[int] = []
        self.written: list[int] = []
        self.max_lag_px = 0
        self.finished_px = 0

    def users_of_slots(self) -> list[tuple[str, int]]:
        users: list[tuple[str, int]] = []
        for instruction in self.under_way:
            match instruction:
                case Read(_, slot):
                    users.append(("tile", slot))
                case Pack(_, _, slots, batch_slot):
                    users += [("tile", slot) for slot in slots] + [("batch", batch_slot)]
                case Run(_, _, batch_slot, result_slot):
                    users += [("batch", batch_slot), ("result", result_slot)]
                case Blend(_, _, slots, result_slot):
                    users += [("tile", slot) for slot in slots] + [("result", result_slot)]
        return users

    def take(self, instructions: list[Instruction]) -> None:
        self.under_way += instructions
        users = self.users_of_slots()
        assert len(users) == len(set(users)), "two stages own one slot"
        loads = [0] * self.scheduler.workers
        for instruction in self.under_way:
            if isinstance(instruction, Run):
                loads[instruction.worker] += 1
        assert max(loads) <= self.scheduler.runs_per_worker

    def step(self) -> None:
        # Each stage but the workers carries out its instructions in order.
        first = {}
        for instruction in self.under_way:
            key = (type(instruction), instruction.batch if isinstance(instruction, Run) else 0)
            first.setdefault(key, instruction)
        instruction = self.random.choice(list(first.values()))
        self.under_way.remove(instruction)
        self.take(self.scheduler.on_done(self.carry_out(instruction)))

    def carry_out(self, instruction: Instruction) -> Done:
        match instruction:
            case Read(tile, _):
                self.read.append(tile)
            case Blend(_, tiles, _, _):
                self.blended += tiles
                self.finished_px = ROW_PX * (len(self.blended) // ROW_TILES)
                if len(self.blended) == self.scheduler.n_tiles:
                    self.finished_px = self.scheduler.total_rows_px
                lag_px = self.finished_px - sum(self.written[-1:])
                self.max_lag_px = max(self.max_lag_px, lag_px)
                return Done(instruction, 0.0, self.finished_px, self.finished_px * 7)
            case Write(stop_row, _):
                self.written.append(stop_row)
        return Done(instruction, 0.0)

    def run(self) -> None:
        self.take(self.scheduler.start())
        while not self.scheduler.finished:
            assert self.under_way, "the pipeline has locked up"
            self.step()


@given(
    n_tiles=st.integers(1, 60),
    batch=st.integers(1, 8),
    workers=st.integers(1, 3),
    runs=st.integers(1, 3),
    kept=st.booleans(),
    slots=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**32),
)
def test_every_tile_goes_through_once_in_raster_order(
    n_tiles: int, batch: int, workers: int, runs: int, kept: bool,
    slots: tuple[int, int, int], seed: int,
) -> None:  # fmt: skip
    tiles, batches, results = slots
    scheduler = make(
        n_tiles, batch, workers, runs, kept=kept,
        tile_slots=tiles, batch_slots=batches, result_slots=results,
    )  # fmt: skip
    world = World(scheduler, seed)
    world.run()
    assert world.read == world.blended == list(range(n_tiles))
    assert world.written == sorted(set(world.written))
    assert world.written[-1] == scheduler.total_rows_px
    # One batch may end a row it did not begin, whole ones, and the last, which is cut short.
    assert world.max_lag_px <= scheduler.max_lag_px + ROW_PX * (2 + batch // ROW_TILES)
    assert not world.under_way
    for table in (scheduler.tile_slots, scheduler.batch_slots, scheduler.result_slots):
        assert table.n_free == table.n_slots


def _until_stuck(scheduler: Scheduler, stalled: type) -> int:
    """Tiles read when everything is carried out except one kind of instruction."""
    world = World(scheduler, 0)
    world.take(scheduler.start())
    while True:
        able = [i for i in world.under_way if not isinstance(i, stalled)]
        if not able:
            return len(world.read)
        world.under_way.remove(able[0])
        world.take(scheduler.on_done(world.carry_out(able[0])))


@pytest.mark.parametrize("stalled", [Pack, Run, Blend, Write])
def test_a_stage_that_stalls_stops_the_reader(stalled: type) -> None:
    few = _until_stuck(make(1000, 2, 2, 2), stalled)
    many = _until_stuck(make(100_000, 2, 2, 2), stalled)
    assert few == many < 100


def test_missing_pixels_fail_the_run() -> None:
    scheduler = make(1)
    todo = scheduler.start()
    while not isinstance(todo[0], Blend):
        todo = scheduler.on_done(Done(todo[0], 0.0))
    with pytest.raises(CoverageError, match="69 of 70 pixels"):
        scheduler.on_done(Done(todo[0], 0.0, 10, 1))


def test_slots_change_hands_only_as_the_table_says() -> None:
    table = SlotTable(1)
    slot = table.take()
    with pytest.raises(RuntimeError, match="writing to reading"):
        table.move(slot, "reading")
    for state in ("ready", "reading", "free"):
        table.move(slot, state)
    with pytest.raises(RuntimeError, match="free to ready"):
        table.move(slot, "ready")
