"""Folders: what is done is passed over, what changed is done again, what fails holds nobody up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import srpipe
from srpipe.folders import MANIFEST_FILE, Pair, find_pairs, list_pairs
from srpipe.manifest import FileOutcome
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S, wait_until

SETTINGS = {"tile_size": 48, "overlap": 8}
FILES = ("a.tif", "b.png", "deep/er/c.tif", "d.tif")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for k, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_pixels(folder / name, photograph_pixels(60 + k, 70))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(source: Path, target: Path, model: Path, **changes: object) -> dict[str, FileOutcome]:
    outcomes = srpipe.enhance_folder(source, target, model=model, **SETTINGS | changes)
    return {Path(o.file).relative_to(source).as_posix(): o for o in outcomes}


def statuses(outcomes: dict[str, FileOutcome]) -> dict[str, str]:
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_all_of_a_folder(source: Path, target: Path, x2_model: Path, tmp_path: Path) -> None:
    assert statuses(run(source, target, x2_model)) == dict.fromkeys(FILES, "done")
    for name in FILES:
        srpipe.enhance(
            source / name, tmp_path / "one.tif", model=x2_model, overwrite=True, **SETTINGS
        )
        if name.endswith(".tif"):
            assert (target / name).read_bytes() == (tmp_path / "one.tif").read_bytes()
    lines = [json.loads(line) for line in (target / MANIFEST_FILE).read_text().splitlines()]
    assert [line["status"] for line in lines].count("begun") == len(FILES)
    lines = [line for line in lines if line["status"] != "begun"]
    assert {line["status"] for line in lines} == {"done"}
    assert {line["file"] for line in lines} == {str(source / name) for name in FILES}
    assert all(line["seconds"] > 0 and line["error"] is None for line in lines)


def test_only_what_changed_is_done_again(source: Path, target: Path, x2_model: Path) -> None:
    run(source, target, x2_model)
    assert statuses(run(source, target, x2_model)) == dict.fromkeys(FILES, "skipped")
    write_pixels(source / "a.tif", photograph_pixels(50, 50))
    (target / "b.png").unlink()
    (target / "d.tif").write_bytes((target / "d.tif").read_bytes())  # somebody else's by now
    outcomes = run(source, target, x2_model)
    assert statuses(outcomes) == {
        "a.tif": "done", "b.png": "done", "deep/er/c.tif": "skipped", "d.tif": "failed",
    }  # fmt: skip
    assert "exists: choose another name" in str(outcomes["d.tif"].error)
    assert statuses(run(source, target, x2_model, overwrite=True))["d.tif"] == "done"
    # How the work is shared out is no other request; how it is blended is.
    assert set(statuses(run(source, target, x2_model, threads=1)).values()) == {"skipped"}
    assert set(statuses(run(source, target, x2_model, blend="mean")).values()) == {"done"}


def test_another_model_makes_other_pictures(
    source: Path, target: Path, x2_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(x2_model, model)
    run(source, target, model)
    conv_model(model, features=3)
    assert set(statuses(run(source, target, model)).values()) == {"done"}


def test_a_bad_file_fails_alone(source: Path, target: Path, x2_model: Path) -> None:
    (source / "b.png").write_bytes((source / "b.png").read_bytes()[:900])
    (source / "d.tif").write_bytes(b"II*\0")
    outcomes = run(source, target, x2_model)
    assert statuses(outcomes) == {
        "a.tif": "done", "b.png": "failed", "deep/er/c.tif": "done", "d.tif": "failed",
    }  # fmt: skip
    assert "truncated or corrupt" in str(outcomes["b.png"].error)
    write_pixels(source / "b.png", photograph_pixels(60, 70))
    write_pixels(source / "d.tif", photograph_pixels(60, 70))
    again = statuses(run(source, target, x2_model))
    # What was read before the break is another file's: it says so.
    assert again == {
        "a.tif": "skipped", "b.png": again["b.png"], "deep/er/c.tif": "skipped", "d.tif": "done",
    }  # fmt: skip


def test_a_stop_leaves_the_rest(source: Path, target: Path, x2_model: Path) -> None:
    stop = srpipe.StopRequest()
    outcomes = []
    for outcome in srpipe.enhance_folder(
        source, target, at_once=1, stop=stop, model=x2_model, **SETTINGS
    ):
        outcomes.append(outcome)
        stop.request()
    assert 1 <= len(outcomes) < len(FILES)
    again = statuses(run(source, target, x2_model))
    assert sorted(again) == sorted(FILES)
    assert set(again.values()) == {"done", "skipped"}


SCRIPT = """
import sys, srpipe
for outcome in srpipe.enhance_folder(sys.argv[1], sys.argv[2], model=sys.argv[3], at_once=1,
                                     tile_size=48, overlap=8, checkpoint_every_s=0.0):
    print(outcome.status, flush=True)
"""


def test_killed_and_gone_on_with(source: Path, target: Path, tmp_path: Path) -> None:
    """Also where the kill has torn the manifest's last line."""
    model = conv_model(tmp_path / "slow.onnx", layers=8, features=64)
    write_pixels(source / "deep/er/c.tif", photograph_pixels(300, 300))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, source, target, model], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    wait_until(lambda: list((target / "deep/er").glob("*.srpipe/checkpoint*")), "a checkpoint")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    manifest = target / MANIFEST_FILE
    with manifest.open("ab") as file:
        file.write(b'{"file": "a')
    outcomes = run(source, target, model, checkpoint_every_s=0.0)
    assert outcomes["a.tif"].status == "skipped"
    assert set(statuses(outcomes).values()) == {"done", "skipped"}
    srpipe.enhance(source / "deep/er/c.tif", tmp_path / "c.tif", model=model, **SETTINGS)
    assert (target / "deep/er/c.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()
    assert set(statuses(run(source, target, model)).values()) == {"skipped"}
    assert not list(target.rglob("*.srpipe"))


def test_which_files(source: Path, tmp_path: Path) -> None:
    inside = source / "out"
    (source / "old.tif.srpipe").mkdir()
    shutil.copy(source / "a.tif", source / "old.tif.srpipe" / "output.tif")
    inside.mkdir()
    shutil.copy(source / "a.tif", inside / "a.tif")
    found = find_pairs(source, inside)
    assert [pair.src.relative_to(source).as_posix() for pair in found] == sorted(FILES)
    assert Pair(source / "deep/er/c.tif", inside / "deep/er/c.tif") in found
    pairs = find_pairs(source, tmp_path, globs=("*.tif", "notes*"), name="{stem}-x2{suffix}")
    assert [pair.dst.name for pair in pairs] == ["a-x2.tif", "d-x2.tif", "notes-x2.txt"]


@pytest.mark.parametrize("name", ["{nothing}", "{", "{0}", "{stem.x}"])
def test_names_that_make_no_sense(source: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(srpipe.SettingsError, match="makes no sense"):
        find_pairs(source, tmp_path, name=name)


def test_two_that_would_become_one(source: Path, tmp_path: Path) -> None:
    with pytest.raises(srpipe.SettingsError, match=r"would both become .*x\.tif"):
        find_pairs(source, tmp_path, name="x.tif")
    with pytest.raises(srpipe.SettingsError, match="would both become"):
        list_pairs([source / "a.tif", source / "deep" / "a.tif"], tmp_path)
    with pytest.raises(srpipe.OutputError, match="inputs and of outputs"):
        find_pairs(source, source)


def test_requests_that_cannot_be_carried_out(source: Path, tmp_path: Path, x2_model: Path) -> None:
    with pytest.raises(srpipe.InputError, match="is no folder"):
        srpipe.enhance_folder(source / "a.tif", tmp_path)
    with pytest.raises(srpipe.SettingsError, match="job_dir is for one image"):
        srpipe.enhance_folder(source, tmp_path / "out", model=x2_model, job_dir="x")
    with pytest.raises(srpipe.SettingsError, match="at_once is 0"):
        srpipe.enhance_folder(source, tmp_path / "out", model=x2_model, at_once=0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(srpipe.OutputError, match="cannot be made"):
        srpipe.enhance_folder(source, tmp_path / "file" / "out", model=x2_model)
    with pytest.raises(srpipe.OutputError, match="manifest"):
        srpipe.enhance_folder(source, tmp_path / "out", model=x2_model, manifest=source)
    assert os.listdir(tmp_path / "out") == []


def test_a_crash_before_the_last_line_is_written(
    source: Path, target: Path, x2_model: Path
) -> None:
    """The output is there, and known for ours: it is made again."""
    run(source, target, x2_model)
    manifest = target / MANIFEST_FILE
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if '"done"' not in line))
    assert set(statuses(run(source, target, x2_model)).values()) == {"done"}
    assert set(statuses(run(source, target, x2_model)).values()) == {"skipped"}


def test_a_changed_mask_is_another_request(source: Path, target: Path, x2_model: Path) -> None:
    mask = write_pixels(source.parent / "mask.png", photograph_pixels(60, 70, 1))
    options = {"mask": str(mask), "globs": ["a.tif"]}
    assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "done"}
    assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "skipped"}
    write_pixels(mask, 255 - photograph_pixels(60, 70, 1))
    assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "done"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"globs": ["/abs/*.tif"]}, "makes no sense"),
        ({"globs": [""]}, "makes no sense"),
        ({"globs": ["../*"]}, "leads out of"),
        ({"name": "{stem[x]}"}, "makes no sense"),
        ({"name": "{stem}.tif[compression=lzw]"}, "has options in it"),
    ],
)
def test_what_makes_no_sense_is_said_so(
    source: Path, target: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(srpipe.SettingsError, match=said):
        find_pairs(source, target, **changes)


def test_urls_are_no_folders(source: Path) -> None:
    with pytest.raises(srpipe.OutputError, match="is a URL"):
        find_pairs(source, "s3://bucket/out")
    with pytest.raises(srpipe.InputError, match="no name of a file"):
        list_pairs(["s3://bucket/a.tif"], source)
    with pytest.raises(srpipe.InputError, match="--null"):
        list_pairs(["a.tif\0b.tif"], source)


def test_an_output_that_is_an_input(source: Path) -> None:
    with pytest.raises(srpipe.OutputError, match="which is an input"):
        list_pairs([source / "a.tif", source / "d.tif"], source)


def test_other_settings_after_an_interruption(source: Path, target: Path, x2_model: Path) -> None:
    write_pixels(source / "a.tif", photograph_pixels(300, 300))
    stop = srpipe.StopRequest()
    options = {"globs": ["a.tif"], "checkpoint_every_s": 0.0}
    outcomes = srpipe.enhance_folder(
        source, target, model=x2_model, stop=stop, **SETTINGS | options
    )
    threading.Timer(0.3, stop.request).start()
    (outcome,) = list(outcomes)
    assert outcome.status in ("interrupted", "done")
    assert statuses(run(source, target, x2_model, blend="mean", **options)) == {"a.tif": "done"}
    assert statuses(run(source, target, x2_model, blend="mean", fresh=True, **options)) == {
        "a.tif": "done"
    }


def test_hidden_files_are_left_out(source: Path, target: Path, caplog: Any) -> None:
    """A Mac puts ._NAME beside files on other systems' disks; a camera's folders have .thumbnails."""
    for name in ("._a.tif", ".thumbnails/a.tif", "deep/.cache/b/c.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "a.tif", source / name)
    with caplog.at_level("DEBUG", "srpipe"):
        found = [pair.src.relative_to(source).as_posix() for pair in find_pairs(source, target)]
    assert found == sorted(FILES)
    assert f"{source / '._a.tif'} is hidden, and left out." in caplog.text
    assert all(record.levelname != "WARNING" for record in caplog.records)
    globs = [pair.src.name for pair in find_pairs(source, target, globs=["**/*.tif"])]
    assert globs == ["a.tif", "d.tif", "c.tif"]
    (named,) = find_pairs(source, target, globs=[".thumbnails/*.tif"])
    assert named.src == source / ".thumbnails/a.tif"
    hidden = source.rename(source.with_name(".in"))
    assert len(find_pairs(hidden, target)) == len(FILES)


def test_what_is_left_out_for_its_ending_is_said(source: Path, target: Path, caplog: Any) -> None:
    with caplog.at_level("INFO", "srpipe"):
        find_pairs(source, target)
        assert [(r.levelname, r.getMessage()[:40]) for r in caplog.records] == [
            ("INFO", f"{source}: 1 files are left out"[:40])
        ]
        caplog.clear()
        for name in ("x.bmp", "y.BMP", "deep/z.jp2"):
            (source / name).touch()
        find_pairs(source, target)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert (
        "4 files are left out (2 .bmp, 1 .jp2, 1 .txt), since images end in" in record.getMessage()
    )
    caplog.clear()
    find_pairs(source, target, globs=["*.tif"])
    assert not caplog.records


RACER = """
import sys, srpipe
for outcome in srpipe.enhance_folder(*sys.argv[1:3], model=sys.argv[3], tile_size=48, overlap=8,
                                     at_once=int(sys.argv[4]), checkpoint_every_s=0.0):
    print(outcome.status, outcome.output, outcome.error, flush=True)
"""


def race(source: Path, target: Path, model: Path, at_once: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RACER, source, target, model, str(at_once)]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_runs_that_race_share_the_work(source: Path, target: Path, tmp_path: Path) -> None:
    model = conv_model(tmp_path / "slow.onnx", layers=4, features=32)
    for k in range(8):
        write_pixels(source / f"more{k}.tif", photograph_pixels(90, 70 + k))
    racers = [race(source, target, model, at_once) for at_once in (1, 2, 1)]
    said = [racer.communicate(timeout=PATIENCE_S) for racer in racers]
    outcomes = [line.split()[:2] for out, _ in said for line in out.splitlines()]
    assert [racer.returncode for racer in racers] == [0, 0, 0], said
    assert {status for status, _ in outcomes} <= {"done", "skipped"}, said
    names = sorted(output for status, output in outcomes if status == "done")
    assert len(names) == len(set(names)) == 12
    assert len(outcomes) == 36
    for path in source.glob("more*.tif"):
        srpipe.enhance(path, tmp_path / "one.tif", model=model, overwrite=True, **SETTINGS)
        assert (target / path.name).read_bytes() == (tmp_path / "one.tif").read_bytes()
    assert not list(target.rglob("*.srpipe"))


@pytest.mark.parametrize("how", ["finishes", "is killed", "is another's"])
def test_who_comes_in_the_middle_of_an_image(tmp_path: Path, target: Path, how: str) -> None:
    """It waits, says so, and then has nothing to do, or goes on with what the other has left."""
    source = tmp_path / "in"
    source.mkdir()
    write_pixels(source / "a.tif", photograph_pixels(250, 300))
    model = conv_model(tmp_path / "slow.onnx", layers=8, features=64)
    target.mkdir()
    options = {"model": model, "checkpoint_every_s": 0.0, **SETTINGS}
    if how == "is another's":  # of no folder
        go_on, stop = threading.Event(), srpipe.StopRequest()

        def run_alone() -> None:
            with pytest.raises(srpipe.Interrupted):
                srpipe.enhance(
                    source / "a.tif", target / "a.tif", stop=stop, progress=lambda _: go_on.wait(),
                    **options,
                )  # fmt: skip

        first = threading.Thread(target=run_alone)
        first.start()
        wait_until(lambda: list(target.glob("*.srpipe/plan.json")), "a plan")
    else:
        other = race(source, target, model)
        wait_until(lambda: list(target.glob("*.srpipe/checkpoint*")), "a checkpoint")
        other.send_signal(signal.SIGSTOP)
    second = race(source, target, model)
    assert second.stdout is not None
    assert second.stderr is not None
    assert "a.tif is being made by another run: waiting for it" in second.stderr.readline()
    if how == "is another's":
        stop.request()
        go_on.set()
        first.join()
    else:
        other.send_signal(signal.SIGKILL if how == "is killed" else signal.SIGCONT)
        other.communicate(timeout=PATIENCE_S)
    out, err = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, err) == (0, "")
    assert out.split()[0] == ("skipped" if how == "finishes" else "done")
    srpipe.enhance(source / "a.tif", tmp_path / "a.tif", **options)
    assert (target / "a.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()


@pytest.mark.parametrize("suffix", ["dzi", "raw", "zarr"])
def test_an_output_lacks_what_belongs_to_it(
    source: Path, target: Path, x2_model: Path, suffix: str
) -> None:
    if suffix == "zarr":
        pytest.importorskip("zarr")
    options: dict[str, Any] = {"globs": ["a.tif"], "name": "{stem}." + suffix}
    belongs = {"dzi": "a_files/[1-9]*/*", "raw": "a.raw.json", "zarr": "a.zarr/[0-9]*/**/[0-9]*"}
    assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "done"}

    def parts() -> dict[Path, bytes]:
        found = [path for path in target.glob(belongs[suffix]) if path.is_file()]
        return {path: path.read_bytes() for path in found}

    whole = parts()
    assert whole
    assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "skipped"}
    for harm in (Path.unlink, Path.touch, lambda path: path.write_bytes(b"")):
        harm(next(iter(parts())))
        assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "done"}
        assert parts() == whole
        assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "skipped"}
    if suffix != "zarr":
        (target / f"a.{suffix}").unlink()
        assert statuses(run(source, target, x2_model, **options)) == {"a.tif": "done"}


def test_a_touched_input_is_the_same(source: Path, target: Path, x2_model: Path) -> None:
    run(source, target, x2_model)
    for name in FILES:
        os.utime(source / name, ns=(0, 123_456_789))
    assert statuses(run(source, target, x2_model)) == dict.fromkeys(FILES, "skipped")
