from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.geometry import Size
from srpipe.settings import Settings
from srpipe.tune.candidates import GPU_BATCHES, batches_for, list_choices
from tests.factories import model_info

maybe = st.none() | st.integers(1, 9)


@given(cores=st.integers(1, 64), workers=maybe, threads=maybe, runners=maybe)
def test_arrangements_keep_to_the_cores_and_to_what_is_asked(
    cores: int, workers: int | None, threads: int | None, runners: int | None
) -> None:
    settings = Settings(workers=workers, threads=threads, runners=runners)
    arrangements = list_choices(model_info(), settings, ("cpu",), cores).arrangements
    assert arrangements
    assert len(set(arrangements)) == len(arrangements)
    for arrangement in arrangements:
        assert workers in (None, arrangement.workers)
        # As a plan has it: no more runners than threads.
        per_session = threads or max(1, cores // arrangement.workers)
        assert runners is None or arrangement.runners == min(runners, per_session)
        assert arrangement.session_threads <= per_session
        if workers is None and threads is None:
            assert arrangement.workers * arrangement.session_threads <= cores


@given(multiple=st.integers(1, 64), least=st.integers(1, 200), recommended=st.integers(200, 700))
def test_tiles_are_those_that_a_model_takes(multiple: int, least: int, recommended: int) -> None:
    info = model_info(multiple_px=multiple, least_px=least, tile_px=recommended)
    choices = list_choices(info, Settings(), ("cpu",), 2)
    assert choices.base in choices.tiles
    assert all(t.width == t.height and t.width % multiple == 0 for t in choices.tiles)
    assert all(t.width >= least for t in choices.tiles if t != choices.base)
    assert [t.pixels for t in choices.tiles] == sorted(t.pixels for t in choices.tiles)
    assert choices.smaller[0] == choices.base


def test_what_is_fixed_is_not_varied() -> None:
    fixed = model_info(width_px=96, height_px=64, batch=4)
    choices = list_choices(fixed, Settings(), ("cpu",), 2)
    assert (choices.tiles, choices.batches) == ((Size(96, 64),), (4,))
    asked = list_choices(model_info(), Settings(tile_size=200, batch_size=3), ("cpu",), 2)
    assert (asked.tiles, asked.batches) == ((Size(200, 200),), (3,))


def test_a_gpu_gets_batches_and_one_run_at_a_time() -> None:
    choices = list_choices(model_info(), Settings(), ("cuda:0,cuda:1",), 8)
    assert choices.batches == GPU_BATCHES
    assert choices.tiles == (Size(256, 256),)
    (arrangement,) = choices.arrangements
    assert (arrangement.workers, arrangement.runners) == (2, 1)


def test_batches_of_large_tiles_are_larger_tiles() -> None:
    assert batches_for(Size(64, 64), (1, 2, 4, 8)) == [1, 2, 4, 8]
    assert batches_for(Size(1024, 1024), (1, 2, 4, 8)) == [1]
    assert batches_for(Size(1024, 1024), (3,)) == [3]
