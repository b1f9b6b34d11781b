"""What is foretold of a job agrees with the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import srpipe
from srpipe.cli.plan import describe
from tests.conftest import photograph_pixels, write_pixels
from tests.processes import run_srpipe


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.tif", photograph_pixels(500, 700), compression="deflate")


def test_it_is_what_the_job_does(tmp_path: Path, source: Path, x2_model: Path) -> None:
    output = tmp_path / "out.tif"
    settings = {"model": x2_model, "tile_size": 128, "overlap": 16, "batch_size": 2}
    plan = srpipe.estimate(source, output, sample_s=0.2, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]
    text = describe(plan)
    for words in ("700x500, RGB, uint8", "1400x1000", "redundant", "time:", "memory:", "disk:"):
        assert words in text
    report = srpipe.enhance(source, output, **settings)
    assert (plan.tiles, plan.tile, plan.stride, plan.redundancy, plan.engine, plan.output_size) == (
        report.tiles, report.tile, report.stride, report.redundancy, report.engine, report.output_size,
    )  # fmt: skip
    assert plan.batch_size == report.batch_size == 2
    assert plan.output_bytes == pytest.approx(output.stat().st_size, rel=0.25)
    assert plan.seconds == pytest.approx(plan.start_s + plan.end_s + plan.decode_s
        / (plan.workers * plan.threads) + plan.tile_s * plan.tiles, rel=0.5)  # fmt: skip
    assert 1 <= plan.sample_tiles <= plan.tiles
    assert plan.job_disk_bytes >= 1400 * 1000 * 3
    assert plan.memory_bytes > plan.model_memory_bytes > 0


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint16"), (4, "uint8")])
def test_one_tile_of_any_kind(tmp_path: Path, x2_model: Path, bands: int, dtype: str) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(90, 120, bands, dtype))
    plan = srpipe.estimate(source, tmp_path / "out.png", model=x2_model, sample_s=0.1)
    assert (plan.tiles, plan.engine, plan.input_dtype) == (1, "serial", dtype)
    assert plan.sample_tiles == 1


def test_workers_of_their_own_are_sampled_too(tmp_path: Path, source: Path, x2_model: Path) -> None:
    plan = srpipe.estimate(
        source, tmp_path / "o.tif", model=x2_model, tile_size=256, workers=2, sample_s=0.0
    )
    assert (plan.workers, plan.engine) == (2, "local")
    assert plan.start_s > 0


def test_warnings_say_what_to_think_of(tmp_path: Path, source: Path, x2_model: Path) -> None:
    plan = srpipe.estimate(
        source, tmp_path / "o.tif", model=x2_model, tile_size=64, overlap=30, sample_s=0.0
    )
    assert plan.redundancy > 0.5
    assert any("done twice: use larger tiles" in warning for warning in plan.warnings)


def test_the_command_stops_before_it_writes(tmp_path: Path, source: Path, x2_model: Path) -> None:
    output = tmp_path / "out.tif"
    result = run_srpipe("plan", source, output, "-m", x2_model, "-t", "512", "--json")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["output_size"] == {"width": 1400, "height": 1000}
    assert plan["seconds"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]
    output.write_text("mine")
    refused = run_srpipe("plan", source, output, "-m", x2_model)
    assert refused.returncode == 2
    assert "exists" in refused.stderr
