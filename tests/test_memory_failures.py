"""A model that runs out of memory: its worker is replaced, with fewer tiles at once."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import srpipe
from srpipe.io.session import Session
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model

_BATCH = 16
# Found by every Python that starts with this folder on its path: limits the workers alone.
_SITECUSTOMIZE = """
import resource, sys
if sys.orig_argv[-1].startswith("srpipe-worker"):
    resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
"""
_PEAK = (
    "import sys, numpy as np; from srpipe.io.session import Session; "
    "s = Session(sys.argv[1], 'cpu', 1); n = int(sys.argv[2]); "
    "a = np.zeros((n, 3, 128, 128), np.float32); b = np.zeros((n, 3, 256, 256), np.float32); "
    "s.run('input', 'output', a, b); "
    "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmPeak')))"
)


@pytest.fixture(scope="module")
def hungry_model(model_folder: Path) -> Path:
    """Some 20 MB of activations a tile of 128 pixels."""
    return conv_model(model_folder / "hungry.onnx", features=128, layers=4)


def peak_bytes(model: Path, batch: int) -> int:
    command = [sys.executable, "-c", _PEAK, str(model), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmPeak")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_batch_is_halved_until_it_fits(
    tmp_path: Path, hungry_model: Path, workers: str
) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(900, 1000))  # over 64 tiles
    arguments = ["-m", hungry_model, "-t", "128", "--overlap", "8", "-b", _BATCH, "--threads", "1"]
    command = ["enhance", source, tmp_path / "calm.tif", *arguments]
    subprocess.run([sys.executable, "-m", "srpipe", *map(str, command)], check=True)
    # Between what a quarter and a whole batch take; the slots are on top of both.
    limit = (peak_bytes(hungry_model, _BATCH // 4) + peak_bytes(hungry_model, _BATCH)) // 2
    command = ["enhance", source, tmp_path / "tight.tif", *arguments, "--workers", workers]
    (tmp_path / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(limit=limit))
    done = subprocess.run(
        [sys.executable, "-m", "srpipe", *map(str, command)],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ran out of memory on a batch of (16, " in done.stderr
    assert (
        "The worker is replaced, and its tiles run again, with 8 instead of 16 tiles" in done.stderr
    )
    assert (tmp_path / "tight.tif").read_bytes() == (tmp_path / "calm.tif").read_bytes()


def test_running_out_of_memory_is_told_from_other_failures(hungry_model: Path) -> None:
    import numpy as np

    code = (
        "import sys, resource, numpy as np; from srpipe.io.session import Session; "
        "s = Session(sys.argv[1], 'cpu', 1); "
        "a = np.zeros((64, 3, 128, 128), np.float32); b = np.zeros((64, 3, 256, 256), np.float32); "
        "kb = next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmSize')); "
        "n = int(kb) * 1024 + 10**8; resource.setrlimit(resource.RLIMIT_AS, (n, n)); "
        "s.run('input', 'output', a, b)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(hungry_model)], capture_output=True, text=True, check=False
    )
    assert "srpipe.errors.OutOfMemoryError" in done.stderr
    session = Session(str(hungry_model), "cpu", 1)
    wrong = np.zeros((1, 5, 8, 8), np.float32)
    with pytest.raises(srpipe.InferenceError) as caught:
        session.run("input", "output", wrong, np.zeros((1, 3, 16, 16), np.float32))
    assert not isinstance(caught.value, srpipe.OutOfMemoryError)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


_LIMITED = """
import logging, resource, sys
import srpipe

source, target, model, more_bytes, tile_px, batch, engine = sys.argv[1:]

def run(target, **options):
    srpipe.enhance(
        source, target, model=model, engine=engine, overlap=8, threads=1, overwrite=True, fresh=True,
        rewrite=False, reuse=False, edges="none", **options,
    )

run(target + ".warm-up.tif", tile_size=64)  # whatever is imported or compiled is now there
status = open("/proc/self/status").read().split()
most = int(status[status.index("VmSize:") + 1]) * 1024 + int(more_bytes)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
logging.basicConfig()
try:
    run(target, tile_size=int(tile_px), batch_size=int(batch))
except srpipe.StageError as error:
    print(error)
"""


def limited_run(
    folder: Path, model: Path, more_bytes: int, tile_px: int, batch: int, engine: str = "serial"
) -> tuple[str, str]:
    """Standard output and error of a run in a process that may take so much more memory."""
    source = write_pixels(folder / "in.tif", photograph_pixels(200, 300))
    command = [source, folder / "out.tif", model, more_bytes, tile_px, batch, engine]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else done.stderr, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmSize")
def test_one_process_halves_the_batch_too(tmp_path: Path, hungry_model: Path) -> None:
    said, log = limited_run(tmp_path, hungry_model, 60_000_000, 96, 8)
    assert said == ""
    assert "on a batch of (8, 3, 72, 81)" in log
    assert "The model is loaded again, for 4 tiles at once." in log
    limited = (tmp_path / "out.tif").read_bytes()
    (tmp_path / "out.tif").unlink()
    assert limited_run(tmp_path, hungry_model, 2_000_000_000, 96, 8) == ("", "")
    assert (tmp_path / "out.tif").read_bytes() == limited


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmSize")
def test_threads_of_one_process_do_as_well(tmp_path: Path, hungry_model: Path) -> None:
    """What stacks and the allocator's arenas take differs, by chance."""
    for more_bytes in itertools.islice(itertools.cycle(range(38_000_000, 50_000_000, 10**6)), 36):
        said, log = limited_run(tmp_path, hungry_model, more_bytes, 96, 8, "threads")
        if said == "" and "again, with 4 instead of 8 tiles at once" in log:
            break
    else:
        pytest.fail("a whole batch always fitted, or nothing did")
    assert "on a batch of (8, 3, 72, 81)" in log
    limited = (tmp_path / "out.tif").read_bytes()
    (tmp_path / "out.tif").unlink()
    assert limited_run(tmp_path, hungry_model, 2_000_000_000, 96, 8, "threads") == ("", "")
    assert (tmp_path / "out.tif").read_bytes() == limited


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmSize")
def test_a_tile_that_does_not_fit_is_an_error_and_never_made_smaller(
    tmp_path: Path, hungry_model: Path
) -> None:
    said, log = limited_run(tmp_path, hungry_model, 25_000_000, 200, 1)
    assert "ran out of memory on a batch of (1, 3, 200, 154)" in said
    assert "not even one tile at once would fit: use a smaller --tile-size" in said
    assert log.count("The model is loaded again, for 1 tiles at once.") == 2
    assert not (tmp_path / "out.tif").exists()
