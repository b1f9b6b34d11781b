"""``srpipe status``: what a job folder holds."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import photograph_pixels, write_pixels
from tests.processes import output_of, run_srpipe, start_srpipe, wait_for_line


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(788, 1400).repeat(4, axis=0))
    return ["enhance", str(source), str(tmp_path / "out.tif"), "-t", "128"]


def test_the_life_of_a_job(tmp_path: Path, command: list[str]) -> None:
    output = tmp_path / "out.tif"
    none = run_srpipe("status", output)
    assert none.returncode == 2
    assert "there is no job for" in none.stderr

    process = start_srpipe(*command, "--progress", "json", "--checkpoint-every", "0")
    wait_for_line(process, lambda line: json.loads(line).get("tiles_done", 0) >= 20)
    process.send_signal(signal.SIGSTOP)  # it must not be done before it is asked about
    running = json.loads(run_srpipe("status", output, "--json").stdout)
    assert running["state"] == "running"
    assert running["owner"]["pid"] == process.pid
    assert running["tiles_done"] >= 1
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    _, err = output_of(process)
    assert process.returncode == 130, err

    interrupted = json.loads(run_srpipe("status", f"{output}[compression=lzw]", "--json").stdout)
    assert interrupted["state"] == "interrupted"
    assert interrupted["owner"] is None
    assert running["tiles_done"] <= interrupted["tiles_done"] < interrupted["tiles_total"]
    assert interrupted["checkpoint_age_s"] >= 0
    assert interrupted["folder_bytes"] > 4 * 788 * 4 * 1400 * 3
    assert interrupted["job"]["model"].startswith("lite-x2 ")
    text = run_srpipe("status", output).stdout
    assert "was interrupted: repeat its command to go on" in text
    assert f"tiles done: {interrupted['tiles_done']} of {interrupted['tiles_total']}" in text

    plan = output.with_name("out.tif.srpipe") / "plan.json"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-10])
    damaged = run_srpipe("status", output)
    assert damaged.returncode == 0
    assert "is damaged: repeat its command with --fresh" in damaged.stdout
    plan.write_bytes(whole)

    done = run_srpipe(*command)
    assert done.returncode == 0, done.stderr
    assert f"going on at tile {interrupted['tiles_done']} of" in done.stderr
    assert run_srpipe("status", output).returncode == 2
