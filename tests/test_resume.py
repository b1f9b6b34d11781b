"""Whatever ends a run, the same request goes on, to the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import srpipe
from srpipe.api import prepare
from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.identity import CONTENT_FILE
from srpipe.io.job_lock import LOCK_FILE
from srpipe.io.job_record import FINISHED_FILE, read_plan
from srpipe.plan import image_info
from srpipe.plan.fingerprint import digest
from srpipe.run import run_job
from srpipe.runtime.events import ProgressEvent
from srpipe.settings import Engine, Settings
from srpipe.stop import StopRequest
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import (
    is_running,
    output_of,
    run_srpipe,
    stages_of,
    start_srpipe,
    wait_for_line,
    wait_for_stages,
    wait_until,
    wait_until_gone,
)


class StopAt:
    """A progress callback that asks the run to stop when so many tiles are done."""

    def __init__(self, tiles: int, times: int = 1) -> None:
        self.tiles = tiles
        self.times = times
        self.stop = StopRequest()
        self.first_tile = -1

    def __call__(self, event: ProgressEvent) -> None:
        if event.state == "started":
            self.first_tile = event.tiles_done
        if event.tiles_done >= self.tiles and not self.stop.times:
            for _ in range(self.times):
                self.stop.request()


class Job:
    """A request of 4x5 tiles that can be interrupted."""

    def __init__(self, folder: Path, model: Path, **changes: Any) -> None:
        self.folder = folder
        self.output = folder / "out.tif"
        self.job_dir = folder / "out.tif.srpipe"
        self.source = write_pixels(folder / "in.tif", photograph_pixels(200, 260))
        self.arguments: dict[str, Any] = {"model": model, "tile_size": 64, "overlap": 8} | changes

    def run(self, stop_at: int = 1000, times: int = 1, **changes: Any) -> int:
        """Run until so many tiles are done; returns the tile it began with."""
        watch = StopAt(stop_at, times)
        srpipe.enhance(
            self.source, self.output, progress=watch, stop=watch.stop, **(self.arguments | changes)
        )
        return watch.first_tile

    def interrupt(self, stop_at: int, times: int = 1, **changes: Any) -> None:
        with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
            self.run(stop_at, times, **changes)
        assert not self.output.exists()


@pytest.fixture
def job(tmp_path: Path, x2_model: Path) -> Job:
    return Job(tmp_path, x2_model)


@pytest.fixture
def undisturbed(job: Job) -> bytes:
    job.run(engine="serial")
    content = job.output.read_bytes()
    job.output.unlink()
    return content


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_run_goes_on(job: Job, undisturbed: bytes, engine: str, times: int) -> None:
    job.interrupt(3, times, engine=engine, checkpoint_every_s=0)
    job.interrupt(11, times, engine=engine, checkpoint_every_s=0)
    first = job.run(engine=engine)
    # Asked once, the batches in flight are finished; asked twice, the last checkpoint counts.
    assert first >= (11 if times == 1 else 10)
    assert job.output.read_bytes() == undisturbed
    assert not job.job_dir.exists()


def test_what_does_not_change_the_result_may_differ(job: Job, undisturbed: bytes) -> None:
    job.interrupt(7, engine="serial", batch_size=3)
    job.interrupt(14, engine="local", workers=2, batch_size=4)
    assert job.run(engine="local", threads=1, checkpoint_every_s=100) >= 14
    assert job.output.read_bytes() == undisturbed


def test_a_batch_whose_arithmetic_counts_may_not_differ(tmp_path: Path) -> None:
    job = Job(tmp_path, conv_model(tmp_path / "b2.onnx", batch=2))
    job.interrupt(7)
    job.run()
    expected = job.output.read_bytes()
    job.output.unlink()
    job.run()
    assert job.output.read_bytes() == expected


def test_other_requests_are_refused_and_say_what_differs(job: Job, tmp_path: Path) -> None:
    job.interrupt(5)
    other = conv_model(tmp_path / "other.onnx", layers=3)
    for change, expected in (
        ({"tile_size": 128}, r"tile size: \d+x\d+, now \d+x\d+"),
        ({"overlap": 12}, r"overlap: \d+x\d+, now"),
        ({"blend": "mean"}, r"blend: feather, .* now mean"),
        ({"model": other}, r"model: x2 .* now other"),
        ({"on_error": "fill"}, "on error: stop, now fill"),
        (
            {"value_range": (0, 255)},
            r"values: 0 to 255 are 0.* to 1.*, now .* are 0.0 to 255.0, rgb",
        ),
        ({"white": 200}, "values: 0 to 255 are .*, now 0 to 200 are"),
        ({"channel_order": "bgr"}, "values: .* rgb, now .* bgr"),
    ):
        with pytest.raises(srpipe.JobError, match=expected) as caught:
            job.run(**change)
        assert caught.value.exit_code == 2
        assert "--fresh" in str(caught.value)
    with pytest.raises(srpipe.JobError, match=r"output options: .*deflate.* now .*lzw"):
        srpipe.enhance(job.source, f"{job.output}[compression=lzw]", **job.arguments)
    assert job.run() >= 5
    assert job.output.exists()


def test_a_changed_input_is_refused(job: Job) -> None:
    job.interrupt(5)
    stat = job.source.stat()
    pixels = photograph_pixels(200, 260)
    pixels[77, 77] ^= 1
    write_pixels(job.source, pixels)
    os.utime(job.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert job.source.stat().st_size == stat.st_size
    with pytest.raises(srpipe.JobError, match=r"input content: .* now"):
        job.run()
    assert job.run(fresh=True) == 0


@pytest.mark.parametrize("engine", ["threads", "local"])
def test_a_touched_input_is_the_same(job: Job, undisturbed: bytes, engine: Engine) -> None:
    job.interrupt(10, engine=engine)
    os.utime(job.source, ns=(0, 123_456_789))
    assert job.run(engine=engine) >= 4
    assert job.output.read_bytes() == undisturbed


def test_a_large_input_that_was_touched_is_compared_whole(
    job: Job, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_info, "HASHED_WHOLE_BYTES", 1000)
    stop = StopRequest()

    def watch(event: ProgressEvent) -> None:
        if event.tiles_done == 10:
            wait_until((job.job_dir / CONTENT_FILE).exists, "the input's hash")
            stop.request()

    with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
        srpipe.enhance(job.source, job.output, progress=watch, stop=stop, **job.arguments)
    os.utime(job.source, ns=(0, 123_456_789))
    job.interrupt(15)
    os.utime(job.source, ns=(0, 987_654_321))
    content = (job.job_dir / CONTENT_FILE).read_bytes()
    (job.job_dir / CONTENT_FILE).write_bytes(content.replace(b'"content": "', b'"content": "0'))
    with pytest.raises(srpipe.JobError, match=r"input changed at: .* now"):
        job.run()
    (job.job_dir / CONTENT_FILE).write_bytes(content)
    assert job.run() >= 12
    assert job.output.read_bytes() == undisturbed
    assert not job.job_dir.exists()


def test_fresh_starts_over(job: Job, undisturbed: bytes) -> None:
    job.interrupt(9, blend="mean")
    assert job.run(fresh=True) == 0
    assert job.output.read_bytes() == undisturbed


def test_a_removed_input_can_come_back(job: Job, undisturbed: bytes) -> None:
    job.interrupt(9)
    job.source.rename(job.folder / "away.tif")
    with pytest.raises(srpipe.InputError, match="does not exist"):
        job.run()
    (job.folder / "away.tif").rename(job.source)
    assert job.run() >= 9
    assert job.output.read_bytes() == undisturbed


def _flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def test_a_damaged_plan_is_a_clear_error(job: Job, undisturbed: bytes) -> None:
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:100]), _flip):
        job.interrupt(9, fresh=True)
        damage(job.job_dir / "plan.json")
        with pytest.raises(srpipe.JobError, match=r"is damaged.*--fresh"):
            job.run()
    assert job.run(fresh=True) == 0
    assert job.output.read_bytes() == undisturbed


def test_a_damaged_checkpoint_falls_back_to_the_one_before(job: Job, undisturbed: bytes) -> None:
    job.interrupt(9, engine="serial", checkpoint_every_s=0)
    far, near = (c.next_tile for c in load_checkpoints(job.job_dir, digest(read_plan(job.job_dir))))
    newest = max(job.job_dir.glob("checkpoint-?.json"), key=lambda path: path.stat().st_mtime_ns)
    _flip(newest, 40)
    assert job.run(engine="serial") == near == far - 1
    assert job.output.read_bytes() == undisturbed


def test_damaged_seams_never_become_pixels(job: Job, undisturbed: bytes) -> None:
    seams = job.job_dir / "seams.raw"
    rng = np.random.default_rng(0)
    begun = set()
    for seed in range(6):
        job.interrupt(8, engine="serial", checkpoint_every_s=0, fresh=True)
        data = np.fromfile(seams, np.float32)
        data[rng.integers(0, len(data), 1 + 300 * seed)] += 0.25
        data.tofile(seams)
        begun.add(job.run(engine="serial"))
        assert job.output.read_bytes() == undisturbed
        job.output.unlink()
    assert 0 in begun


def test_damaged_pixels_never_become_an_output(
    job: Job, undisturbed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Zeroed, or one bit flipped, in rows that are done and in the row that is not."""
    pixels, rng = job.job_dir / "pixels.raw", np.random.default_rng(0)
    for share in (0.0, 0.1, 0.2, 0.3, 0.39):
        job.interrupt(9, engine="serial", checkpoint_every_s=0, fresh=True)
        data = np.fromfile(pixels, np.uint8)
        at = int(share * len(data))
        if share:
            data[at : at + 5000] = 0
        else:
            data[at] ^= 1 << rng.integers(8)
        data.tofile(pixels)
        assert job.run(engine="serial") < 9
        assert "are damaged" in caplog.text
        assert job.output.read_bytes() == undisturbed
        job.output.unlink()


def test_pixels_that_are_not_done_may_hold_anything(job: Job, undisturbed: bytes) -> None:
    job.interrupt(9, engine="serial", checkpoint_every_s=0)
    data = np.fromfile(job.job_dir / "pixels.raw", np.uint8)
    data[len(data) * 3 // 4 :] = 7
    data.tofile(job.job_dir / "pixels.raw")
    assert job.run(engine="serial") >= 9
    assert job.output.read_bytes() == undisturbed


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_an_input_changed_while_it_is_read_is_an_error(job: Job, engine: Engine) -> None:
    def change(event: ProgressEvent) -> None:
        if event.tiles_done == 6:
            _flip(job.source, -2000)

    with pytest.raises(srpipe.ReadError, match="was changed while the job was running"):
        srpipe.enhance(job.source, job.output, progress=change, engine=engine, **job.arguments)
    assert sorted(path.name for path in job.folder.iterdir()) == ["in.tif"]


def test_an_input_that_is_only_touched_is_none(job: Job, undisturbed: bytes) -> None:
    def touch(event: ProgressEvent) -> None:
        if event.tiles_done == 6:
            os.utime(job.source)

    srpipe.enhance(job.source, job.output, progress=touch, engine="serial", **job.arguments)
    assert job.output.read_bytes() == undisturbed


@pytest.mark.parametrize("name", ["pixels.raw", "seams.raw"])
def test_a_short_canvas_starts_over(
    job: Job, undisturbed: bytes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    job.interrupt(9)
    os.truncate(job.job_dir / name, 10_000)
    assert job.run() == 0
    assert "are damaged: the job starts over" in caplog.text
    assert job.output.read_bytes() == undisturbed


def test_a_crash_after_the_output_is_in_place(
    job: Job, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is still there: the same request tidies up and is done."""
    with monkeypatch.context() as patch:
        patch.setattr("srpipe.run.JobFolder.remove", lambda self: None)
        job.run()
    assert (job.job_dir / FINISHED_FILE).exists()
    before = job.output.stat()
    assert job.run() == 20
    assert job.output.stat().st_ino == before.st_ino
    assert job.output.read_bytes() == undisturbed
    assert not job.job_dir.exists()


def test_an_output_of_somebody_else_is_not_taken_for_finished(job: Job) -> None:
    """Existence is no sign of completion: a killed writer leaves headers (ScrollPrize/villa #1695)."""
    job.interrupt(9)
    job.output.write_bytes(b"II*\\0")
    with pytest.raises(srpipe.OutputError, match="exists"):
        job.run()
    job.run(overwrite=True)
    assert job.output.stat().st_size > 1000


def test_a_lost_worker_is_replaced(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(788, 1400).repeat(4, axis=0))
    outputs = [tmp_path / "calm.tif", tmp_path / "killed.tif"]
    arguments = ["--overlap", "8", "-t", "256", "-b", "2", "--workers", "2"]
    run_srpipe("enhance", source, outputs[0], *arguments)
    process = start_srpipe("enhance", source, outputs[1], *arguments, "--progress", "json")
    stages = wait_for_stages(process.pid)
    assert process.stderr is not None
    killed: set[int] = set()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if is_running(line) and len(killed) < 3:
            workers = [p for name, p in stages_of(process.pid).items() if "worker" in name]
            worker = next((p for p in workers if p.pid not in killed), None)
            if worker is not None:
                worker.kill()
                killed.add(worker.pid)
    output_of(process)
    assert process.returncode == 0, lines[-3:]
    assert len(killed) == 3
    assert "was killed by SIGKILL" in "".join(lines)
    assert "The worker is replaced" in "".join(lines)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    wait_until_gone(stages.values())


def test_workers_that_keep_dying_stop_the_job_resumably(tmp_path: Path, x2_model: Path) -> None:
    job = Job(tmp_path, x2_model)
    job.interrupt(6)
    killing = True

    def kill_workers() -> None:
        while killing:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, IndexError):
                    if "srpipe-worker" in child.cmdline()[-1]:
                        child.kill()
            time.sleep(0.002)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with pytest.raises(srpipe.StageError, match=r"3 workers were lost.*repeat the command"):
            job.run(engine="local")
    finally:
        killing = False
        killer.join()
    assert job.run(engine="local") >= 6


def test_the_command_says_how_far_it_is(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(788, 1400).repeat(4, axis=0))
    command = ["enhance", source, tmp_path / "out.tif", "-t", "128", "--checkpoint-every", "0.2"]
    process = start_srpipe(*command, "--progress", "json")
    wait_for_line(process, lambda line: json.loads(line).get("tiles_done", 0) >= 5)
    process.send_signal(signal.SIGTERM)
    _, err = output_of(process)
    assert process.returncode == 143
    last = json.loads(err.strip().splitlines()[-1])
    assert (last["type"], last["exit_code"]) == ("Interrupted", 143)
    again = run_srpipe(*command)
    assert again.returncode == 0
    assert "going on at tile" in again.stderr


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(788, 1400).repeat(4, axis=0))
    command = ["enhance", source, tmp_path / "out.tif", "-t", "128"]
    first = start_srpipe(*command)
    stages = wait_for_stages(first.pid)
    stages["worker 0"].suspend()  # or the first may be done before the others have looked
    second: subprocess.CompletedProcess[str] = run_srpipe(*command)
    assert second.returncode == 2
    assert f"process {first.pid} on " in second.stderr
    assert run_srpipe(*command, "--fresh").returncode == 2
    first.kill()
    stages["worker 0"].resume()
    first.communicate()
    wait_until_gone(stages.values())
    third = run_srpipe(*command)
    assert third.returncode == 0, third.stderr


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_a_model_that_changes_meanwhile(tmp_path: Path, x2_model: Path, engine: Engine) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(x2_model.read_bytes())
    job = Job(tmp_path, model, engine=engine)
    plan = prepare(str(job.source), str(job.output), Settings(model=str(model), engine=engine))
    conv_model(model, layers=3)
    with pytest.raises(srpipe.InferenceError, match="changed while the job was running"):
        run_job(plan, None, time.monotonic(), StopRequest())
    assert not job.job_dir.exists()


def test_the_same_command_at_once_after_the_parent_was_killed(tmp_path: Path) -> None:
    """Processes of the dead run hold the lock until they are gone: none may undo the new one's work."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(788, 1400).repeat(4, axis=0))
    command = ["enhance", source, tmp_path / "out.tif", "-t", "128"]
    first = start_srpipe(*command)
    stages = wait_for_stages(first.pid)
    stages["writer"].suspend()  # as if it hung on a slow disk
    first.kill()
    first.communicate()
    second = start_srpipe(*command)
    lock, waiting = f"{tmp_path / 'out.tif'}.srpipe/{LOCK_FILE}", psutil.Process(second.pid)
    wait_until(lambda: lock in [f.path for f in waiting.open_files()], "a look at the lock")
    assert len(waiting.children()) == 0
    stages["writer"].resume()
    _, err = output_of(second)
    assert second.returncode == 0, err
