"""Many images through one Enhancer, one after the other and side by side."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import srpipe
from srpipe.runtime.messages import Done, Instruction
from srpipe.runtime.stages.reader import Reader
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S, wait_until

SIZES = [(40, 30), (200, 150), (130, 300), (64, 64), (90, 260)]
SETTINGS = {"tile_size": 64, "overlap": 8}


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [
        write_pixels(tmp_path / f"in{i}.tif", photograph_pixels(*size))
        for i, size in enumerate(SIZES)
    ]


@pytest.fixture
def pairs(images: list[Path], tmp_path: Path) -> list[tuple[Path, Path]]:
    return [(image, tmp_path / f"out{i}.tif") for i, image in enumerate(images)]


@pytest.fixture
def expected(images: list[Path], tmp_path: Path, x2_model: Path) -> list[bytes]:
    contents = []
    for image in images:
        output = tmp_path / "expected.tif"
        srpipe.enhance(image, output, model=x2_model, overwrite=True, engine="serial", **SETTINGS)
        contents.append(output.read_bytes())
    output.unlink()
    return contents


@pytest.fixture
def enhancer(x2_model: Path) -> Iterator[srpipe.Enhancer]:
    with srpipe.Enhancer(x2_model, **SETTINGS) as enhancer:
        yield enhancer


def test_images_of_all_sizes_are_those_of_enhance(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], expected: list[bytes]
) -> None:
    reports = [enhancer.enhance(*pair) for pair in pairs]
    assert [output.read_bytes() for _, output in pairs] == expected
    assert {report.engine for report in reports} == {"serial", "threads"}
    report = enhancer.enhance(*pairs[1], overwrite=True, engine="local")
    assert report.engine == "local"
    assert pairs[1][1].read_bytes() == expected[1]


def test_the_model_is_loaded_once(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from srpipe.io.session import Session

    loads = []
    begin = Session.__init__

    def counted(self: Session, *arguments: object, **options: object) -> None:
        loads.append(arguments)
        begin(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", counted)
    for _ in range(3):
        enhancer.enhance(*pairs[1], overwrite=True)
    assert len(loads) == 1


def test_threads_share_one_enhancer(
    enhancer: srpipe.Enhancer, images: list[Path], tmp_path: Path, expected: list[bytes]
) -> None:
    """Failing images among them leave the others what they are."""
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0")

    def run(k: int) -> bytes | None:
        output = tmp_path / f"out{k}.tif"
        if k % 7 == 3:
            with pytest.raises(srpipe.InputError):
                enhancer.enhance(broken, output)
            return None
        enhancer.enhance(images[k % len(images)], output)
        return output.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, range(30)))
    for k, result in enumerate(results):
        assert result == (None if k % 7 == 3 else expected[k % len(images)])


def test_map_goes_on_after_images_that_fail(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], expected: list[bytes], tmp_path: Path
) -> None:
    missing = (tmp_path / "missing.tif", tmp_path / "never.tif")
    outcomes = {src: (dst, done) for src, dst, done in enhancer.map([*pairs, missing], at_once=3)}
    assert set(outcomes) == {missing[0], *(src for src, _ in pairs)}
    assert isinstance(outcomes.pop(missing[0])[1], srpipe.InputError)
    for (src, dst), content in zip(pairs, expected, strict=True):
        assert outcomes[src][0] == dst
        assert isinstance(outcomes[src][1], srpipe.Report)
        assert dst.read_bytes() == content


def test_a_run_that_fails_in_the_middle_leaves_it_usable(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], expected: list[bytes], tmp_path: Path
) -> None:
    whole = write_pixels(tmp_path / "whole.png", photograph_pixels(400, 300))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(srpipe.ReadError, match="repeat the command to go on"):
        enhancer.enhance(cut, tmp_path / "cut.tif")
    enhancer.enhance(*pairs[1])
    assert pairs[1][1].read_bytes() == expected[1]


def test_map_is_lazy_and_stops_where_it_is_given_up(
    enhancer: srpipe.Enhancer, images: list[Path], tmp_path: Path
) -> None:
    taken = []

    def pairs() -> Iterator[tuple[Path, Path]]:
        for k in range(100):
            taken.append(k)
            yield images[1], tmp_path / f"out{k}.tif"

    outcomes = enhancer.map(pairs(), at_once=2)
    assert not taken
    next(outcomes)
    outcomes.close()
    assert len(taken) <= 4
    with pytest.raises(srpipe.SettingsError, match="at_once is 0"):
        enhancer.map([], at_once=0)


def test_from_asyncio(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], expected: list[bytes]
) -> None:
    async def run() -> list[srpipe.Report]:
        return await asyncio.gather(
            *(asyncio.to_thread(enhancer.enhance, src, dst) for src, dst in pairs)
        )

    assert len(asyncio.run(run())) == len(pairs)
    assert [output.read_bytes() for _, output in pairs] == expected


def test_closed(x2_model: Path, pairs: list[tuple[Path, Path]]) -> None:
    """It waits for what is under way, and then takes nothing more."""
    enhancer = srpipe.Enhancer(x2_model, **SETTINGS)
    begun = threading.Event()
    caller = threading.Thread(
        target=enhancer.enhance, args=pairs[1], kwargs={"progress": lambda _: begun.set()}
    )
    caller.start()
    assert begun.wait(PATIENCE_S)
    enhancer.close()
    assert pairs[1][1].exists()
    caller.join()
    with pytest.raises(srpipe.SettingsError, match="is closed: make another"):
        enhancer.enhance(*pairs[0])
    enhancer.close()


def test_closed_by_the_image_itself(
    x2_model: Path, pairs: list[tuple[Path, Path]], expected: list[bytes]
) -> None:
    enhancer = srpipe.Enhancer(x2_model, **SETTINGS)
    enhancer.enhance(*pairs[1], progress=lambda _: enhancer.close())
    assert pairs[1][1].read_bytes() == expected[1]


def test_what_no_stage_foresees_fails_one_image(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one tile, and with several: in the calling thread, and in threads of the stages."""
    handle, faults = Reader.handle, list[Exception]()

    def fail(self: Reader, instruction: Instruction) -> Done:
        if faults:
            raise faults.pop()
        return handle(self, instruction)

    monkeypatch.setattr(Reader, "handle", fail)
    for pair in pairs[:2]:
        for fault, expected in (
            (ZeroDivisionError("by nought"), srpipe.StageError),
            (MemoryError(), srpipe.OutOfMemoryError),
        ):
            faults.append(fault)
            (failed,) = enhancer.map([pair], overwrite=True)
            assert type(failed[2]) is expected
            (done,) = enhancer.map([pair], overwrite=True)
            assert isinstance(done[2], srpipe.Report)


def test_an_exception_stops_what_other_threads_have_under_way(
    tmp_path: Path, pairs: list[tuple[Path, Path]]
) -> None:
    slow = conv_model(tmp_path / "slow.onnx", layers=12, features=64)
    begun, ended = threading.Event(), []

    def run(enhancer: srpipe.Enhancer) -> None:
        with pytest.raises(srpipe.Interrupted) as caught:
            enhancer.enhance(*pairs[1], progress=lambda _: begun.set())
        ended.append(caught.value)

    def leave_by_an_exception() -> None:
        with srpipe.Enhancer(slow, tile_size=48, overlap=2) as enhancer:
            threading.Thread(target=run, args=(enhancer,)).start()
            assert begun.wait(PATIENCE_S)
            raise KeyError

    with pytest.raises(KeyError):
        leave_by_an_exception()
    wait_until(lambda: ended, "the end of the other thread's image")


def test_a_stop_request_of_the_callers_own(
    enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]], expected: list[bytes]
) -> None:
    stop = srpipe.StopRequest()
    with pytest.raises(srpipe.Interrupted):
        enhancer.enhance(
            *pairs[1], stop=stop,
            progress=lambda event: stop.request() if event.tiles_done == 3 else None,
        )  # fmt: skip
    assert enhancer.enhance(*pairs[1]).resumed_tiles >= 3
    assert pairs[1][1].read_bytes() == expected[1]


def test_settings(enhancer: srpipe.Enhancer, pairs: list[tuple[Path, Path]]) -> None:
    assert pickle.loads(pickle.dumps(enhancer.settings)) == enhancer.settings
    with pytest.raises(srpipe.SettingsError, match="device is the same for all images"):
        enhancer.enhance(*pairs[0], device="cpu")
    with pytest.raises(srpipe.SettingsError, match="overlap is -1"):
        enhancer.enhance(*pairs[0], overlap=-1)
    with pytest.raises(srpipe.ModelError, match="no model 'nonsuch'"):
        srpipe.Enhancer("nonsuch")
