"""Forks: before the first job they work, after it they are refused, and they hold nothing up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S

# A child reports by what it prints, and ends as an interpreter does.
PRELUDE = """
import gc, multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import srpipe

model, source, folder = sys.argv[1:4]
SETTINGS = dict(model=model, tile_size=48, overlap=8)

def output(name):
    return os.path.join(folder, f"{name}-{os.getpid()}.tif")

def attempt(work, *args, **kwargs):
    try:
        work(*args, **kwargs)
    except srpipe.RequestError as error:
        return str(error)
    return "worked"

def enhance(engine="auto"):
    return attempt(srpipe.enhance, source, output(engine), engine=engine, **SETTINGS)

def in_child(work):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, repr(work()).encode())
        sys.exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        print(said.read())
    assert os.waitpid(pid, 0)[1] == 0

fork = multiprocessing.get_context("fork")
"""
REFUSED = "this process is a fork of one in which srpipe has worked"
ADVICE = 'multiprocessing.get_context("spawn")'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.tif", photograph_pixels(130, 150))


def run(tmp_path: Path, model: Path, source: Path, script: str) -> list[str]:
    """The lines that a script prints, which must end."""
    path = tmp_path / "script.py"
    path.write_text(PRELUDE + script)
    done = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", path, model, source, tmp_path],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_before_the_first_job(tmp_path: Path, x2_model: Path, source: Path) -> None:
    """Imported, probed, read the header, made an Enhancer: as a server does that forks its workers."""
    lines = run(tmp_path, x2_model, source, """
in_child(enhance)
import srpipe.api, srpipe.arrays, srpipe.folders, srpipe.enhancer, srpipe.models.quantize
srpipe.probe_model(model)
srpipe.read_image_info(source)
enhancer = srpipe.Enhancer(**SETTINGS)
for _ in range(2):
    in_child(lambda: attempt(enhancer.enhance, source, output("e")))
in_child(lambda: enhance("local"))
with fork.Pool(2) as pool:
    print(pool.map(enhance, ["serial", "threads", "auto"], chunksize=1))
with ProcessPoolExecutor(1, mp_context=fork) as pool:
    print(pool.submit(enhance).result())
print(enhance())
""")  # fmt: skip
    assert lines == [
        "'worked'", "'worked'", "'worked'", "'worked'", "['worked', 'worked', 'worked']", "worked",
        "worked",
    ]  # fmt: skip


@pytest.mark.parametrize("first", [
    "assert enhance('serial') == 'worked'", "enhance('threads')", "enhance('local')",
    "srpipe.enhance_array(np.zeros((60, 60), np.uint8), **SETTINGS)",
    "list(srpipe.enhance_folder(folder, folder + '/out', globs=['in.tif'], **SETTINGS))",
])  # fmt: skip
def test_after_it(tmp_path: Path, x2_model: Path, source: Path, first: str) -> None:
    lines = run(tmp_path, x2_model, source, f"""
{first}
in_child(enhance)
in_child(lambda: attempt(srpipe.enhance_array, np.zeros((60, 60), np.uint8), **SETTINGS))
in_child(lambda: attempt(lambda: srpipe.start(source, output("j"), **SETTINGS).result()))
in_child(lambda: attempt(srpipe.read_image_info, source))
in_child(lambda: attempt(srpipe.estimate, source, output("p"), **SETTINGS))
in_child(lambda: attempt(lambda: list(srpipe.enhance_folder(folder, folder + "/o2", **SETTINGS))))
with fork.Pool(2) as pool:
    print(*pool.map(enhance, ["serial", "local"], chunksize=1), sep="\\n")
with ProcessPoolExecutor(1, mp_context=fork) as pool:
    print(pool.submit(enhance).result())
in_child(lambda: "nothing")
print(enhance())
""")  # fmt: skip
    assert lines[-2:] == ["'nothing'", "worked"]
    assert len(lines) == 11
    assert all(REFUSED in line and ADVICE in line for line in lines[:-2])


def test_an_enhancer_with_threads(tmp_path: Path, source: Path) -> None:
    """Its child neither waits for threads that it does not have, nor destroys its sessions."""
    slow = conv_model(tmp_path / "slow.onnx", layers=6, features=32)
    lines = run(tmp_path, slow, source, """
enhancer = srpipe.Enhancer(engine="serial", **SETTINGS)
begun, go_on = threading.Event(), threading.Event()
def watch(event):
    if event.tiles_done:
        begun.set()
        go_on.wait()
def run():
    enhancer.enhance(source, output("t"), progress=watch)
thread = threading.Thread(target=run)
thread.start()
outcomes = enhancer.map([(source, output("m")), (source, output("n"))], at_once=1)
next(outcomes)
job = enhancer.start(source, output("j"))
begun.wait()

def leave():
    with enhancer:
        raise KeyError

def child():
    said = [attempt(enhancer.enhance, source, output("c")), attempt(next, outcomes)]
    said += [attempt(job.result), attempt(list, job)]
    try:
        leave()
    except KeyError:
        said.append("left")
    return said

in_child(child)
with fork.Pool(1) as pool:
    print(pool.apply(attempt, (enhancer.enhance, source, output("p"))))
go_on.set()
thread.join()
job.result()
def forget():
    global enhancer
    del enhancer
    gc.collect()
in_child(forget)
print(len(list(outcomes)))
""")  # fmt: skip
    said = eval(lines[0])
    assert all(REFUSED in line for line in (*said[:4], lines[1]))
    assert said[4:] == ["left"]
    assert lines[2:] == ["None", "1"]


def test_a_fork_that_lives_on_does_not_keep_the_job(tmp_path: Path, source: Path) -> None:
    """What a killed parent had under way ends, and goes on elsewhere, while its fork lives."""
    slow = conv_model(tmp_path / "slow.onnx", layers=6, features=64)
    lines = run(tmp_path, slow, source, """
import signal, time
job = {**SETTINGS, "engine": "local", "checkpoint_every_s": 0}
reading, writing = os.pipe()
parent = os.fork()
if parent == 0:
    def watch(event):
        if event.tiles_done == 2:
            child = os.fork()
            if child == 0:
                signal.pause()
            os.write(writing, b"%d" % child)
            os.kill(os.getpid(), signal.SIGKILL)
    srpipe.enhance(source, folder + "/x.tif", progress=watch, **job)
os.waitpid(parent, 0)
child = int(os.read(reading, 20))
os.kill(child, 0)
print(srpipe.enhance(source, folder + "/x.tif", **job).resumed_tiles)
os.kill(child, signal.SIGKILL)
""")  # fmt: skip
    assert int(lines[0]) >= 1
