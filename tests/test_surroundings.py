"""Closed streams, a folder that goes away, a disk that becomes read-only or full: said in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import srpipe
from srpipe.settings import Engine
from tests.conftest import photograph_pixels, write_pixels
from tests.processes import PATIENCE_S
from tests.test_faults import in_own_disk, needs_mount
from tests.test_planted import Scene

ENGINES: list[Engine] = ["serial", "threads", "local"]
every_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def scene(tmp_path: Path, x2_model: Path) -> Scene:
    return Scene(tmp_path, x2_model)


def in_shell(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A shell script; ``$0`` is the Python that has srpipe."""
    command = ["sh", "-c", script, sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("engine", "closed"),
    [("local", "<&- >&- 2>&-"), ("threads", "<&- >&- 2>&-"), ("local", "2>&-"), ("serial", "<&-")],
)
def test_closed_streams(scene: Scene, engine: str, closed: str) -> None:
    model = scene.arguments["model"]
    done = in_shell(
        f'"$0" -m srpipe enhance "$1" "$2" -m "$3" -t 32 --overlap 8 --engine {engine} {closed}',
        scene.source, scene.output, model,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert scene.output.read_bytes() == scene.expected
    assert sorted(path.name for path in scene.output.parent.iterdir()) == ["out.tif"]


def test_exit_codes_without_streams(scene: Scene) -> None:
    done = in_shell(
        """
        "$0" -m srpipe inspect "$1" >&-; echo $?
        "$0" -m srpipe inspect "$1" >/dev/full; echo $?
        "$0" -m srpipe inspect "$1.gone" 2>&-; echo $?
        "$0" -m srpipe inspect "$1.gone" 2>/dev/full; echo $?
        "$0" -m srpipe enhance - "$2" <&-; echo $?
        """,
        scene.source, scene.folder / "outputs",
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "2", "2", "2"], done.stderr
    assert done.stderr.splitlines() == [
        "srpipe: No space left on device.",
        "srpipe: - holds no images: name another folder, or a --glob.",
    ]


def test_an_api_without_streams_keeps_descriptors_to_itself(scene: Scene) -> None:
    """What is printed to descriptor 2 must not land in a file of the job."""
    script = """
import os, sys
for number in range(3):
    os.close(number)
import srpipe
srpipe.enhance(sys.argv[1], sys.argv[2], model=sys.argv[3], tile_size=32, overlap=8, engine="local",
               progress=lambda event: os.write(2, b"x" * 1000))
"""
    done = in_shell(
        f"exec \"$0\" -c '{script}' \"$@\"",
        scene.source, scene.output, scene.arguments["model"],
    )  # fmt: skip
    assert done.returncode == 0
    assert scene.output.read_bytes() == scene.expected


@every_engine
@pytest.mark.parametrize("when", ["first checkpoint", "end"])
def test_a_job_folder_that_is_deleted(scene: Scene, engine: Engine, when: str) -> None:
    """The error says what is missing; without a checkpoint to write it comes at the end."""
    every_s = 0 if when == "first checkpoint" else 100
    with pytest.raises(
        srpipe.RunError, match=r"checkpoint in|has been removed|cannot be"
    ) as caught:
        srpipe.enhance(
            scene.source, scene.output, **(scene.arguments | {"engine": engine}),
            checkpoint_every_s=every_s,
            progress=lambda event: shutil.rmtree(scene.job_dir, ignore_errors=True),
        )  # fmt: skip
    assert "unexpectedly" not in str(caught.value)
    assert not scene.output.exists()
    scene.run()


@needs_mount
@every_engine
def test_a_disk_that_becomes_read_only(scene: Scene, engine: Engine) -> None:
    """All names lead to a read-only disk from some moment on, as after an error of the device."""
    script = """
import subprocess, sys
import srpipe
source, output, model, engine = sys.argv[1:]
def lose(event):
    if event.tiles_done == 2:
        where = output.rpartition("/")[0]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", where], check=True)
try:
    srpipe.enhance(source, output, model=model, tile_size=32, overlap=8, engine=engine,
                   checkpoint_every_s=0, progress=lose)
except srpipe.SrpipeError as error:
    print(type(error).__name__, error)
"""
    done = in_own_disk(
        f'"$0" -c \'{script}\' "$@"', scene.source, scene.output, scene.arguments["model"], engine
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("WriteError the checkpoint in"), done.stdout
    assert len(done.stdout.splitlines()) == 1
    scene.run()
    assert scene.output.exists()


@needs_mount
@pytest.mark.parametrize("engine", ["threads", "local"])
def test_a_disk_that_is_full_before_the_first_checkpoint(
    tmp_path: Path, x2_model: Path, engine: Engine
) -> None:
    """Room for checkpoints is taken with that for pixels: what is done is kept."""
    source = write_pixels(tmp_path / "in.png", photograph_pixels(200, 200))
    script = """
import os, sys
import srpipe
source, output, model, engine, calm = sys.argv[1:]
stop, filler = srpipe.StopRequest(), os.path.join(os.path.dirname(output), "filler")
def fill(event):
    if event.tiles_done == 3:
        with open(filler, "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
    if event.tiles_done >= 6 and not stop.times:
        stop.request()
arguments = dict(model=model, tile_size=32, overlap=8)
try:
    srpipe.enhance(source, output, engine=engine, progress=fill, stop=stop, **arguments)
except srpipe.SrpipeError as error:
    print(error)
print(srpipe.read_job_status(output).tiles_done)
os.unlink(filler)
report = srpipe.enhance(source, output, engine="serial", **arguments)
print(report.resumed_tiles)
srpipe.enhance(source, calm, engine="serial", **arguments)
print(open(output, "rb").read() == open(calm, "rb").read())
"""
    prepare = 'mkdir "$5"; mount -t tmpfs -o size=8m none "$5"'
    done = in_own_disk(
        f"{prepare}; \"$0\" -c '{script}' \"$1\" \"$5/out.tif\" \"$2\" \"$3\" \"$4\"",
        source, x2_model, engine, tmp_path / "calm.tif", tmp_path / "disk",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, tiles, resumed, same = done.stdout.splitlines()
    assert "tiles are kept in" in said
    assert int(tiles) > 0
    assert int(resumed) >= int(tiles)
    assert same == "True"
