from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from srpipe.errors import WriteError
from srpipe.io.joined_zarr import join_zarrs
from srpipe.io.vips import pyvips
from srpipe.io.zarr_saver import save_zarr
from srpipe.plan.output import OutputSpec, parse_output

CHUNK_PX = 64
DANDELION = Path(__file__).parent.parent / "data" / "dandelion.jpg"


class KilledError(Exception):
    pass


def picture(width: int, height: int, bands: int, dtype: str) -> Any:
    """The dandelion enlarged, with a black band over whole rows of chunks and a black left side."""
    image = pyvips.Image.new_from_file(str(DANDELION))
    image = image.thumbnail_image(width, height=height, size="force")
    image = image.extract_band(0) if bands == 1 else image
    black = image.new_from_image(0)
    image = black.crop(0, 0, width, min(3 * CHUNK_PX, height)).join(image, "vertical")
    image = image.crop(0, 0, width, height)
    if width > CHUNK_PX:
        image = image.insert(black.crop(0, 0, CHUNK_PX, height), 0, 0)
    if bands == 4:
        image = image.bandjoin(image.extract_band(1))
    if dtype == "uint16":
        grey = "grey16" if bands == 1 else "rgb16"
        image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation=grey)
    return image.copy_memory()


def spec(compression: str, levels: int | None = None) -> OutputSpec:
    more = "" if levels is None else f",levels={levels}"
    return parse_output(f"a.zarr[chunk={CHUNK_PX},compression={compression}{more}]")


def parts_of(image: Any, folder: Path, tops: list[int], options: OutputSpec) -> list[str]:
    parts = []
    for top, bottom in itertools.pairwise([*tops, image.height]):
        parts.append(str(folder / f"{top}.zarr"))
        save_zarr(image.crop(0, top, image.width, bottom - top), options, parts[-1])
    return parts


def contents(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def same(joined: Path, whole: Path, compression: str) -> bool:
    ours, theirs = contents(joined), contents(whole)
    if compression == "gzip":  # a chunk holds the time of day in bytes 4 to 7
        for files in (ours, theirs):
            for name in files:
                if not name.endswith(".json"):
                    files[name] = files[name][:4] + files[name][8:]
    return ours == theirs


@settings(max_examples=6, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("compression", ["blosc", "gzip", "none"])
def test_parts_become_the_files_of_the_whole(
    compression: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("joined")
    levels = data.draw(st.integers(1, 3))
    step_px = CHUNK_PX << (levels - 1)
    steps = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=3))
    tops = [0, *(step_px * n for n in itertools.accumulate(steps))]
    # The whole needs as many levels as the parts have.
    height = max(tops[-1] + data.draw(st.integers(1, step_px + 1)), step_px)
    width = data.draw(st.integers(1, 300))
    bands, dtype = (
        data.draw(st.sampled_from([1, 3, 4])),
        data.draw(st.sampled_from(["uint8", "uint16"])),
    )
    image = picture(width, height, bands, dtype)
    save_zarr(image, spec(compression), str(folder / "whole.zarr"))
    parts = parts_of(image, folder, tops, spec(compression, levels))
    join_zarrs(parts, str(folder / "a.zarr"), spec(compression))
    assert same(folder / "a.zarr", folder / "whole.zarr", compression)
    shutil.rmtree(folder)


def test_a_join_that_was_killed_is_completed_by_another(tmp_path: Path) -> None:
    image = picture(333, 581, 3, "uint8")
    save_zarr(image, spec("blosc"), str(tmp_path / "whole.zarr"))
    beats = 0
    for n in itertools.count(1):
        folder = tmp_path / str(n)
        folder.mkdir()
        parts = parts_of(image, folder, [0, 128, 384], spec("blosc", 2))
        calls = itertools.count(1)

        def kill(calls: Any = calls, n: int = n) -> None:
            if next(calls) == n:
                raise KilledError

        try:
            join_zarrs(parts, str(folder / "a.zarr"), spec("blosc"), beat=kill)
        except KilledError:
            beats += 1
            join_zarrs(parts, str(folder / "a.zarr"), spec("blosc"))
        else:
            break
        finally:
            assert same(folder / "a.zarr", tmp_path / "whole.zarr", "blosc")
    assert beats > 3


def test_a_join_may_be_done_twice(tmp_path: Path) -> None:
    image = picture(200, 300, 3, "uint8")
    save_zarr(image, spec("none"), str(tmp_path / "whole.zarr"))
    parts = parts_of(image, tmp_path, [0, 128], spec("none", 2))
    for _ in range(2):
        join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none"))
        assert same(tmp_path / "a.zarr", tmp_path / "whole.zarr", "none")


def test_levels_may_be_all_that_parts_have(tmp_path: Path) -> None:
    image = picture(200, 300, 3, "uint8")
    save_zarr(image, spec("none", 2), str(tmp_path / "whole.zarr"))
    parts = parts_of(image, tmp_path, [0, 128], spec("none", 2))
    join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none", 2))
    assert same(tmp_path / "a.zarr", tmp_path / "whole.zarr", "none")


def test_a_zarr_of_another_size_is_replaced(tmp_path: Path) -> None:
    image = picture(200, 300, 3, "uint8")
    save_zarr(image, spec("none"), str(tmp_path / "whole.zarr"))
    save_zarr(picture(500, 90, 1, "uint8"), spec("none"), str(tmp_path / "a.zarr"))
    parts = parts_of(image, tmp_path, [0, 128], spec("none", 2))
    join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none"))
    assert same(tmp_path / "a.zarr", tmp_path / "whole.zarr", "none")


@pytest.mark.parametrize(
    ("size", "bands", "dtype", "options"),
    [
        ((201, 100), 3, "uint8", spec("none", 2)),
        ((200, 100), 1, "uint8", spec("none", 2)),
        ((200, 100), 3, "uint16", spec("none", 2)),
        ((200, 100), 3, "uint8", spec("none", 1)),
        ((200, 100), 3, "uint8", spec("blosc", 2)),
        ((200, 100), 3, "uint8", parse_output("a.zarr[chunk=128,compression=none,levels=2]")),
    ],
    ids=["width", "bands", "dtype", "levels", "compression", "chunk"],
)
def test_a_part_that_does_not_fit_is_named_and_nothing_is_moved(
    tmp_path: Path, size: tuple[int, int], bands: int, dtype: str, options: OutputSpec
) -> None:
    first, other = str(tmp_path / "first.zarr"), str(tmp_path / "other.zarr")
    save_zarr(picture(200, 128, 3, "uint8"), spec("none", 2), first)
    save_zarr(picture(*size, bands, dtype), options, other)
    before = contents(Path(first))
    with pytest.raises(WriteError, match=r"other\.zarr does not fit"):
        join_zarrs([first, other], str(tmp_path / "a.zarr"), spec("none"))
    assert contents(Path(first)) == before


def test_rows_that_are_no_whole_rows_of_chunks_are_refused(tmp_path: Path) -> None:
    parts = parts_of(picture(200, 300, 3, "uint8"), tmp_path, [0, 64], spec("none", 2))
    with pytest.raises(WriteError, match=r"0\.zarr does not fit"):
        join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none"))


def test_parts_with_more_levels_than_the_whole_are_refused(tmp_path: Path) -> None:
    parts = parts_of(picture(200, 300, 3, "uint8"), tmp_path, [0, 128], spec("none", 2))
    before = contents(Path(parts[0]))
    with pytest.raises(WriteError, match=r"0\.zarr"):
        join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none", 1))
    assert contents(Path(parts[0])) == before


def test_a_part_that_is_missing_or_spoiled_is_named(tmp_path: Path) -> None:
    parts = parts_of(picture(200, 300, 3, "uint8"), tmp_path, [0, 128], spec("none", 2))
    Path(parts[1], "zarr.json").write_text("{")
    with pytest.raises(WriteError, match=r"128\.zarr"):
        join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none"))
    shutil.rmtree(parts[1])
    with pytest.raises(WriteError, match=r"128\.zarr"):
        join_zarrs(parts, str(tmp_path / "a.zarr"), spec("none"))


def test_a_reader_finds_the_pixels(tmp_path: Path) -> None:
    image = picture(200, 300, 3, "uint16")
    parts = parts_of(image, tmp_path, [0, 128], spec("gzip", 2))
    join_zarrs(parts, str(tmp_path / "a.zarr"), spec("gzip"))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], image.numpy().transpose(2, 0, 1))


@pytest.mark.parametrize("damage", ["gone", "spoiled"])
def test_rows_that_were_moved_and_lost_are_not_taken_for_black(tmp_path: Path, damage: str) -> None:
    parts = parts_of(picture(200, 300, 3, "uint8"), tmp_path, [0, 128], spec("none", 2))

    def kill() -> None:
        raise KilledError

    joined = tmp_path / "a.zarr"
    with pytest.raises(KilledError):
        join_zarrs(parts, str(joined), spec("none"), beat=kill)
    if damage == "gone":
        shutil.rmtree(joined)
    else:
        (joined / "zarr.json").write_bytes(b"")
    with pytest.raises(WriteError, match=r"a\.zarr is gone or damaged.*--fresh"):
        join_zarrs(parts, str(joined), spec("none"))
