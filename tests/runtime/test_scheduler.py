"""The scheduler as a state machine: no processes, any order of completion."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
    tile_slots: int = 8, batch_slots: int = 3, result_slots: int = 3, first: int = 0, reserved: int = 0,
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
        max_reserved=reserved,
        first_tile=first,
        rows_finished_px=rows_px if first == n_tiles else ROW_PX * (first // ROW_TILES),
    )


class World:
    """Carries instructions out in any order, and checks who touches which slot and what is in it.

    Tile ``i`` has the pixels ``pixels[i]``; without them every tile has its own. The reader remembers
    one of the tiles of every kind, or at times another, as one that forgets does. Tiles of negative
    pixels are not worth the model.
    """

    def __init__(
        self, scheduler: Scheduler, seed: int, pixels: Sequence[int] = (), forgets: float = 0
    ) -> None:
        self.packed: list[tuple[int, ...]] = []
        self.scheduler = scheduler
        self.pixels = pixels or range(scheduler.n_tiles)
        self.forgets = forgets
        self.seen: dict[int, int] = {}
        self.tile_slots: dict[int, int] = {}
        self.batch_slots: dict[int, list[int]] = {}
        self.result_slots: dict[int, list[int]] = {}
        self.computed = 0
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
                case Pack(_, slots, batch_slot):
                    users += [("tile", slot) for slot in slots] + [("batch", batch_slot)]
                case Run(_, _, batch_slot, result_slot, _):
                    users += [("batch", batch_slot), ("result", result_slot)]
                case Blend(_, places, slots):
                    users += [("tile", slot) for slot in slots]
                    users += [("result", slot) for slot in {place[0] for place in places if place}]
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
            case Read(tile, slot):
                self.read.append(tile)
                self.tile_slots[slot] = pixels = self.pixels[tile]
                if pixels < 0:
                    return Done(instruction, 0.0, skipped=True)
                if self.random.random() < self.forgets:
                    self.seen.pop(pixels, None)
                same_as = self.seen.setdefault(pixels, tile)
                return Done(instruction, 0.0, same_as=None if same_as == tile else same_as)
            case Pack(_, slots, batch_slot):
                assert 1 <= len(slots) <= self.scheduler.batch_size
                self.batch_slots[batch_slot] = [self.tile_slots[slot] for slot in slots]
                self.packed.append(tuple(self.batch_slots[batch_slot]))
            case Run(_, _, batch_slot, result_slot, _):
                self.result_slots[result_slot] = list(self.batch_slots[batch_slot])
                self.computed += len(self.batch_slots[batch_slot])
            case Save():
                self.saved = len(self.blended)
            case Blend(tiles, places, slots):
                assert tiles == tuple(range(len(self.blended), len(self.blended) + len(tiles)))
                for tile, place in zip(tiles, places, strict=True):
                    assert (place is None) == (self.pixels[tile] < 0)
                    if place is not None:
                        assert self.result_slots[place[0]][place[1]] == self.pixels[tile]
                held = [self.tile_slots[slot] for slot in slots]
                assert held == [self.pixels[tile] for tile in tiles] * self.scheduler.tiles_kept
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


@given(
    pixels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    batch=st.integers(1, 8),
    workers=st.integers(1, 3),
    runs=st.integers(1, 3),
    kept=st.booleans(),
    slots=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(2, 6)),
    reserved=st.integers(1, 5),
    first=st.integers(0, 80),
    forgets=st.sampled_from([0, 0.3]),
    losses=st.sampled_from([0, 0.1]),
    saves=st.sampled_from([0, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_tiles_that_repeat_get_a_result_of_their_pixels(
    pixels: list[int], batch: int, workers: int, runs: int, kept: bool, slots: tuple[int, int, int],
    reserved: int, first: int, forgets: float, losses: float, saves: float, seed: int,
) -> None:  # fmt: skip
    tiles, batches, results = slots
    first = min(first, len(pixels))
    scheduler = make(
        len(pixels), batch, workers, runs, kept=kept, tile_slots=tiles, batch_slots=batches,
        result_slots=results, first=first, reserved=min(reserved, results - 1),
    )  # fmt: skip
    world = World(scheduler, seed, pixels, forgets)
    world.run(losses, saves)
    assert world.read == list(range(first, len(pixels)))
    assert world.blended == list(range(len(pixels)))
    assert len(pixels) - first - scheduler.reused_tiles <= world.computed
    if not losses:
        assert world.computed == len(pixels) - first - scheduler.reused_tiles
    for table in (scheduler.tile_slots, scheduler.batch_slots):
        assert table.n_free == table.n_slots


@given(
    pixels=st.lists(st.integers(-3, 3), min_size=1, max_size=80),
    batch=st.integers(1, 8),
    workers=st.integers(1, 3),
    runs=st.integers(1, 3),
    slots=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(2, 6)),
    reserved=st.integers(0, 5),
    first=st.integers(0, 80),
    losses=st.sampled_from([0, 0.1]),
    saves=st.sampled_from([0, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_tiles_that_are_skipped_are_blended_and_never_packed(
    pixels: list[int], batch: int, workers: int, runs: int, slots: tuple[int, int, int],
    reserved: int, first: int, losses: float, saves: float, seed: int,
) -> None:  # fmt: skip
    tiles, batches, results = slots
    first = min(first, len(pixels))
    scheduler = make(
        len(pixels), batch, workers, runs, kept=True, tile_slots=tiles, batch_slots=batches,
        result_slots=results, first=first, reserved=min(reserved, results - 1),
    )  # fmt: skip
    world = World(scheduler, seed, pixels)
    world.run(losses, saves)
    assert world.blended == list(range(len(pixels)))
    assert scheduler.skipped_tiles == sum(kind < 0 for kind in pixels[first:])
    assert all(kind >= 0 for kinds in world.packed for kind in kinds)
    for table in (scheduler.tile_slots, scheduler.batch_slots):
        assert table.n_free == table.n_slots
    if not reserved:
        # The same companions wherever a job goes on.
        runs_of_tiles = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        expected = [tuple(k for k in kinds if k >= 0) for kinds in runs_of_tiles]
        begun = first // batch if first < len(pixels) else len(expected)
        assert world.packed == [kinds for kinds in expected[begun:] if kinds]


@given(seed=st.integers(0, 2**32), steps=st.integers(0, 150), reserved=st.sampled_from([0, 2]))
def test_a_job_with_skipped_tiles_stops(seed: int, steps: int, reserved: int) -> None:
    pixels = [-1 if tile % 7 < 4 else tile for tile in range(60)]
    scheduler = make(60, 3, 2, 2, kept=True, tile_slots=9, reserved=reserved)
    world = World(scheduler, seed, pixels)
    world.take(scheduler.start())
    for _ in range(steps):
        if scheduler.finished:
            return
        world.step()
    world.take(scheduler.stop())
    world.rest()
    assert world.saved == len(world.blended) == scheduler.tiles_done


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_background_is_computed_once(batch: int) -> None:
    """Two batches of other tiles, and rows of background."""
    pixels = [0] * 200 + list(range(1, 2 * batch + 1)) + [0] * 200
    scheduler = make(len(pixels), batch, runs=2, result_slots=4, reserved=1)
    world = World(scheduler, 1, pixels)
    world.run()
    assert world.computed == 2 * batch + 1
    assert scheduler.reused_tiles == 399


def test_a_photograph_does_not_drive_the_background_out() -> None:
    pixels = [0, 0] + [n if n % 20 else 0 for n in range(1, 400)]
    scheduler = make(len(pixels), result_slots=4, reserved=1)
    world = World(scheduler, 1, pixels)
    world.run()
    assert scheduler.reused_tiles == pixels.count(0) - 1


def test_reading_goes_only_so_far_ahead_of_what_is_blended() -> None:
    few = _until_stuck(make(1000, reserved=2), Blend, [0] * 1000)
    many = _until_stuck(make(100_000, reserved=2), Blend, [0] * 100_000)
    assert few == many < 400


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stopped_job_leaves_what_only_repeats(batch: int) -> None:
    scheduler = make(1000, batch, reserved=2)
    world = World(scheduler, 0, [0] * 1000)
    world.take(scheduler.start())
    while len(world.blended) < 100:
        world.step()
    world.take(scheduler.stop())
    world.rest()
    assert world.saved == len(world.blended) < 120


def test_tiles_before_one_that_cannot_be_read_are_finished_even_if_they_fill_no_batch() -> None:
    scheduler = make(50, 8, reserved=2, tile_slots=16)
    world = World(scheduler, 0, [min(tile % 7, 5) for tile in range(50)])
    world.take(scheduler.start())
    while not any(isinstance(i, Read) and i.tile == 43 for i in world.under_way):
        world.step()
    while (broken := next(i for i in world.under_way if isinstance(i, Read))).tile < 43:
        world.under_way.remove(broken)
        world.take(scheduler.on_done(world.carry_out(broken)))
    world.under_way.remove(broken)
    world.take(scheduler.on_failed(broken))
    world.rest()
    assert world.saved == 43


def _until_stuck(scheduler: Scheduler, stalled: type, pixels: Sequence[int] = ()) -> int:
    """Tiles read when everything is carried out except one kind of instruction."""
    world = World(scheduler, 0, pixels)
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
    repeating=st.booleans(),
    steps=st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_a_stopped_job_comes_to_rest_with_a_checkpoint(
    n_tiles: int, batch: int, workers: int, kept: bool, repeating: bool, steps: int, seed: int
) -> None:
    scheduler = make(
        n_tiles, batch, workers, 2, kept=kept, tile_slots=3 * batch, reserved=2 * repeating
    )
    world = World(scheduler, seed, [tile % 3 for tile in range(n_tiles)] if repeating else ())
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
    if running and not repeating:
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
