"""A full disk, a folder that cannot be written to, an input that breaks: clear, and resumable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import srpipe
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.processes import output_of, run_srpipe

# A small disk of its own, for root and, where the kernel allows it, for others.
_OWN_DISK = ["unshare", "-rm", "sh", "-euc"]


def _can_mount() -> bool:
    probe = [*_OWN_DISK, "mount -t tmpfs -o size=1m none /mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mount = pytest.mark.skipif(not _can_mount(), reason="may not mount a small disk")


def in_own_disk(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace; ``$0`` is the Python that has srpipe."""
    command = [*_OWN_DISK, script, sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = output_of(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@needs_mount
@pytest.mark.parametrize("seconds", ["0", "5"])
def test_a_disk_that_fills_up_stops_the_job_and_room_lets_it_go_on(
    tmp_path: Path, seconds: str
) -> None:
    """Noise does not compress: the output outgrows its estimate on the small disk."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    source = write_pixels(tmp_path / "in.tif", noise)
    run_srpipe("enhance", source, tmp_path / "calm.tif", "-t", "64", "--overlap", "8")
    # Pixels take 1.44 MB; the output is estimated at 1.0 MB, and takes 1.4.
    done = in_own_disk(
        """
        mkdir "$2"; mount -t tmpfs -o size=3m none "$2"
        "$0" -m srpipe enhance "$1" "$2/out.tif" -t 64 --overlap 8 --checkpoint-every "$4" \\
            && exit 90 || echo "exit $?" >&2
        ls "$2" >&2
        "$0" -m srpipe status "$2/out.tif" --json
        mount -o remount,size=9m "$2"
        "$0" -m srpipe enhance "$1" "$2/out.tif" -t 64 --overlap 8
        cp "$2/out.tif" "$3"
        """,
        source, tmp_path / "disk", tmp_path / "out.tif", seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, code, listing, again, _ = done.stderr.strip().splitlines()
    assert "cannot be written" in first
    assert "free space" in first
    assert "repeat the command to go on" in first
    assert (code, listing) == ("exit 1", "out.tif.srpipe")
    status = json.loads(done.stdout)
    assert status["state"] == "interrupted"
    assert f"going on at tile {status['tiles_done']} of {status['tiles_total']}" in again
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "calm.tif").read_bytes()


@needs_mount
def test_a_read_only_disk_is_known_before_any_work(tmp_path: Path, photograph: Path) -> None:
    done = in_own_disk(
        """
        mkdir "$2"; mount -t tmpfs -o size=30m,ro none "$2"
        "$0" -m srpipe enhance "$1" "$2/out.tif" || echo "exit $?" >&2
        "$0" -m srpipe enhance "$1" "$3" --job-dir "$2/job" || echo "exit $?" >&2
        """,
        photograph, tmp_path / "disk", tmp_path / "out.tif",
    )  # fmt: skip
    output, code, folder, second_code = done.stderr.strip().splitlines()
    assert "cannot be written to: check its permissions" in output
    assert "cannot be used (Read-only file system)" in folder
    assert code == second_code == "exit 2"


class Broken:
    """A photograph of many tiles that is broken from some row on."""

    def __init__(self, folder: Path, suffix: str, x2_model: Path) -> None:
        self.folder = folder
        self.whole = write_pixels(folder / f"whole{suffix}", photograph_pixels(600, 500))
        self.path = folder / f"in{suffix}"
        self.output = folder / "out.v"
        self.arguments = {"model": x2_model, "tile_size": 64, "overlap": 8}
        data = self.whole.read_bytes()
        self.path.write_bytes(data[: len(data) * 6 // 10])

    def expected(self) -> np.ndarray:
        srpipe.enhance(self.whole, self.folder / "expected.v", **self.arguments)
        return read_pixels(self.folder / "expected.v")


@pytest.fixture(params=[".tif", ".png", ".jpg"])
def broken(request: pytest.FixtureRequest, tmp_path: Path, x2_model: Path) -> Broken:
    broken = Broken(tmp_path, request.param, x2_model)
    if request.param == ".tif":  # its table is at the end: damage strips instead
        data = bytearray(broken.whole.read_bytes())
        write_pixels(broken.whole, photograph_pixels(600, 500), compression="deflate", strip=True)
        data = bytearray(broken.whole.read_bytes())
        middle = len(data) * 6 // 10
        data[middle : middle + 2000] = bytes(2000)
        broken.path.write_bytes(data)
    return broken


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_a_broken_input_says_where_and_keeps_what_is_done(broken: Broken, engine: str) -> None:
    with pytest.raises(srpipe.ReadError, match=r"cannot be read at rows \d+ to") as caught:
        srpipe.enhance(broken.path, broken.output, engine=engine, **broken.arguments)
    assert "repeat the command to go on" in str(caught.value)
    assert srpipe.read_job_status(str(broken.output)).tiles_done > 20
    # The cause is not gone: the same request fails at the same place, without doing it all again.
    with pytest.raises(srpipe.ReadError):
        srpipe.enhance(broken.path, broken.output, engine=engine, **broken.arguments)
    assert not broken.output.exists()
    # Another file is another job.
    shutil.copy(broken.whole, broken.path)
    with pytest.raises(srpipe.JobError, match=r"input .*, now"):
        srpipe.enhance(broken.path, broken.output, engine=engine, **broken.arguments)
    srpipe.enhance(broken.path, broken.output, fresh=True, engine=engine, **broken.arguments)
    np.testing.assert_array_equal(read_pixels(broken.output), broken.expected())


def test_an_input_that_cannot_be_read_for_a_while(
    tmp_path: Path, x2_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is away: back again, it is the same file, and the job goes on."""
    source = write_pixels(tmp_path / "in.png", photograph_pixels(600, 500))
    whole, stat = source.read_bytes(), source.stat()
    arguments = {"model": x2_model, "tile_size": 64, "overlap": 8}
    watch = srpipe.StopRequest()
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance(
            source, tmp_path / "out.v", stop=watch, **arguments,
            progress=lambda event: watch.request() if event.tiles_done == 20 else None,
        )  # fmt: skip
    source.write_bytes(whole[:100])
    with pytest.raises(srpipe.RequestError):
        srpipe.enhance(source, tmp_path / "out.v", **arguments)
    source.write_bytes(whole)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert srpipe.enhance(source, tmp_path / "out.v", **arguments).resumed_tiles >= 20


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_gaps_can_be_filled_and_are_listed(broken: Broken, engine: str) -> None:
    report = srpipe.enhance(
        broken.path, broken.output, on_error="fill", engine=engine, **broken.arguments
    )
    assert report.filled
    first_row = min(rect.top for rect in report.filled)
    assert 0 < first_row < 600
    result, expected = read_pixels(broken.output), broken.expected()
    np.testing.assert_array_equal(result[: 2 * first_row - 8], expected[: 2 * first_row - 8])
    assert not np.array_equal(result, expected)


def test_a_resumed_job_remembers_what_was_filled(broken: Broken) -> None:
    arguments = broken.arguments | {"on_error": "fill", "engine": "serial"}
    undisturbed = srpipe.enhance(broken.path, broken.output, **arguments)
    expected = broken.output.read_bytes()
    broken.output.unlink()
    watch = srpipe.StopRequest()
    stop_at = undisturbed.tiles - 5
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance(
            broken.path, broken.output, stop=watch, **arguments,
            progress=lambda event: watch.request() if event.tiles_done == stop_at else None,
        )  # fmt: skip
    resumed = srpipe.enhance(broken.path, broken.output, **arguments)
    assert resumed.resumed_tiles >= stop_at
    assert resumed.filled == undisturbed.filled
    assert broken.output.read_bytes() == expected


def test_the_command_lists_what_it_filled(broken: Broken) -> None:
    done = run_srpipe("enhance", broken.path, broken.output, "-t", "64", "--on-error", "fill")
    assert done.returncode == 0
    assert "could not be read whole" in done.stderr
