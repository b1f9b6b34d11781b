"""Ray: the same bytes from any nodes, whatever is killed; and what is wrong with a cluster is said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import srpipe
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S, output_of, wait_until, without_notes
from tests.ray_cluster import LocalCluster
from tests.slab_jobs import content, tiles_of
from tests.test_faults import needs_mount

pytest.importorskip("ray")

# Unlike those of others, in size or in number.
TILES = ["-t", 32, "--overlap", 8]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        cluster.add(num_cpus=1)
        cluster.add(num_cpus=1)
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


class Request:
    """A job that takes some seconds on a core, and its output in one piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = write_pixels(folder / "in.tif", photograph_pixels(1000, 240))
        self.model = conv_model(folder / "slow.onnx", layers=5, features=48)
        self.output = folder / "out.tif"
        self.job_dir = folder / "out.tif.srpipe"

    def start(self, *arguments: object, address: str) -> subprocess.Popen[str]:
        """``srpipe enhance --engine ray`` in a folder where no srpipe lies."""
        command = [sys.executable, "-m", "srpipe", "enhance", self.source, self.output,
                   "-m", self.model, *TILES, "--engine", "ray", "--address", address,
                   "--checkpoint-every", 0.1, *arguments]  # fmt: skip
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder,
        )  # fmt: skip

    def run(self, *arguments: object, address: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, address=address)
        out, err = output_of(process)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def assert_whole(self) -> None:
        whole = self.folder / "whole.tif"
        if not whole.exists():
            srpipe.enhance(self.source, whole, model=self.model, tile_size=32, overlap=8)
        assert content(self.output) == content(whole)
        assert not self.job_dir.exists()

    def tiles(self, count: int) -> list[int]:
        return tiles_of(self.job_dir, count)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(tmp_path)


def workers_of_slabs(folder: Path) -> list[psutil.Process]:
    """Ray's processes that have a slab's lock."""
    found = []
    for lock in folder.glob("slab-*/srpipe.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
            found.append(psutil.Process(json.loads(lock.read_bytes())["pid"]))
    return found


def kill_one(folder: Path) -> bool:
    """Kill a process that works on a slab, if there is one."""
    for worker in workers_of_slabs(folder)[:1]:
        worker.kill()
        return True
    return False


@pytest.mark.parametrize("slabs", [None, 5])
def test_any_number_of_slabs_gives_the_same_bytes(
    cluster: LocalCluster, request_: Request, slabs: int | None
) -> None:
    options = [] if slabs is None else ["--slabs", slabs]
    done = request_.run(*options, "--progress", "json", address=cluster.address)
    assert done.returncode == 0, done.stderr
    request_.assert_whole()
    events = [json.loads(line) for line in done.stderr.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[0]["state"] == "started"
    assert progress[-1]["state"] == "finished"
    tiles = [event["tiles_done"] for event in progress]
    assert tiles == sorted(tiles)
    assert tiles[-1] == progress[0]["tiles_total"]
    report = next(event for event in events if event["event"] == "report")
    assert report["slabs"] == (slabs or 2)
    assert report["engine"] == "slabs"


def test_a_worker_killed_in_the_middle(cluster: LocalCluster, request_: Request) -> None:
    process = request_.start("--slabs", 2, address=cluster.address)
    for tiles in (5, 60):
        wait_until(lambda tiles=tiles: max(request_.tiles(2)) >= tiles, f"{tiles} tiles")
        wait_until(lambda: kill_one(request_.job_dir), "a process that works on a slab")
    _, err = output_of(process)
    assert process.returncode == 0, err
    request_.assert_whole()


def test_a_node_removed_in_the_middle(own_cluster: LocalCluster, request_: Request) -> None:
    nodes = [own_cluster.add(num_cpus=1) for _ in range(2)]
    process = request_.start("--slabs", 4, address=own_cluster.address)
    wait_until(lambda: sum(tiles > 5 for tiles in request_.tiles(4)) >= 2, "tiles of two slabs")
    before = list(request_.job_dir.glob("slab-*.json"))
    own_cluster.remove(nodes[0])
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert len(before) < 4
    request_.assert_whole()


def test_a_driver_killed_and_started_again(cluster: LocalCluster, request_: Request) -> None:
    process = request_.start("--slabs", 3, address=cluster.address)
    wait_until(lambda: max(request_.tiles(3)) >= 40, "40 tiles")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = sum(request_.tiles(3))
    again = request_.run("--progress", "json", address=cluster.address)
    assert again.returncode == 0, again.stderr
    begun = json.loads(again.stderr.splitlines()[0])
    assert begun["state"] == "started"
    assert begun["tiles_done"] >= done
    request_.assert_whole()


def test_an_interrupted_driver_leaves_checkpoints_and_nothing_running(
    cluster: LocalCluster, request_: Request
) -> None:
    process = request_.start("--slabs", 3, address=cluster.address)
    wait_until(lambda: max(request_.tiles(3)) >= 20, "20 tiles")
    status = srpipe.read_job_status(str(request_.output))
    assert status.state == "running"
    assert len(status.slabs) == 3
    assert any(slab.state == "running" for slab in status.slabs)
    process.send_signal(signal.SIGINT)
    _, err = output_of(process)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "repeat the command" in err
    wait_until(lambda: not workers_of_slabs(request_.job_dir), "the end of all slabs' processes")
    assert srpipe.read_job_status(str(request_.output)).state == "interrupted"
    assert not request_.output.exists()
    assert request_.run(address=cluster.address).returncode == 0
    request_.assert_whole()


def test_a_failed_slab_is_named_with_its_rows(cluster: LocalCluster, request_: Request) -> None:
    png = write_pixels(request_.folder / "broken.png", photograph_pixels(1000, 300))
    png.write_bytes(png.read_bytes()[: png.stat().st_size * 9 // 10])
    request_.source = png
    failed = request_.run("--slabs", 3, address=cluster.address)
    assert failed.returncode == 1
    assert "slab 3 of 3 (rows " in failed.stderr
    assert "to 999 of" in failed.stderr
    assert "truncated or corrupt" in failed.stderr
    assert "Traceback" not in failed.stderr
    filled = request_.run("--slabs", 3, "--on-error", "fill", "--fresh", address=cluster.address)
    assert filled.returncode == 0, filled.stderr
    assert "could not be read whole" in filled.stderr


def test_many_images_are_a_call_each(cluster: LocalCluster, tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    (tmp_path / "in").mkdir()
    for i in range(4):
        write_pixels(tmp_path / "in" / f"{i}.png", photograph_pixels(120 + 7 * i, 90))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    # Nodes have a current folder of their own.
    request = [sys.executable, "-m", "srpipe", "enhance", "in", "out", "-m", model.name]
    on_ray = [*request, "--engine", "ray", "--address", cluster.address, "--progress", "json"]
    runs = [
        subprocess.run(
            on_ray, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        for _ in range(2)
    ]
    events = [
        [json.loads(line)["event"] for line in without_notes(run.stderr).splitlines()]
        for run in runs
    ]
    assert sorted(events[0]) == ["done"] * 4 + ["failed"]
    assert sorted(events[1]) == ["failed"] + ["skipped"] * 4
    assert [run.returncode for run in runs] == [1, 1]
    here = [*request, "-q"]
    here[here.index("out")] = "here"
    subprocess.run(here, cwd=tmp_path, capture_output=True, timeout=PATIENCE_S, check=False)
    for i in range(4):
        assert (tmp_path / "out" / f"{i}.png").read_bytes() == (
            tmp_path / "here" / f"{i}.png"
        ).read_bytes()
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


def test_without_an_address_this_machine_is_the_cluster(request_: Request) -> None:
    """A cluster of its own, which is gone afterwards."""
    command = [sys.executable, "-m", "srpipe", "enhance", request_.source, request_.output,
               "-m", request_.model, *TILES, "--engine", "ray", "--address", "local"]  # fmt: skip
    before = {process.pid for process in psutil.process_iter()}
    folders = set(Path("/tmp").glob("srpipe-ray-*"))
    done = subprocess.run(
        list(map(str, command)), cwd=request_.folder, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    request_.assert_whole()
    left = [p for p in psutil.process_iter(["name", "cmdline"]) if p.pid not in before]
    assert not [p for p in left if any("srpipe-ray-" in word for word in p.info["cmdline"] or ())]
    assert set(Path("/tmp").glob("srpipe-ray-*")) <= folders


class TestWhatIsWrongIsSaid:
    """One line each, exit code 2, and nothing begun."""

    def refused(self, request: Request, *arguments: object, address: str) -> str:
        done = request.run(*arguments, address=address)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert not request.job_dir.exists()
        return done.stderr

    def test_nobody_at_the_address(self, request_: Request) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            free = server.getsockname()[1]
        said = self.refused(request_, address=f"127.0.0.1:{free}")
        assert "no Ray cluster can be reached" in said

    def test_something_else_at_the_address(self, request_: Request) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                with server.accept()[0] as connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            said = self.refused(request_, address=f"127.0.0.1:{server.getsockname()[1]}")
            thread.join()
        assert "is no Ray cluster" in said

    def test_one_that_never_answers(self, request_: Request) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            said = self.refused(request_, address=f"127.0.0.1:{server.getsockname()[1]}")
        assert "no Ray cluster can be reached" in said

    def test_an_address_without_a_port(self, request_: Request) -> None:
        assert "must be a host and a port" in self.refused(request_, address="localhost")

    @pytest.mark.parametrize(("arguments", "words"), [
        (["--threads", 2], "a slab needs 2 processors on one node"),
        (["--device", "cuda:0,cuda:1"], "and 2 GPUs on one node"),
        (["--device", "cuda"], "1 processor and 1 GPU on one node"),
    ], ids=str)  # fmt: skip
    def test_too_few_resources(
        self, cluster: LocalCluster, request_: Request, arguments: list[object], words: str
    ) -> None:
        assert words in self.refused(request_, *arguments, address=cluster.address)

    def test_no_such_input_or_model(self, cluster: LocalCluster, request_: Request) -> None:
        source, request_.source = request_.source, request_.folder / "nowhere.tif"
        assert "nowhere.tif cannot be read" in self.refused(request_, address=cluster.address)
        request_.source, request_.model = source, request_.folder / "nowhere.onnx"
        assert "nowhere.onnx does not exist" in self.refused(request_, address=cluster.address)

    def test_too_many_slabs(self, cluster: LocalCluster, request_: Request) -> None:
        said = self.refused(request_, "--slabs", 900, address=cluster.address)
        assert "too few for 900 slabs" in said

    def test_nodes_that_are_not_alike(
        self, own_cluster: LocalCluster, request_: Request, tmp_path: Path
    ) -> None:
        """A node with another srpipe; then one that sees other files in the same places."""
        other = tmp_path / "other"
        shutil.copytree(Path(srpipe.__file__).parent, other / "srpipe")
        init = other / "srpipe" / "__init__.py"
        init.write_text(init.read_text().replace('"0.', '"9.', 1))
        own_cluster.add(num_cpus=1, env_vars={"PYTHONPATH": str(other)})
        said = self.refused(request_, address=own_cluster.address)
        assert "has srpipe 9." in said
        assert "install the same version" in said
        # Ray starts processes anew for every driver.
        init.write_text("raise ImportError('a broken installation')")
        said = self.refused(request_, address=own_cluster.address)
        assert "cannot run srpipe (" in said
        assert "a broken installation" in said

    @needs_mount
    def test_files_that_a_node_does_not_see(
        self, own_cluster: LocalCluster, request_: Request
    ) -> None:
        data = request_.folder / "data"
        data.mkdir()
        own_cluster.hide(data)
        source = request_.source
        request_.source = Path(shutil.copy(source, data))
        said = self.refused(request_, address=own_cluster.address)
        assert f"does not see the input {request_.source}" in said
        request_.source, request_.output = source, data / "out.tif"
        said = self.refused(request_, address=own_cluster.address)
        assert f"does not see the folder {request_.output}.srpipe" in said


def test_ray_that_is_not_installed(request_: Request) -> None:
    """The extra is named."""
    (request_.folder / "ray.py").write_text("raise ImportError('none')")
    done = request_.run(address="127.0.0.1:1")
    assert done.returncode == 2
    assert "pip install 'srpipe[ray]'" in done.stderr
