"""The scheduler as a state machine: no processes, any order of completion."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.errors import CoverageError, StageError
from srpipe.io.checkpoint import Checkpoint
from srpipe.runtime.messages import Blend, Done, Instruction, Pack, Read, Run, Save, Write
from srpipe.runtime.scheduler import Scheduler
from srpipe.runtime.slot_table import SlotTable
from tests.factories import make_test_plan

ROW_TILES = 5
ROW_PX = 10


def make(
    n_tiles: int, batch: int = 1, workers: int = 1, runs: int = 1, *, kept: bool = False,
    tile_slots: int = 8, batch_slots: int = 3, result_slots: int = 3, first: int = 0,
) -> Scheduler:  # fmt: skip
    rows_px = ROW_PX * -(-n_tiles // ROW_TILES)
    return Scheduler(
        n_tiles=n_tiles,
        tiles_per_row=ROW_TILES,
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
        batch_may_shrink=True,
        first_tile=first,
        rows_finished_px=rows_px if first == n_tiles else ROW_PX * (first // ROW_TILES),
    )


class World:
    """Carries instructions out in any order, and checks who touches which slot."""

    def __init__(self, scheduler: Scheduler, seed: int) -> None:
        self.scheduler = scheduler
        self.random = random.Random(seed)
        self.under_way: list[Instruction] = []
        self.blended: list[int] = list(range(scheduler.first_tile))
        self.saved = scheduler.first_tile
        self.read: list[int] = []
        self.written: list[int] = []
        self.max_lag_px = 0
        self.finished_px = scheduler.rows_finished_px

    def users_of_slots(self) -> list[tuple[str, int]]:
        users: list[tuple[str, int]] = []
        for instruction in self.under_way:
            match instruction:
                case Read(_, slot):
                    users.append(("tile", slot))
                case Pack(_, _, slots, batch_slot):
                    users += [("tile", slot) for slot in slots] + [("batch", batch_slot)]
                case Run(_, _, batch_slot, result_slot, _):
                    users += [("batch", batch_slot), ("result", result_slot)]
                case Blend(_, _, _, slots, result_slot):
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
            kind = Blend if isinstance(instruction, Save) else type(instruction)
            key = (kind, instruction.batch if isinstance(instruction, Run) else 0)
            first.setdefault(key, instruction)
        instruction = self.random.choice(list(first.values()))
        self.under_way.remove(instruction)
        self.take(self.scheduler.on_done(self.carry_out(instruction)))

    def carry_out(self, instruction: Instruction) -> Done:
        match instruction:
            case Read(tile, _):
                self.read.append(tile)
            case Save():
                self.saved = len(self.blended)
            case Blend(batch, first, tiles, _, _):
                assert tiles[0] == batch * self.scheduler.batch_size + first
                assert len({tile // ROW_TILES for tile in tiles}) == 1
                row = tiles[0] // ROW_TILES
                assert tiles[0] % ROW_TILES or self.saved in (0, tiles[0]), (
                    f"row {row} began too soon"
                )
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

    def lose_worker(self, worker: int, *, out_of_memory: bool = False) -> None:
        self.under_way = [
            i for i in self.under_way if not (isinstance(i, Run) and i.worker == worker)
        ]
        self.take(self.scheduler.on_worker_lost(worker, out_of_memory=out_of_memory))

    def run(self, losses: float = 0, saves: float = 0) -> None:
        self.take(self.scheduler.start())
        lost_at = -1
        while not self.scheduler.finished:
            assert self.under_way, "the pipeline has locked up"
            self.step()
            if self.random.random() < losses and len(self.blended) > lost_at:
                lost_at = len(self.blended)
                self.lose_worker(self.random.randrange(self.scheduler.workers))
            if self.random.random() < saves:
                self.take(self.scheduler.save_soon())

    def rest(self) -> None:
        """Carry out what is under way until the job has stopped."""
        while not self.scheduler.stopped:
            assert self.under_way, "the job does not come to rest"
            self.step()


@given(
    n_tiles=st.integers(1, 60),
    batch=st.integers(1, 8),
    workers=st.integers(1, 3),
    runs=st.integers(1, 3),
    kept=st.booleans(),
    slots=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5)),
    first=st.integers(0, 60),
    losses=st.sampled_from([0, 0.1]),
    saves=st.sampled_from([0, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_every_tile_goes_through_once_in_raster_order(
    n_tiles: int, batch: int, workers: int, runs: int, kept: bool,
    slots: tuple[int, int, int], first: int, losses: float, saves: float, seed: int,
) -> None:  # fmt: skip
    tiles, batches, results = slots
    first = min(first, n_tiles)
    scheduler = make(
        n_tiles, batch, workers, runs, kept=kept,
        tile_slots=tiles, batch_slots=batches, result_slots=results, first=first,
    )  # fmt: skip
    world = World(scheduler, seed)
    world.run(losses, saves)
    if first < n_tiles:
        assert world.read == list(range(first // batch * batch, n_tiles))
    assert world.blended == list(range(n_tiles))
    assert world.written == sorted(set(world.written))
    assert world.written[-1] == scheduler.total_rows_px
    # One batch may end a row it did not begin, whole ones, and the last, which is cut short.
    if first == 0:
        assert world.max_lag_px <= scheduler.max_lag_px + ROW_PX * (2 + batch // ROW_TILES)
    assert all(isinstance(instruction, Save) for instruction in world.under_way)
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


@given(
    n_tiles=st.integers(1, 60),
    batch=st.integers(1, 8),
    workers=st.integers(1, 3),
    kept=st.booleans(),
    steps=st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_a_stopped_job_comes_to_rest_with_a_checkpoint(
    n_tiles: int, batch: int, workers: int, kept: bool, steps: int, seed: int
) -> None:
    scheduler = make(n_tiles, batch, workers, 2, kept=kept, tile_slots=3 * batch)
    world = World(scheduler, seed)
    world.take(scheduler.start())
    for _ in range(steps):
        if scheduler.finished:
            return
        world.step()
    running = {i.batch for i in world.under_way if isinstance(i, Run)}
    world.take(scheduler.stop())
    begun = [i for i in world.under_way if isinstance(i, Run)]
    assert {run.batch for run in begun} <= running
    world.rest()
    assert world.saved == len(world.blended) == scheduler.tiles_done
    if running:
        assert scheduler.tiles_done >= min(n_tiles, (max(running) + 1) * batch)


def test_stopping_does_not_wait_for_a_worker_that_hangs() -> None:
    scheduler = make(20, 1, 1, 2)
    world = World(scheduler, 0)
    world.take(scheduler.start())
    while not any(isinstance(i, Run) for i in world.under_way):
        world.step()
    world.take(scheduler.stop())
    assert not scheduler.stopped
    world.under_way = [i for i in world.under_way if not isinstance(i, Run)]
    world.take(scheduler.stop_waiting())
    world.rest()


def test_a_lost_workers_batches_run_again_in_smaller_numbers() -> None:
    scheduler = make(40, 8, 1, 2, tile_slots=24)
    world = World(scheduler, 0)
    world.take(scheduler.start())
    while not any(isinstance(i, Run) for i in world.under_way):
        world.step()
    for tiles in (4, 2, 1):
        world.lose_worker(0, out_of_memory=True)
        run = next(i for i in world.under_way if isinstance(i, Run))
        assert (run.batch, run.tiles_at_once) == (0, tiles)
    # One tile at once cannot be halved: now losses count.
    world.lose_worker(0, out_of_memory=True)
    world.lose_worker(0, out_of_memory=False)
    with pytest.raises(StageError, match=r"3 workers were lost.*not even one tile.*--tile-size"):
        scheduler.on_worker_lost(0, out_of_memory=True)


@pytest.mark.parametrize(("device", "exact", "batch", "may"), [
    ("cpu", True, None, True), ("cpu", False, None, False), ("cpu", True, 4, False),
    ("cuda:0", True, None, True), ("cuda:0", False, None, True), ("cuda:0", True, 4, False),
])  # fmt: skip
def test_which_batches_may_be_halved(
    tmp_path: Path, device: str, exact: bool, batch: int | None, may: bool
) -> None:
    model = {"batch_exact": exact, "batch": batch}
    plan = make_test_plan(tmp_path, device=device, model=model)
    assert (
        Scheduler.for_plan(plan, Checkpoint(job="", next_tile=0, stored_px=0)).batch_may_shrink
        == may
    )


def test_workers_lost_together_shrink_the_batch_once() -> None:
    scheduler = make(40, 8, 2, 1, tile_slots=32)
    world = World(scheduler, 0)
    world.take(scheduler.start())
    while sum(isinstance(i, Run) for i in world.under_way) < 2:
        other = next(i for i in world.under_way if not isinstance(i, Run))
        world.under_way.remove(other)
        world.take(scheduler.on_done(world.carry_out(other)))
    world.lose_worker(0, out_of_memory=True)
    world.lose_worker(1, out_of_memory=True)
    assert scheduler.tiles_at_once == 4


def test_a_fixed_batch_never_shrinks() -> None:
    scheduler = make(40, 8, 1, 2, tile_slots=24)
    scheduler.batch_may_shrink = False
    scheduler.start()
    scheduler.on_worker_lost(0, out_of_memory=True)
    assert scheduler.tiles_at_once == 8


@pytest.mark.parametrize("failing", [Read, Pack, Run, Blend, Write])
def test_a_failed_job_saves_what_was_blended(failing: type) -> None:
    scheduler = make(30, 2, 2, 2)
    world = World(scheduler, 3)
    world.take(scheduler.start())
    while len(world.blended) < 12 or not any(isinstance(i, failing) for i in world.under_way):
        world.step()
    broken = next(i for i in world.under_way if isinstance(i, failing))
    world.under_way.remove(broken)
    world.take(scheduler.on_failed(broken))
    world.rest()
    assert world.saved == len(world.blended)
    if isinstance(broken, Read):
        assert world.saved == broken.tile // 2 * 2


def test_filled_tiles_are_told_to_every_checkpoint() -> None:
    scheduler = make(1)
    (read,) = scheduler.start()
    todo = scheduler.on_done(Done(read, 0.0, filled=True))
    while not isinstance(todo[0], Blend):
        todo = scheduler.on_done(Done(todo[0], 0.0))
    scheduler.save_soon()
    todo = scheduler.on_done(Done(todo[0], 0.0, 10, 70))
    assert Save((0,)) in todo


def test_a_job_that_ends_before_its_first_checkpoint_is_due_makes_none() -> None:
    scheduler = make(3 * ROW_TILES, 1, 2, 2, kept=False, tile_slots=3)
    world = World(scheduler, seed=1)
    world.take(scheduler.start())
    while not scheduler.finished:
        world.step()
    assert world.saved == 0


def test_once_there_is_a_checkpoint_every_row_ends_with_one() -> None:
    scheduler = make(3 * ROW_TILES, 1, 2, 2, kept=False, tile_slots=3)
    world = World(scheduler, seed=1)
    world.take(scheduler.start())
    while not world.blended:
        world.step()
    world.take(scheduler.save_soon())
    while world.under_way:
        world.step()
    assert world.saved == 3 * ROW_TILES
