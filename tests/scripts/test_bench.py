"""The benchmark runs end to end on a tiny picture; what it measured is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips

from srpipe.io.model_probe import probe_model
from srpipe.io.source import read_image_info
from tests.processes import wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import bench, memory
from benchmarks.batch import Measured, batch_table
from benchmarks.compact import CompactSettings, build_compact
from benchmarks.nafnet import build_nafnet
from benchmarks.pictures import picture_of
from benchmarks.pipeline import Result
from benchmarks.processes import TreeSampler, Usage, process_memory, stage_name
from benchmarks.raw_session import Arrangement
from benchmarks.runs import Run, psnr
from benchmarks.table import speed_table, stage_table
from benchmarks.task import Request, TaskError, run_task

PHOTOGRAPH = Path(__file__).parents[1] / "data" / "dandelion.jpg"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pyvips.Image.thumbnail(str(PHOTOGRAPH), 300, height=280, size="force").write_to_file(str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = CompactSettings(features=8, convolutions=1)
    return build_compact(tmp_path / "tiny.onnx", settings)


def test_reuse_benchmark(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["reuse", "--picture", str(PHOTOGRAPH), "--mp", "2", "--runs", "1"]
    assert bench.main([*arguments, "--model", str(model), "--folder", str(tmp_path)]) == 0
    scan, photograph = capsys.readouterr().out.strip().splitlines()[-2:]
    tiles, repeated = (int(cell.split()[0]) for cell in scan.split("|")[3:5])
    # Of six rows, the one at the edge of the background is no background.
    assert repeated >= (0.6 - 1 / 6) * tiles
    assert photograph.split("|")[4].strip() == "0 (0.0%)"
    assert list(tmp_path.iterdir()) == [model]


def test_pipeline_benchmark(picture: Path, model: Path, tmp_path: Path, capsys):
    answer = tmp_path / "answer.json"
    arguments = ["pipeline", "--picture", str(picture), "--min-mp", "0.01", "--runs", "1"]
    arguments += ["--whole-mp", "0.02"]
    arguments += ["--model", str(model), "--folder", str(tmp_path), "--json", str(answer)]
    assert bench.main(arguments) == 0
    told = json.loads(answer.read_text())
    assert {"processor", "cores", "packages"} <= told["machine"].keys()
    (result,) = told["results"]
    assert {
        "model", "picture_mp", "model_mp", "arrangement", "raw", "pipeline", "loop", "psnr_db",
        "raw_mp_per_s", "pipeline_mp_per_s", "pipeline_per_raw", "pipeline_per_raw_cpu",
        "loop_per_pipeline",
    } <= result.keys()  # fmt: skip
    for kind in ("raw", "pipeline", "loop"):
        (run,) = result[kind]
        assert run["seconds"] > 0
        assert run["cpu_s"] > 0
        assert run["usage"]["peak_bytes"] > 0
    stages = {"reader", "batcher", "worker", "accumulator", "writer"}
    assert result["pipeline"][0]["stages"].keys() == stages
    assert result["psnr_db"] > 30
    assert result["whole_db"].keys() == {"pipeline", "loop"}
    assert min(result["whole_db"].values()) > 40
    said = capsys.readouterr().out
    assert "| tiny |" in said.replace(str(model), "tiny")
    assert not list(tmp_path.glob("srpipe-bench-*"))


@pytest.mark.parametrize("integer", [[], ["--integer"]])
def test_batch_benchmark(model: Path, integer: list[str], capsys):
    arguments = ["batch", "--model", str(model), "--batch-size", "1", "4", "--tile-size", "16"]
    assert bench.main([*arguments, "--runs", "1", *integer]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert [row[1].strip() for row in rows] == ["batch", "---", "1", "4"]
    assert float(rows[2][4]) == 1.0
    assert rows[3][5].strip() == "1.46"  # the original design, on a CPU


def test_models_benchmark(picture: Path, model: Path, capsys):
    arguments = ["models", "--model", str(model), "lite-x2", "--picture", str(picture)]
    assert bench.main([*arguments, "--runs", "1"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert [row[1].strip() for row in rows[2:]] == [str(model), "lite-x2"]
    assert float(rows[2][3]) == 1.0
    assert float(rows[3][3]) == pytest.approx(
        float(rows[3][2]) / float(rows[2][2]), rel=0.02, abs=0.01
    )


def test_rewrite_benchmark(model: Path, capsys):
    arguments = ["rewrite", "--model", str(model), "lite-x2", "--tile-size", "24", "--runs", "1"]
    assert bench.main(arguments) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    told = [(row[1].strip(), row[2].strip(), row[3].strip()) for row in rows[2:]]
    assert told == [
        (str(model), "constants only", "–"),
        (str(model), "prelu", "2"),
        ("lite-x2", "constants only", "–"),
        ("lite-x2", "shuffle", "1"),
    ]
    assert all(float(row[4].strip(" x")) > 0 and float(row[5]) < 1e-5 for row in rows[2:])


def test_nafnet_is_an_image_model(tmp_path: Path):
    info = probe_model(build_nafnet(tmp_path / "nafnet.onnx", width=4))
    assert (info.scale, info.multiple_px, info.channels) == (1, 16, 3)


def test_batch_benchmark_without_the_device(model: Path, capsys):
    assert bench.main(["batch", "--model", str(model), "--device", "quantum"]) == 1
    assert "device 'quantum' is unknown" in capsys.readouterr().err


def test_batch_table():
    measured = Measured("cuda:0", "", {1: 0.5, 4: 1.0, 32: None})
    assert batch_table(measured).splitlines()[2:] == [
        "| 1 | 0.5000 | 2.00 | 1.00 | 1.00 |",
        "| 4 | 1.0000 | 4.00 | 2.00 | 2.40 |",
        "| 32 | out of memory | – | – | – |",
    ]


def test_memory_prints_a_row_for_every_process(picture: Path, model: Path, tmp_path: Path, capsys):
    before = set(tmp_path.iterdir())
    arguments = ["--model", str(model), "--tile-size", "32", "--quiet"]  # enough for processes
    assert memory.main([str(picture), "--", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    for stage in ("main", "worker 0", "accumulator", "batcher", "reader", "writer"):
        assert stage in names
    assert set(tmp_path.iterdir()) == before


def test_memory_passes_the_exit_code_on(tmp_path: Path, capsys):
    assert memory.main([str(tmp_path / "none.tif")]) == 2
    assert "exit code 2" in capsys.readouterr().out


def test_failed_task_says_why(picture: Path, tmp_path: Path):
    with pytest.raises(TaskError, match="no-such"):
        run_task(Request("raw", str(picture), str(tmp_path / "o.tif"), "no-such.onnx", 1, 1))


def test_sampler_sees_children_by_stage():
    code = (
        "x = bytearray(30_000_000); x[::4096] = b'1' * len(x[::4096]); print(flush=True); input()"
    )
    command = ["/bin/sh", "-c", f'{sys.executable} -c "{code}" srpipe-reader; true']
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        TreeSampler(process.pid, 0.02) as sampler,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: sampler._stage_peak_bytes.get("reader", 0) >= 30_000_000, "a sample")
        process.communicate(b"\n")
    usage = sampler.usage
    assert usage.stage_peak_bytes["reader"] >= 30_000_000
    assert usage.peak_bytes >= usage.stage_peak_bytes["reader"]
    assert usage.stage_cpu_s["reader"] >= 0


def test_gone_process_has_no_memory():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert process_memory(process.pid) is None
    assert stage_name(process.pid) == "main"
    memory_bytes = process_memory(os.getpid())
    assert memory_bytes is not None
    assert memory_bytes[0] > 1_000_000


def test_picture_is_built_cut_or_taken_as_it_is(picture: Path, tmp_path: Path):
    assert picture_of([picture], 0.05, None, tmp_path) == picture
    assert picture_of([picture], 0.05, 1.0, tmp_path) == picture
    for least_mp, most_mp, side_px in ((0.3, None, 548), (0.04, 0.04, 200)):
        made = picture_of([picture], least_mp, most_mp, tmp_path)
        size = read_image_info(made).size
        assert (size.width, size.height) == (side_px, side_px)


def test_psnr(tmp_path: Path):
    random = np.random.default_rng(0)
    first = random.integers(0, 200, (20, 30, 3), np.uint8)
    second = first + random.integers(0, 9, first.shape, np.uint8)
    for name, pixels in (("a.png", first), ("b.png", second)):
        pyvips.Image.new_from_array(pixels).write_to_file(str(tmp_path / name))
    error = np.mean((first.astype(float) - second) ** 2)
    expected = 10 * np.log10(255**2 / error)
    assert psnr(tmp_path / "a.png", tmp_path / "b.png") == pytest.approx(expected)
    assert psnr(tmp_path / "a.png", tmp_path / "a.png") == float("inf")


def run_of(seconds: float) -> Run:
    usage = Usage(3_000_000, 2_000_000, {"main": 1}, {"main": 0.5, "worker 0": 2.0}, 0.0)
    times = {"busy_s": 2.0, "waiting_for_input_s": 0.25, "waiting_for_room_s": 0.0}
    return Run(seconds, seconds + 1, {"worker": times}, usage)


def test_tables_hold_medians_and_ratios():
    result = Result(
        "lite", 2.0, 2.4, "256x256", "240x240", 1, Arrangement(2, 1),
        tuple(run_of(s) for s in (1.0, 2.0, 4.0)),
        tuple(run_of(s) for s in (2.0, 2.5, 4.0)),
        tuple(run_of(s) for s in (8.0, 5.0, 12.0)), 50.0, {"pipeline": float("inf"), "loop": 60.0},
    )  # fmt: skip
    assert result.raw_mp_per_s == pytest.approx(1.2)
    assert result.pipeline_mp_per_s == pytest.approx(0.96)
    assert result.pipeline_per_raw == pytest.approx(0.8)
    assert result.pipeline_per_raw_cpu == pytest.approx(3 / 3.5)
    assert result.loop_per_pipeline == pytest.approx(3.0)
    assert "1.200 (2 runs on 1 thread) | 0.960 | 0.800 | 0.857 | 8.0 | 2.5 | 3.00" in speed_table(
        [result]
    )
    assert "| lite | worker | 80% | 10% | 0% | 2.0 |" in stage_table([result])
