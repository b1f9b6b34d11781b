"""A job done slab by slab gives the file that it gives in one piece, to the last byte."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import srpipe
from srpipe.io.vips import pyvips
from srpipe.progress import summary
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.io.test_geotiff import KEYS, SCALE, TIEPOINT
from tests.nets_of_companions import companion_model
from tests.onnx_models import conv_model
from tests.processes import output_of, run_srpipe, start_srpipe, wait_until
from tests.slab_jobs import content, enhance_in_slabs, tiles_of
from tests.test_resume import StopAt

OPTIONS: dict[str, Any] = {"tile_size": 48, "overlap": 12, "engine": "threads"}


@pytest.fixture
def tall(tmp_path: Path) -> Path:
    """260x640 pixels with a profile, XMP and a print size."""
    pixels = photograph_pixels(640, 260)
    image = pyvips.Image.new_from_memory(pixels.tobytes(), 260, 640, 3, "uchar")
    image = image.copy(interpretation="srgb", xres=11.8, yres=11.8)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    image.write_to_file(str(tmp_path / "tall.tif"), profile="srgb")
    return tmp_path / "tall.tif"


def assert_same_in_slabs(src: Path, name: str, counts: list[int], **options: Any) -> None:
    options = OPTIONS | options
    whole = src.parent / f"whole{name}"
    srpipe.enhance(src, whole, **options)
    for count in counts:
        output = src.parent / f"slabs-{count}{name}"
        report = enhance_in_slabs(src, output, count, **options)
        assert report.slabs == count
        plain = Path(str(output).partition("[")[0])
        assert content(plain) == content(Path(str(whole).partition("[")[0]))
        assert not Path(f"{plain}.srpipe").exists()


@pytest.mark.parametrize("name", [
    ".tif", ".tif[tile,compression=none,bigtiff]", ".tif[tile,compression=jpeg,Q=80]",
    ".tif[tile,compression=lzw,tile_width=32,tile_height=16]", ".tif[compression=lzw]",
    ".tif[tile,pyramid,compression=deflate]", ".png", ".jpg", ".webp", ".raw", ".dzi",
    ".zarr", ".zarr[chunk=64]", ".zarr[chunk=64,levels=2,compression=none]",
], ids=str)  # fmt: skip
def test_every_format(tall: Path, x2_model: Path, name: str) -> None:
    if ".zarr" in name:
        pytest.importorskip("zarr")
    assert_same_in_slabs(tall, name, [1, 4], model=x2_model)


@pytest.mark.parametrize("count", [2, 3, 5, 11])
def test_any_number_of_slabs(tall: Path, x2_model: Path, count: int) -> None:
    assert_same_in_slabs(tall, ".png", [count], model=x2_model)


@pytest.mark.parametrize("options", [
    {"blend": "mean"}, {"blend": "crop", "batch_size": 3}, {"overlap": 0, "tile_size": 40},
    {"tile_size": 40, "overlap": 19}, {"edges": "wrap"}, {"edges": "reflect"},
    {"region": (20, 130, 200, 371)}, {"outscale": 1.7}, {"depth": 16}, {"reuse": False},
    {"skip_background": True, "background_levels": 40}, {"engine": "serial"}, {"engine": "local"},
    {"region": (20, 130, 200, 371), "edges": "wrap", "blend": "mean"},
], ids=str)  # fmt: skip
def test_whatever_the_job(tall: Path, x2_model: Path, options: dict[str, Any]) -> None:
    assert_same_in_slabs(tall, ".tif", [3], model=x2_model, **options)


def test_alpha_and_sixteen_bits_and_a_mask(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "x3.onnx", scale=3, multiple=4)
    source = write_pixels(tmp_path / "in.png", photograph_pixels(500, 170, 4, "uint16"))
    values = np.zeros((250, 85, 1), np.uint8)
    values[60:, 20:] = 255
    mask = write_pixels(tmp_path / "mask.png", values)
    assert_same_in_slabs(source, ".tif", [2, 4], model=model, mask=mask)


def test_a_model_of_a_fixed_size_whose_tiles_overlap_twice(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "fixed.onnx", height=96, width=96, batch=1)
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(230, 120))
    for blend in ("feather", "mean"):
        options = {"tile_size": None, "overlap": 16, "blend": blend}
        assert_same_in_slabs(source, f"-{blend}.tif", [2], model=model, **options)


@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_a_model_whose_results_depend_on_companions(
    tall: Path, tmp_path: Path, batch_size: int
) -> None:
    """More rows are computed than are needed, so that each tile has the companions it has."""
    model = companion_model(tmp_path / "companions.onnx")
    assert_same_in_slabs(tall, ".tif", [2, 5], model=model, batch_size=batch_size)


def test_float_samples_and_a_georeference(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(500, 120).astype(np.float32) / 255
    place = [(33550, "d", 3, SCALE, True), (33922, "d", 6, TIEPOINT, True)]
    keys = [(34735, "H", len(KEYS), KEYS, True)]
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, pixels, photometric="rgb", extratags=[*keys, *place])
    assert_same_in_slabs(source, ".tif", [3], model=x2_model)
    with tifffile.TiffFile(tmp_path / "slabs-3.tif") as file:
        assert file.pages[0].dtype == np.float32
        assert 33922 in file.pages[0].tags


def test_in_any_order_with_a_job_folder_elsewhere(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.tif", tmp_path / "out.tif"
    options = OPTIONS | {"model": x2_model}
    srpipe.enhance(tall, whole, **options)
    job_dir = tmp_path / "elsewhere"
    enhance_in_slabs(tall, output, 4, order=[3, 1, 4, 2], job_dir=job_dir, **options)
    assert output.read_bytes() == whole.read_bytes()
    assert not job_dir.exists()


def test_the_command_line(tall: Path, x2_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    request = ["enhance", tall, output, "-m", x2_model, "-t", 48, "--overlap", 12]
    first = run_srpipe(*request, "--slab", "2/3")
    assert first.returncode == 0, first.stderr
    assert not output.exists()
    early = run_srpipe("assemble", output)
    assert early.returncode == 2
    assert "of the 3 slabs of" in early.stderr
    assert "not done: 1, 3" in early.stderr
    other = run_srpipe(*request, "--slab", "1/4")
    assert other.returncode == 2
    assert "holds this job in 3 slabs: go on with them, by --slab K/3" in other.stderr
    whole = run_srpipe(*request)
    assert "in 3 slabs" in whole.stderr
    status = run_srpipe("status", output).stdout
    assert "slab 1 of 3, rows 0 to" in status
    assert "waiting" in status
    for number in (1, 3):
        assert run_srpipe(*request, "--slab", f"{number}/3", "-q").returncode == 0
    facts = json.loads(run_srpipe("status", output, "--json").stdout)
    assert [slab["state"] for slab in facts["slabs"]] == ["done"] * 3
    assert facts["slabs"][0]["top"] == 0
    assert sum(slab["height"] for slab in facts["slabs"]) == 640
    assert facts["tiles_done"] == facts["tiles_total"]
    assert "'srpipe assemble'" in run_srpipe("status", output).stdout
    # A slab that is done is not done again.
    again = run_srpipe(*request, "--slab", "3/3", "--progress", "json")
    assert '"event": "report"' in again.stderr
    assert '"event": "progress"' not in again.stderr
    done = run_srpipe("assemble", output)
    assert done.returncode == 0
    assert "3 slabs" in done.stderr
    srpipe.enhance(tall, tmp_path / "whole.tif", model=x2_model, tile_size=48, overlap=12)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert run_srpipe("assemble", output).returncode == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["--slab", "0/3"], "a number from 1 on"), (["--slab", "4/3"], "a number from 1 on"),
    (["--slab", "half"], "such as 3/16"), (["--slab", "1/3", "--engine", "ray"], "without Ray"),
    (["--slabs", "3"], "for the engine ray"), (["--address", "a:1"], "for the engine ray"),
    (["--slab", "1/3", "--fresh"], "fresh would undo"), (["--slab", "1/99"], "too few for 99"),
])  # fmt: skip
def test_requests_that_make_no_sense(
    tall: Path, x2_model: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    found = run_srpipe("enhance", tall, tmp_path / "o.tif", "-m", x2_model, "-t", 48, *arguments)
    assert found.returncode == 2
    assert words in found.stderr
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "o.tif.srpipe").exists()


def test_urls_are_copied_for_one_machine_only(tmp_path: Path) -> None:
    with pytest.raises(srpipe.SettingsError, match="that all machines see"):
        srpipe.enhance("https://example.org/a.tif", tmp_path / "o.tif", slab=(1, 2))


def test_assembling_what_is_no_job_in_slabs(tall: Path, x2_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(srpipe.InputError, match="there is no job for"):
        srpipe.assemble(output)
    assert not (tmp_path / "out.tif.srpipe").exists()
    wish = StopAt(4)
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance(tall, output, model=x2_model, progress=wish, stop=wish.stop, **OPTIONS)
    with pytest.raises(srpipe.InputError, match="is not in slabs"):
        srpipe.assemble(output)


def test_an_interrupted_slab_goes_on_from_its_checkpoint(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    output, options = tmp_path / "out.tif", OPTIONS | {"model": x2_model}
    srpipe.enhance(tall, tmp_path / "whole.tif", **options)
    srpipe.enhance(tall, output, slab=(1, 2), **options)
    wish = StopAt(9)
    with pytest.raises(srpipe.Interrupted, match=r"slab 2 of 2 \(rows \d+ to 639 of .*tall\.tif\)"):
        srpipe.enhance(tall, output, slab=(2, 2), progress=wish, stop=wish.stop, **options)
    assert tiles_of(tmp_path / "out.tif.srpipe", 2)[1] >= 9
    assert srpipe.read_job_status(str(output)).slabs[1].state == "interrupted"
    go_on = StopAt(10**9)
    srpipe.enhance(tall, output, slab=(2, 2), progress=go_on, stop=go_on.stop, **options)
    assert go_on.first_tile >= 9
    srpipe.assemble(output)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_two_processes_at_one_slab_compute_it_once(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    """The second waits, and finds the slab done."""
    output = tmp_path / "out.tif"
    request = ["enhance", tall, output, "-m", x2_model, "-t", 16, "--overlap", 4, "--slab", "1/2"]
    # Into files: nobody reads a pipe while the other is waited for.
    places = [tmp_path / f"{i}.log" for i in range(2)]
    processes = []
    for place in places:
        with place.open("w") as file:
            processes.append(start_srpipe(*request, "--progress", "json", stderr=file.fileno()))
    for process in processes:
        output_of(process)
    assert [process.returncode for process in processes] == [0, 0]
    assert sum('"state": "finished"' in place.read_text() for place in places) == 1


def test_slabs_that_begin_together_share_one_plan(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.tif"
    request = ["enhance", tall, output, "-m", x2_model, "--slab"]
    processes = [start_srpipe(*request, f"{number}/3", "-t", 48) for number in (1, 2, 3)]
    said = [output_of(process)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    srpipe.assemble(output)
    srpipe.enhance(tall, tmp_path / "whole.tif", model=x2_model, tile_size=48)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_slab_killed_at_any_moment_is_repeated(tmp_path: Path, x2_model: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(900, 500))
    options: dict[str, Any] = {"model": x2_model, "tile_size": 32, "overlap": 8}
    srpipe.enhance(source, tmp_path / "whole.tif", **options)
    output = tmp_path / "out.tif"
    request = ["enhance", source, output, "-m", x2_model, "-t", 32, "--overlap", 8,
               "--checkpoint-every", 0, "--slab", "2/2"]  # fmt: skip
    folder = tmp_path / "out.tif.srpipe"
    for tiles in (1, 60):
        process = start_srpipe(*request, stderr=subprocess.DEVNULL)
        wait_until(lambda tiles=tiles: tiles_of(folder, 2)[1] >= tiles, f"{tiles} tiles")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (folder / "slab-0002.json").exists()
    assert run_srpipe(*request).returncode == 0
    srpipe.enhance(source, output, slab=(1, 2), **options)
    srpipe.assemble(output)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.parametrize("name", ["out.tif", "out.zarr", "out.png"])
def test_an_assembly_that_is_stopped_is_repeated(
    tall: Path, x2_model: Path, tmp_path: Path, name: str
) -> None:
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    options = OPTIONS | {"model": x2_model}
    output, whole = tmp_path / name, tmp_path / f"whole{Path(name).suffix}"
    srpipe.enhance(tall, whole, **options)
    for number in (1, 2, 3):
        srpipe.enhance(tall, output, slab=(number, 3), **options)
    stop = srpipe.StopRequest()
    stop.request()
    with pytest.raises(srpipe.Interrupted):
        srpipe.assemble(output, stop=stop)
    assert not output.exists()
    srpipe.assemble(output)
    assert content(output) == content(whole)


def test_a_part_that_was_spoiled_is_named(tall: Path, x2_model: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"model": x2_model}
    output, whole = tmp_path / "out.tif", tmp_path / "whole.tif"
    srpipe.enhance(tall, whole, **options)
    for number in (1, 2):
        srpipe.enhance(tall, output, slab=(number, 2), **options)
    part = tmp_path / "out.tif.srpipe" / "slab-0002.tif"
    shutil.copy(tall, part)
    with pytest.raises(srpipe.WriteError, match=r"slab-0002\.tif .*compute it again"):
        srpipe.assemble(output)
    assert not output.exists()
    # Told to, it is computed again.
    (tmp_path / "out.tif.srpipe" / "slab-0002.json").unlink()
    srpipe.enhance(tall, output, slab=(2, 2), **options)
    srpipe.assemble(output)
    assert output.read_bytes() == whole.read_bytes()


def broken(folder: Path) -> Path:
    """200x400 pixels, of which the lower third is missing."""
    source = write_pixels(folder / "in.png", photograph_pixels(400, 200))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    return source


def test_what_could_not_be_read_is_in_the_report_of_the_whole(
    tmp_path: Path, x2_model: Path
) -> None:
    source = broken(tmp_path)
    options = OPTIONS | {"model": x2_model, "on_error": "fill"}
    report = enhance_in_slabs(source, tmp_path / "out.tif", 2, **options)
    assert report.filled
    assert all(rect.top + rect.height > 200 for rect in report.filled)
    assert read_pixels(tmp_path / "out.tif").shape == (800, 400, 3)
    assert "2 slabs" in summary(report)


def test_a_part_of_another_job_is_none(tall: Path, x2_model: Path, tmp_path: Path) -> None:
    """A straggler may finish a slab of what was there before."""
    output, folder = tmp_path / "out.tif", tmp_path / "out.tif.srpipe"
    srpipe.enhance(tall, output, slab=(1, 2), model=x2_model, **OPTIONS | {"blend": "mean"})
    spoiled = {path.name: path.read_bytes() for path in folder.glob("slab-0001.*")}
    assert set(spoiled) == {"slab-0001.json", "slab-0001.tif"}
    shutil.rmtree(folder)
    options = OPTIONS | {"model": x2_model}
    srpipe.enhance(tall, output, slab=(2, 2), **options)
    for name, data in spoiled.items():
        (folder / name).write_bytes(data)
    with pytest.raises(srpipe.JobError, match=r"these are not done: 1;"):
        srpipe.assemble(output)
    srpipe.enhance(tall, output, slab=(1, 2), **options)
    srpipe.assemble(output)
    srpipe.enhance(tall, tmp_path / "whole.tif", **options)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.parametrize("name", ["slab-0001-notes.txt", "slab-0002.tif", "slab-0001"])
def test_files_that_are_called_like_slabs_are_somebody_s(
    tall: Path, x2_model: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("years of work")
    with pytest.raises(srpipe.OutputError, match="no srpipe job"):
        srpipe.enhance(tall, tmp_path / "o.tif", model=x2_model, job_dir=folder, **OPTIONS)
    assert (folder / name).read_text() == "years of work"


def test_tidying_up_that_was_cut_short_is_completed(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    output, options = tmp_path / "out.tif", OPTIONS | {"model": x2_model}
    for number in (1, 2):
        srpipe.enhance(tall, output, slab=(number, 2), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srpipe.io.slabs_folder.SlabsFolder.remove", lambda self: None)
        srpipe.assemble(output)
    whole, folder = output.read_bytes(), tmp_path / "out.tif.srpipe"
    (folder / "slab-0001.json").unlink()
    with pytest.raises(srpipe.OutputError, match="is whole already"):
        srpipe.enhance(tall, output, slab=(1, 2), **options)
    srpipe.assemble(output)
    assert output.read_bytes() == whole
    assert not folder.exists()
    with pytest.raises(srpipe.InputError, match="It is there: it may have been joined before"):
        srpipe.assemble(output)


def test_two_assemblies_at_once(tall: Path, x2_model: Path, tmp_path: Path) -> None:
    output, options = tmp_path / "out.tif", OPTIONS | {"model": x2_model, "overwrite": True}
    for number in (1, 2):
        srpipe.enhance(tall, output, slab=(number, 2), **options)
    processes = [start_srpipe("assemble", output, "-q") for _ in range(2)]
    said = [output_of(process)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], said
    assert not (tmp_path / "out.tif.srpipe").exists()


def test_a_job_folder_is_joined_to_its_own_output_wherever_that_is(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    options = OPTIONS | {"model": x2_model}
    for number in (1, 2):
        srpipe.enhance(tall, tmp_path / "a" / "out.tif", slab=(number, 2), **options)
    (tmp_path / "a").rename(tmp_path / "b")
    other = tmp_path / "b" / "other.tif"
    with pytest.raises(srpipe.InputError, match=r"is for .*out\.tif, not for .*other\.tif"):
        srpipe.assemble(other, job_dir=tmp_path / "b" / "out.tif.srpipe")
    srpipe.assemble(tmp_path / "b" / "out.tif")
    srpipe.enhance(tall, tmp_path / "whole.tif", **options)
    assert content(tmp_path / "b" / "out.tif") == content(tmp_path / "whole.tif")


def test_an_input_that_has_changed_is_not_joined(
    tall: Path, x2_model: Path, tmp_path: Path
) -> None:
    options = OPTIONS | {"model": x2_model}
    srpipe.enhance(tall, f"file://{tmp_path}/out.tif", slab=(1, 1), **options)
    tall.write_bytes(tall.read_bytes() + b" ")
    with pytest.raises(srpipe.InputError, match="has changed since"):
        srpipe.assemble(tmp_path / "out.tif")


def test_an_error_names_the_slab_and_its_rows(tmp_path: Path, x2_model: Path) -> None:
    source = broken(tmp_path)
    options = OPTIONS | {"model": x2_model}
    with pytest.raises(srpipe.ReadError, match=r"^slab 2 of 2 \(rows \d+ to 399 of .*in\.png\): "):
        srpipe.enhance(source, tmp_path / "out.tif", slab=(2, 2), **options)
