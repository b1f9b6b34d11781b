"""Links, pipes and folders planted in a job folder: never followed, never waited for."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import srpipe
from tests.conftest import photograph_pixels, write_pixels

NAMES = (
    "srpipe.lock", "plan.json", "plan.json.new", "pixels.raw", "seams.raw", "checkpoint-0.json",
    "checkpoint-1.json", "finished.json", "finished.json.new", "stages.log", "output.part.tif",
    "slab-0001", "slab-0001.json",
)  # fmt: skip


class Scene:
    """A job, and something precious elsewhere."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.source = write_pixels(folder / "in.png", photograph_pixels(60, 60))
        self.output = folder / "work" / "out.tif"
        self.output.parent.mkdir()
        self.job_dir = Path(f"{self.output}.srpipe")
        self.precious = folder / "precious"
        self.precious.write_bytes(b"precious " * 10_000)
        self.precious_folder = folder / "precious folder"
        self.precious_folder.mkdir()
        (self.precious_folder / "plan.json").write_bytes(b"precious")
        self.arguments = {"model": model, "tile_size": 32, "overlap": 8, "engine": "serial"}
        srpipe.enhance(self.source, self.output, **self.arguments)
        self.expected = self.output.read_bytes()
        self.output.unlink()
        self.before = self._precious()

    def _precious(self) -> dict[str, tuple[bytes, int]]:
        files = [self.precious, *self.precious_folder.iterdir()]
        return {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}

    def plant(self, name: str, make: Callable[[Scene, Path], None]) -> None:
        self.job_dir.mkdir(exist_ok=True)
        if name != "srpipe.lock":  # for a folder with strange files and no lock is nobody's job
            (self.job_dir / "srpipe.lock").touch()
        path = self.job_dir / name
        if path.exists():
            path.unlink()
        make(self, path)

    def run(self, **changes: object) -> None:
        """Run to the right end, or to an error on one line; nothing else may change."""
        with contextlib.suppress(srpipe.RequestError, srpipe.WriteError):
            srpipe.enhance(self.source, self.output, **(self.arguments | changes))
        if self.output.exists():
            assert self.output.read_bytes() == self.expected
            assert not self.output.is_symlink()
        assert self._precious() == self.before

    def interrupt(self) -> None:
        stop = srpipe.StopRequest()
        with pytest.raises(srpipe.Interrupted):
            srpipe.enhance(
                self.source, self.output, stop=stop, checkpoint_every_s=0, **self.arguments,
                progress=lambda event: stop.request() if event.tiles_done == 3 else None,
            )  # fmt: skip


def link(scene: Scene, path: Path) -> None:
    path.symlink_to(scene.precious)


def link_to_folder(scene: Scene, path: Path) -> None:
    path.symlink_to(scene.precious_folder)


def link_to_nowhere(scene: Scene, path: Path) -> None:
    path.symlink_to(scene.folder / "nowhere")


def pipe(scene: Scene, path: Path) -> None:
    os.mkfifo(path)


def folder(scene: Scene, path: Path) -> None:
    path.mkdir()


@pytest.fixture
def scene(tmp_path: Path, x2_model: Path) -> Scene:
    return Scene(tmp_path, x2_model)


PLANTED = [link, link_to_folder, link_to_nowhere, pipe, folder]
planted = pytest.mark.parametrize("make", PLANTED, ids=[make.__name__ for make in PLANTED])


@planted
def test_before_a_job_begins(scene: Scene, make: Callable[[Scene, Path], None]) -> None:
    for name in NAMES:
        scene.plant(name, make)
        scene.run()
        assert not (scene.folder / "nowhere").exists(), name
        scene.output.unlink(missing_ok=True)
        with contextlib.suppress(srpipe.SrpipeError):
            srpipe.read_job_status(str(scene.output))
        shutil.rmtree(scene.job_dir, ignore_errors=True)


@planted
def test_before_a_job_goes_on(scene: Scene, make: Callable[[Scene, Path], None]) -> None:
    for name in NAMES:
        scene.interrupt()
        scene.plant(name, make)
        scene.run()
        assert not (scene.folder / "nowhere").exists(), name
        scene.output.unlink(missing_ok=True)
        shutil.rmtree(scene.job_dir, ignore_errors=True)


def test_processes_do_not_write_through_links_either(scene: Scene) -> None:
    for name in ("stages.log", "output.part.tif", "pixels.raw"):
        scene.plant(name, link)
        scene.run(engine="local", overwrite=True)


def test_the_lock_is_no_second_name_of_another_file(scene: Scene) -> None:
    scene.job_dir.mkdir()
    os.link(scene.precious, scene.job_dir / "srpipe.lock")
    with pytest.raises(srpipe.OutputError, match=r"srpipe\.lock: it is another file too"):
        srpipe.enhance(scene.source, scene.output, **scene.arguments)
    scene.run()


def test_a_job_folder_that_is_a_link(scene: Scene) -> None:
    """Where one would be made it is refused; one that was named is followed."""
    for target in (scene.precious_folder, scene.precious, scene.folder / "nowhere"):
        scene.job_dir.symlink_to(target)
        with pytest.raises(srpipe.OutputError, match=r"--job-dir"):
            srpipe.enhance(scene.source, scene.output, **scene.arguments)
        scene.run()
        scene.job_dir.unlink()
    assert not (scene.folder / "nowhere").exists()
    real = scene.folder / "real"
    real.mkdir()
    named = scene.folder / "named"
    named.symlink_to(real)
    scene.run(job_dir=named)
    assert scene.output.exists()
    assert named.is_symlink()
