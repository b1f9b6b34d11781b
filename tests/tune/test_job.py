"""Jobs whose settings are left open, with real models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import srpipe
from srpipe.api import available_cores, prepare, tune_model
from srpipe.cli.main import main
from srpipe.cli.tune import describe
from srpipe.io.devices import processor_devices
from srpipe.models.rewrite.verdict import find_graph, graph_info
from srpipe.plan.geometry import Size
from srpipe.settings import Settings
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.search import Row
from srpipe.tune.table import Table, load_table, save_table, table_name
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.test_resume import Job


@pytest.fixture(autouse=True)
def tables(cache: Path) -> Iterator[Path]:
    """Nothing measured before, and nothing left for other tests."""
    folder = cache / "tuned"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def wide_model(tmp_path: Path) -> Path:
    """Takes much memory: 64 features."""
    return conv_model(tmp_path / "wide.onnx", features=64, layers=3)


def name_of(model: Path) -> str:
    info = srpipe.probe_model(model)
    runs = graph_info(info, find_graph(info, 0))  # rewritten, if that was found out before
    return table_name(runs, processor_devices(), available_cores())


def keep(model: Path, tile_px: int, batch: int = 1) -> None:
    """As if this had been measured to be best."""
    candidate = Candidate(Arrangement("cpu", 1, 1, 1), Size(tile_px, tile_px), batch)
    save_table(name_of(model), Table({candidate: Row(candidate, 1000, [1.0])}, {"": None}))


def test_tuning_a_model(x2_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = tune_model(Settings(model=str(x2_model), tile_size=64))
    chosen = report.chosen
    assert chosen.tile == Size(64, 64)
    assert chosen.fits
    assert chosen.useful_mp_s < chosen.model_mp_s
    assert chosen.gain > 0
    assert chosen.model_bytes > 0
    assert report.choice_of_best > 0.9
    assert len({(line.arrangement, line.batch) for line in report.lines}) == len(report.lines) > 3
    text = describe(report)
    assert sum(line.lstrip().startswith("*") for line in text.splitlines()) == 1
    assert "batch" in text
    json.dumps(report.as_dict())
    # It is kept unless others kept the processor busy, and says nothing of other tile sizes.
    table = load_table(name_of(x2_model))
    assert table.covers("tile_size=64", 10**12) == ("other processes" not in caplog.text)
    assert not table.covers("", 10**12)


def test_what_was_measured_is_used_and_explicit_settings_win(
    tmp_path: Path, x2_model: Path
) -> None:
    source = str(write_pixels(tmp_path / "in.tif", photograph_pixels(700, 900)))
    output = str(tmp_path / "out.tif")
    usual = prepare(source, output, Settings(model=str(x2_model)))
    keep(x2_model, 128, batch=3)
    tuned = prepare(source, output, Settings(model=str(x2_model)))
    assert usual.grid.tile.width > 128 >= tuned.grid.tile.width
    assert (tuned.batch_size, tuned.runners, tuned.threads) == (3, 1, 1)
    explicit = prepare(source, output, Settings(model=str(x2_model), tile_size=192))
    assert 128 < explicit.grid.tile.width <= 192


def test_a_region_is_planned_as_the_whole_image_is(tmp_path: Path, x2_model: Path) -> None:
    source = str(write_pixels(tmp_path / "in.tif", photograph_pixels(700, 900)))
    keep(x2_model, 128, batch=3)
    output, settings = str(tmp_path / "out.tif"), Settings(model=str(x2_model))
    whole = prepare(source, output, settings)
    part = prepare(source, output, replace(settings, region=(300, 200, 10, 20)))
    assert part.grid.n_tiles <= 4
    assert part.frame.whole == whole.frame.whole
    assert part.trim_px == whole.trim_px
    usual = prepare(source, output, replace(settings, region=(300, 200, 10, 20), tile_size=256))
    assert usual.frame.whole != whole.grid


def test_small_pictures_are_not_measured_for(
    tmp_path: Path, x2_model: Path, photograph: Path, tables: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = srpipe.enhance(photograph, tmp_path / "a.tif", model=x2_model)
    keep(x2_model, 48)
    again = srpipe.enhance(photograph, tmp_path / "b.tif", model=x2_model)
    assert report.tiles == again.tiles
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    shutil.rmtree(tables)
    source = str(write_pixels(tmp_path / "in.tif", photograph_pixels(700, 900)))
    more = prepare(source, str(tmp_path / "c.tif"), Settings(model=str(x2_model), tile_size=64))
    assert not more.serial
    assert not list(tables.glob("*"))
    assert "measuring" not in caplog.text


def test_a_resumed_job_keeps_what_its_plan_fixed(tmp_path: Path, tables: Path) -> None:
    # So many tiles at the usual size too that the kept table is looked at.
    model = conv_model(tmp_path / "m.onnx", metadata={"tile_size": "80"})
    keep(model, 48, batch=2)
    job = Job(tmp_path, model)
    job.arguments = {"model": model}
    job.run(engine="serial", tile_size=48)
    expected = job.output.read_bytes()
    job.output.unlink()
    job.interrupt(20, checkpoint_every_s=0)
    shutil.rmtree(tables)
    with pytest.raises(srpipe.JobError, match=r"tile size: 4.x4., now"):
        job.run(tile_size=64)
    with pytest.raises(srpipe.JobError, match="overlap"):
        job.run(overlap=16)
    assert job.run() >= 20
    assert job.output.read_bytes() == expected


def test_too_little_memory_shrinks_the_tile_and_says_so(
    tmp_path: Path, photograph: Path, wide_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.tif"
    settings = {"model": str(wide_model), "memory_bytes": 50_000_000}
    with pytest.raises(
        srpipe.SpaceError, match=r"may take 50(\.0)? MB .* --memory"
    ):  # before any row
        prepare(str(photograph), str(output), Settings(**settings))  # type: ignore[arg-type]
    settings["memory_bytes"] = 10**9
    enough = prepare(str(photograph), str(output), Settings(**settings))  # type: ignore[arg-type]
    assert not caplog.text
    settings["memory_bytes"] = 142_000_000
    little = prepare(str(photograph), str(output), Settings(**settings))  # type: ignore[arg-type]
    assert little.grid.tile.pixels < enough.grid.tile.pixels
    assert "142 MB of memory is too little for tiles of 256x256" in caplog.text
    settings["memory_bytes"] = 50_000_000
    with pytest.raises(srpipe.SpaceError, match=r"may take 50 MB .* --memory"):
        prepare(str(photograph), str(output), Settings(**settings))  # type: ignore[arg-type]
    settings |= {"memory_bytes": 142_000_000, "tile_size": 256}
    with pytest.raises(srpipe.SpaceError, match="may take 142 MB"):
        prepare(str(photograph), str(output), Settings(**settings))  # type: ignore[arg-type]


def test_a_plot_needs_matplotlib_and_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["tune", "lite-x2", "--plot", str(tmp_path / "none" / "a.png")])
    assert code == 2
    error = capsys.readouterr().err
    assert "pip install 'srpipe[plot]'" in error or "does not exist" in error
