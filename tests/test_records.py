"""Records that make no sense, signed or not: one clear error, or the right bytes from the start."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import srpipe
from srpipe.io.cache import write_cached_json
from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.job_lock import read_owner
from srpipe.io.job_record import is_finished_output, read_kept, read_plan
from srpipe.manifest import Manifest
from srpipe.models.rewrite.verdict import find_graph
from srpipe.slabs.whole import assemble
from srpipe.tune.table import load_table
from tests.processes import run_srpipe
from tests.test_planted import Scene

NESTED = b"[" * 100_000
CONTENTS = [
    b"", b"{", NESTED, b'{"a":' * 50_000, b"null", b"1", b"[]", b"{}", b'"text"', b"[[1], 2]",
    b'{"sha256": 1, "plan": 2, "checkpoint": 3, "job": [], "host": {}}', b"\xff\xfe", b"1e999",
    b'{"sha256": "x", "plan": null, "checkpoint": []}', b"9" * 5000,
]  # fmt: skip
VALUES: list[Any] = [
    None,
    -1,
    10**30,
    float("inf"),
    float("nan"),
    "x",
    [],
    {},
    [[[]]],
    [None],
    True,
]
RECORDS = ("plan.json", "checkpoint-0.json", "checkpoint-1.json", "finished.json", "srpipe.lock")


@pytest.fixture
def scene(tmp_path: Path, x2_model: Path) -> Scene:
    return Scene(tmp_path, x2_model)


def changed(value: Any) -> Iterator[Any]:
    """A plain value with each of its parts in turn replaced by each of what makes no sense there."""
    yield from VALUES
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            for other in changed(value[key]):
                yield value | {key: other}
    elif isinstance(value, list) and value:
        for other in changed(value[0]):
            yield [other, *value[1:]]


def sign(record: Any, name: str) -> bytes:
    text = json.dumps(record)
    return json.dumps({name: text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def read_all(scene: Scene) -> None:
    """Everything that reads records, but running the job."""
    folder = scene.job_dir
    list(load_checkpoints(folder, None))
    read_kept(folder)
    read_owner(folder)
    is_finished_output(folder, str(scene.output))
    with contextlib.suppress(ValueError):
        read_plan(folder)
    with contextlib.suppress(srpipe.SrpipeError):
        srpipe.read_job_status(str(scene.output))
    with contextlib.suppress(srpipe.SrpipeError):
        assemble(scene.output)


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_no_record(scene: Scene, name: str) -> None:
    scene.interrupt()
    for content in CONTENTS:
        (scene.job_dir / name).write_bytes(content)
        read_all(scene)
    for content in (NESTED, b"[[1], 2]"):
        scene.job_dir.mkdir(exist_ok=True)
        (scene.job_dir / name).write_bytes(content)
        with contextlib.suppress(srpipe.JobError):  # a plan that is damaged
            srpipe.enhance(scene.source, scene.output, **scene.arguments)
            assert scene.output.read_bytes() == scene.expected
            scene.output.unlink()
            scene.interrupt()


def test_signed_plans_of_any_content(scene: Scene) -> None:
    scene.interrupt()
    path = scene.job_dir / "plan.json"
    record = json.loads(json.loads(path.read_bytes())["plan"])
    # Of the plan as a whole only what is read again: the rest is only compared.
    parts = {key: record["plan"][key] for key in ("frame", "tile_size", "overlap", "rewrites")}
    small = {"facts": record["facts"], "plan": parts}
    for n, other in enumerate(changed(small)):
        if not isinstance(other, dict) or not isinstance(other.get("plan"), dict):
            whole: Any = other
        else:
            whole = record | other | {"plan": record["plan"] | other["plan"]}
        path.write_bytes(sign(whole, "plan"))
        read_all(scene)
        if n % 40 == 0:
            with contextlib.suppress(srpipe.JobError):
                srpipe.enhance(scene.source, scene.output, **scene.arguments)
                assert scene.output.read_bytes() == scene.expected
                scene.output.unlink()
                scene.interrupt()


def test_signed_checkpoints_of_any_content(scene: Scene) -> None:
    scene.interrupt()
    record = json.loads((scene.job_dir / "checkpoint-0.json").read_bytes().split(b"\0")[0])
    good = json.loads(record["checkpoint"])
    for n, other in enumerate(changed(good)):
        (scene.job_dir / "checkpoint-0.json").write_bytes(sign(other, "checkpoint"))
        read_all(scene)
        if n % 15 == 0:
            with contextlib.suppress(srpipe.CoverageError):  # pixels counted that nobody stored
                srpipe.enhance(scene.source, scene.output, **scene.arguments)
                assert scene.output.read_bytes() == scene.expected
                scene.output.unlink()
            if not scene.job_dir.exists():
                scene.interrupt()


def test_slabs_of_any_content(scene: Scene) -> None:
    slab = {"slab": (1, 2)} | scene.arguments
    srpipe.enhance(scene.source, scene.output, **slab)
    done, plan = scene.job_dir / "slab-0001.json", scene.job_dir / "plan.json"
    good = json.loads(done.read_bytes())
    for content in CONTENTS:
        done.write_bytes(content)
        read_all(scene)
    for other in changed(good):
        done.write_bytes(json.dumps(other).encode())
        read_all(scene)
        with contextlib.suppress(srpipe.JobError):
            if isinstance(other, dict) and isinstance(other.get("tiles"), int):
                srpipe.enhance(scene.source, scene.output, **slab)
    done.write_bytes(json.dumps(good).encode())
    record = json.loads(json.loads(plan.read_bytes())["plan"])
    for other in changed(record["slabs"]):
        plan.write_bytes(sign(record | {"slabs": other}, "plan"))
        read_all(scene)


def test_manifests_of_any_content(tmp_path: Path) -> None:
    good = {"output": "a", "request": "b", "status": "done", "written": [1, 2]}
    lines = [*CONTENTS, *(json.dumps(other).encode() for other in changed(good))]
    (tmp_path / "manifest").write_bytes(b"\n".join(lines))
    assert Manifest(tmp_path / "manifest").request_of("nothing") is None


def test_poisoned_caches_are_dropped(scene: Scene, cache: Path) -> None:
    """Entries are found by what they depend on, so that they can be replaced one by one."""
    for entry in (cache / "models").iterdir():
        entry.unlink()
    info = srpipe.probe_model(scene.arguments["model"])
    (entry,) = (cache / "models").iterdir()
    good = json.loads(entry.read_bytes())

    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    for content in CONTENTS:
        entry.write_bytes(content)
        assert srpipe.probe_model(scene.arguments["model"]) == info
    for number, other in enumerate(changed(good["facts"])):
        if number % 20:
            continue
        signed = {"facts": other, "props": good["props"], "digest": digest([other, good["props"]])}
        entry.write_text(json.dumps(signed))
        found = srpipe.probe_model(scene.arguments["model"])
        assert isinstance(found.scale, int)
        assert isinstance(found.sha256, str)
    entry.write_text(json.dumps(good))
    for value in [
        *VALUES,
        *changed({"rows": [], "searches": {"a": 1}}),
        *changed({"earlier_s": 1}),
    ]:
        write_cached_json("tuned", "poisoned", value)
        load_table("poisoned")
        for path in (cache / "graphs").glob("*.json"):
            path.write_text(json.dumps(value))
        find_graph(info, 0)


def test_commands_say_it_on_one_line(scene: Scene) -> None:
    scene.interrupt()
    (scene.job_dir / "plan.json").write_bytes(NESTED)
    for command in ("status", "assemble"):
        done = run_srpipe(command, scene.output)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == (0 if command == "status" else 1)
