"""Growth, many and combined end on tiny inputs; what they measured is not looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import pyvips

import srpipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import bench
from benchmarks.compact import CompactSettings, build_compact
from benchmarks.growth import Growth, Start, growth_table, start_table
from benchmarks.many import cut_pictures
from benchmarks.processes import Usage
from benchmarks.runs import Run

PHOTOGRAPH = Path(__file__).parents[1] / "data" / "dandelion.jpg"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_compact(tmp_path / "tiny.onnx", CompactSettings(features=8, convolutions=1))


def told(tmp_path: Path, *arguments: str) -> list[dict]:
    answer = tmp_path / "answer.json"
    folder = tmp_path / "work"
    folder.mkdir()
    end = ["--folder", str(folder), "--json", str(answer), "--runs", "1"]
    assert bench.main([*arguments, "--picture", str(PHOTOGRAPH), *end]) == 0
    assert not list(folder.iterdir())
    return json.loads(answer.read_text())["results"]


def test_growth_benchmark(model: Path, tmp_path: Path, capsys):
    *growths, start = told(tmp_path, "growth", "--model", str(model), "--sizes", "0.02", "0.06")
    assert [round(g["picture_mp"], 2) for g in growths] == [0.02, 0.06]
    for growth in growths:
        (run,) = growth["runs"]
        assert run["seconds"] > 0
        assert run["cpu_s"] > 0
        assert run["usage"]["peak_bytes"] > 10_000_000
    assert all(seconds > 0 for seconds in start["start"].values())
    assert "start-up, s" in capsys.readouterr().out


def test_many_benchmark(model: Path, tmp_path: Path):
    (outcome,) = told(tmp_path, "many", "--model", str(model), "--count", "2", "--side", "100")
    assert outcome["n_pictures"] == 2
    ways = {"raw session", "one by one"}
    if hasattr(srpipe, "Enhancer"):
        ways |= {"one Enhancer, 1 thread", "one Enhancer, 2 threads"}
    assert outcome["runs"].keys() == ways
    assert outcome["times_raw"]["raw session"] == 1.0


def test_combined_benchmark(model: Path, tmp_path: Path, capsys):
    arguments = ["combined", "--model", str(model), "--mp", "0.14", "--crop-mp", "0.03"]
    (outcome,) = told(tmp_path, *arguments)
    names = [entry["name"] for entry in outcome["entries"]]
    assert names == ["plain loop, fp32", "srpipe, fp32", "srpipe, INT8"]
    loop, tiled, integer = (entry["whole_db"] for entry in outcome["entries"])
    assert min(loop, tiled) > 45
    assert 25 < integer < tiled
    assert outcome["gain"] > 0
    assert "gain with INT8" in capsys.readouterr().out


def test_cut_pictures_differ_and_repeat(tmp_path: Path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        cut_pictures(PHOTOGRAPH, folder, 3, 50)
    first, second = (
        [file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in ("a", "b")
    )
    assert first == second
    assert len(set(first)) == 3
    assert pyvips.Image.new_from_file(str(tmp_path / "a" / "0000.jpg")).width == 50


def test_tables_of_growth():
    def run_of(seconds: float, peak: int) -> Run:
        return Run(seconds, 2 * seconds, {}, Usage(peak, peak, {}, {}, 0.0))

    growths = [
        Growth(1.0, (run_of(1.0, 100_000_000),)),
        Growth(16.0, (run_of(8.0, 500_000_000), run_of(4.0, 500_000_000))),
        Growth(64.0, (run_of(48.0, 600_000_000),)),
    ]
    table = growth_table(growths)
    assert "| 16 | 2 | 6.00 | 0.375 | 1.00 | 0.750 | 1.00 | 500 (500) |" in table
    assert "| 64 | 1 | 48.00 | 0.750 | 2.00 | 1.500 | 2.00 | 600 (600) |" in table
    assert "| 1 | 9.00 | 3.00 | 0.10 | 0.50 | 0.40 | 2.00 |" in start_table(
        Start(1.0, 9.0, 3.0, 0.1, 0.5, 0.4)
    )
