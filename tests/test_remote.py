"""Inputs and outputs behind URLs: object stores and web servers on loopback."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import srpipe
from srpipe.io import remote
from srpipe.plan.url import redact_url
from srpipe.runtime.events import ProgressEvent
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.processes import PATIENCE_S, output_of, run_srpipe, start_srpipe, wait_until
from tests.remote_servers import PASSWORD, USER, WebServer, web_server

fsspec = pytest.importorskip("fsspec")

SECRET_KEY = "wJalrXUtnFEMI"
BUCKET = "pictures"
SIGNATURE = "?X-Amz-Signature=f00dfeed&versionId=7"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server_module = pytest.importorskip("moto.moto_server.threaded_moto_server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    _remove_bucket(client)
    client.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    pytest.importorskip("aiohttp")
    with web_server() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SRPIPE_CACHE", str(folder))
    return folder


@pytest.fixture
def expected(photograph: Path, x2_model: Path, tmp_path: Path) -> bytes:
    srpipe.enhance(photograph, tmp_path / "expected.tif", model=x2_model)
    return (tmp_path / "expected.tif").read_bytes()


def _remove_bucket(client: Any) -> None:
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)


def _keys(client: Any) -> set[str]:
    return {e["Key"] for e in client.list_objects_v2(Bucket=BUCKET).get("Contents", ())}


def _get(client: Any, key: str) -> bytes:
    with client.get_object(Bucket=BUCKET, Key=key)["Body"] as body:
        content: bytes = body.read()
    return content


def _jobs(cache: Path) -> list[Path]:
    return [path for path in (cache / "jobs").rglob("*") if path.is_file()]


def _in_blocks_of(n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", n_bytes)


def test_from_a_bucket_to_a_bucket(
    s3: Any, photograph: Path, x2_model: Path, expected: bytes, cache: Path
) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/scan.tif", Body=photograph.read_bytes())
    src, dst = f"s3://{BUCKET}/in/scan.tif", f"s3://{BUCKET}/out/scan x2.tif"
    report = srpipe.enhance(src, dst, model=x2_model)
    assert (report.input, report.output) == (src, dst)
    assert _get(s3, "out/scan x2.tif") == expected
    assert _keys(s3) == {"in/scan.tif", "out/scan x2.tif"}
    assert not _jobs(cache)

    with pytest.raises(srpipe.OutputError, match=r"out/scan x2\.tif exists: .* --overwrite"):
        srpipe.enhance(src, dst, model=x2_model)
    report = srpipe.enhance(src, f"{dst}[compression=lzw]", model=x2_model, overwrite=True)
    assert report.output == dst
    assert _get(s3, "out/scan x2.tif") != expected


def test_on_the_command_line(
    s3: Any, photograph: Path, x2_model: Path, expected: bytes, cache: Path, tmp_path: Path
) -> None:
    dst = f"s3://{BUCKET}/x2.tif"
    done = run_srpipe("enhance", photograph, dst, "-m", x2_model, "-vv", "--progress", "json")
    assert done.returncode == 0, done.stderr
    assert _get(s3, "x2.tif") == expected
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["output"] for line in lines if line["event"] == "report"] == [dst]
    assert any(f"uploading {dst}" in line.get("message", "") for line in lines)
    assert SECRET_KEY not in done.stderr
    assert "Signature" not in done.stderr
    status = run_srpipe("status", dst)
    assert status.returncode == 2
    assert f"there is no job for {dst} in {cache}/jobs/" in status.stderr


def test_options_by_protocol_for_an_enhancer(
    s3: Any, s3_server: str, photograph: Path, x2_model: Path, expected: bytes,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    s3.put_object(Bucket=BUCKET, Key="a.tif", Body=photograph.read_bytes())
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    options = {"s3": {"endpoint_url": s3_server, "key": "AKIAEXAMPLE", "secret": SECRET_KEY}}
    with srpipe.Enhancer(x2_model, storage_options=options) as enhancer:
        assert SECRET_KEY not in repr(enhancer.settings)
        assert pickle.loads(pickle.dumps(enhancer.settings)) == enhancer.settings
        hash(enhancer.settings)
        pairs = [
            (f"s3://{BUCKET}/a.tif", f"s3://{BUCKET}/a-x2.tif"),
            (f"s3://{BUCKET}/none.tif", tmp_path / "none.tif"),
            (f"s3://{BUCKET}/a.tif", tmp_path / "a.tif"),
        ]
        outcomes = {str(dst): outcome for _, dst, outcome in enhancer.map(pairs)}
    assert _get(s3, "a-x2.tif") == expected
    assert (tmp_path / "a.tif").read_bytes() == expected
    error = outcomes[str(tmp_path / "none.tif")]
    assert isinstance(error, srpipe.InputError)
    assert str(error) == f"s3://{BUCKET}/none.tif does not exist: check the URL."
    assert {p.name for p in tmp_path.iterdir()} >= {"a.tif"}
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".srpipe"]


def test_an_upload_that_failed_is_repeated_without_computing(
    s3: Any, photograph: Path, x2_model: Path, expected: bytes, cache: Path
) -> None:
    dst = f"s3://{BUCKET}/x2.tif"
    states: list[str] = []

    def note(event: ProgressEvent) -> None:
        if event.state == "started" and not states:
            _remove_bucket(s3)
        states.append(event.state)

    settings: dict[str, Any] = {"model": x2_model, "tile_size": 64}
    with pytest.raises(srpipe.WriteError, match="its bucket or folder does not exist") as caught:
        srpipe.enhance(photograph, dst, progress=note, **settings)
    assert f"The finished file is kept in {cache}/jobs/" in str(caught.value)
    assert srpipe.read_job_status(dst).state == "finished"

    s3.create_bucket(Bucket=BUCKET)
    states = ["repeated"]
    srpipe.enhance(photograph, dst, progress=note, **settings)
    assert states == ["repeated", "started", "finished"]
    # Tiles decide bytes, so other tiles than those of `expected` can only be compared in size.
    assert read_pixels(_save(_get(s3, "x2.tif"), cache / "got.tif")).shape == (400, 600, 3)
    assert not _jobs(cache)


def _save(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def test_an_upload_that_was_interrupted_is_repeated_without_computing(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, cache: Path
) -> None:
    arrived, answer = threading.Event(), threading.Event()

    def hold(_: bytes) -> None:
        arrived.set()
        answer.wait(PATIENCE_S)

    web.on_put, web.refuses_puts = hold, 503
    process = start_srpipe("enhance", photograph, web.url("/x2.tif"), "-m", x2_model)
    assert arrived.wait(PATIENCE_S)
    main_thread = psutil.Process(process.pid)
    before = main_thread.num_ctx_switches().voluntary
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):  # asked once, it waits for the server
        process.wait(1)
    # It looks up several times a second; a signal that it has not taken would swallow the next.
    wait_until(
        lambda: main_thread.num_ctx_switches().voluntary > before + 2, "the signal to be taken"
    )
    process.send_signal(signal.SIGTERM)
    _, err = output_of(process)
    assert process.returncode == 143
    assert f"The finished file is kept in {cache}/jobs/" in err
    answer.set()
    web.on_put, web.refuses_puts = None, 0
    report = srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model)
    assert report.resumed_tiles == report.tiles
    assert web.objects["/x2.tif"] == expected
    assert not _jobs(cache)


def test_an_upload_whose_answer_was_lost_is_found_done(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, cache: Path
) -> None:
    def arrive(body: bytes) -> None:
        web.objects["/x2.tif"] = body

    web.on_put, web.refuses_puts = arrive, 502
    with pytest.raises(srpipe.WriteError, match=r"cannot be written \(502"):
        srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model)
    with pytest.raises(srpipe.OutputError, match="exists"):
        srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model, fresh=True)
    web.requests.clear()
    srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model)
    assert web.objects["/x2.tif"] == expected
    assert not [request for request in web.requests if request[0] == "PUT"]
    assert not _jobs(cache)


def test_what_appears_meanwhile_is_not_replaced(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, cache: Path
) -> None:
    def appear(_: ProgressEvent) -> None:
        web.objects["/x2.tif"] = b"somebody else's"

    with pytest.raises(srpipe.WriteError, match="has appeared while the job was running"):
        srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model, progress=appear)
    assert web.objects["/x2.tif"] == b"somebody else's"
    srpipe.enhance(photograph, web.url("/x2.tif"), model=x2_model, overwrite=True)
    assert web.objects["/x2.tif"] == expected


def test_an_interrupted_job_goes_on_with_its_copy(
    web: WebServer, photograph: Path, x2_model: Path, cache: Path
) -> None:
    settings: dict[str, Any] = {
        "model": x2_model, "tile_size": 64, "engine": "serial", "checkpoint_every_s": 0,
    }  # fmt: skip
    web.objects["/a.tif"] = photograph.read_bytes()
    stop = srpipe.StopRequest()

    def stop_halfway(event: ProgressEvent) -> None:
        if event.tiles_done > event.tiles_total // 2 and not stop.times:
            stop.request()

    src, dst = web.url("/a.tif"), web.url("/x2.tif")
    with pytest.raises(srpipe.Interrupted, match=r"tiles are kept in .*: repeat the command"):
        srpipe.enhance(src, dst, progress=stop_halfway, stop=stop, **settings)
    status = srpipe.read_job_status(dst)
    assert status.state == "interrupted"
    assert status.tiles_done > 0
    web.requests.clear()
    # Signed anew, the URL is another and its object the same.
    report = srpipe.enhance(f"{src}?X-Amz-Signature=new", dst, **settings)
    assert report.resumed_tiles == status.tiles_done
    assert {method for method, path, _ in web.requests if "a.tif" in path} == {"HEAD"}

    web.objects.pop("/x2.tif")
    stop = srpipe.StopRequest()
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance(src, dst, progress=stop_halfway, stop=stop, **settings)
    web.objects["/a.tif"] = write_pixels(photograph, photograph_pixels(200, 299)).read_bytes()
    with pytest.raises(srpipe.JobError, match=r"holds another job \(.*input content"):
        srpipe.enhance(src, dst, **settings)
    assert srpipe.enhance(src, dst, fresh=True, **settings).resumed_tiles == 0


def test_a_download_goes_on_where_it_broke_off(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _in_blocks_of(10_000, monkeypatch)
    web.objects["/a.tif"] = photograph.read_bytes()
    web.breaks_after = 45_000
    with pytest.raises(srpipe.ReadError, match=r"downloaded is kept in .*: repeat the command"):
        srpipe.enhance(web.url("/a.tif"), tmp_path / "x2.tif", model=x2_model)
    part = tmp_path / "x2.tif.srpipe" / "remote" / "input-a.tif.part"
    assert part.stat().st_size == 40_000
    web.breaks_after = None
    web.requests.clear()
    srpipe.enhance(web.url("/a.tif"), tmp_path / "x2.tif", model=x2_model)
    first = next(asked for method, _, asked in web.requests if method == "GET")
    assert first == "bytes=40000-49999"
    assert (tmp_path / "x2.tif").read_bytes() == expected
    assert not (tmp_path / "x2.tif.srpipe").exists()


def test_a_download_of_what_has_changed_starts_over(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _in_blocks_of(10_000, monkeypatch)
    web.objects["/a.tif"] = photograph.read_bytes()[::-1]
    web.breaks_after = 45_000
    with pytest.raises(srpipe.ReadError):
        srpipe.enhance(web.url("/a.tif"), tmp_path / "x2.tif", model=x2_model)
    web.objects["/a.tif"], web.breaks_after = photograph.read_bytes(), None
    srpipe.enhance(web.url("/a.tif"), tmp_path / "x2.tif", model=x2_model)
    assert (tmp_path / "x2.tif").read_bytes() == expected


def test_a_server_without_ranges(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _in_blocks_of(10_000, monkeypatch)
    web.ranges = False
    web.objects["/a.tif"] = photograph.read_bytes()
    srpipe.enhance(web.url("/a.tif"), tmp_path / "x2.tif", model=x2_model)
    assert (tmp_path / "x2.tif").read_bytes() == expected


@pytest.mark.parametrize("scheme", ["memory", "local", "file"])
def test_other_file_systems(
    scheme: str, photograph: Path, x2_model: Path, expected: bytes, cache: Path, tmp_path: Path
) -> None:
    folder = f"{scheme}://{tmp_path}/there"
    file_system = fsspec.filesystem(scheme)
    file_system.makedirs(f"{tmp_path}/there", exist_ok=True)
    with fsspec.open(f"{folder}/a.tif", "wb") as file:
        file.write(photograph.read_bytes())
    srpipe.enhance(f"{folder}/a.tif", f"{folder}/x2.tif", model=x2_model)
    with fsspec.open(f"{folder}/x2.tif", "rb") as file:
        assert file.read() == expected
    assert len(file_system.ls(f"{tmp_path}/there")) == 2
    with pytest.raises(srpipe.OutputError, match="exists"):
        srpipe.enhance(f"{folder}/a.tif", f"{folder}/x2.tif", model=x2_model)


def test_credentials_are_shown_nowhere(
    web: WebServer, photograph: Path, x2_model: Path, expected: bytes, cache: Path, tmp_path: Path
) -> None:
    web.objects["/a.tif"] = photograph.read_bytes()
    web.password, web.signature = PASSWORD, SIGNATURE
    src = web.url("/a.tif", f"{USER}:{PASSWORD}", SIGNATURE)
    dst = web.url("/x2.tif", f"{USER}:{PASSWORD}", SIGNATURE)
    web.refuses_puts = 503
    options = ("-m", x2_model, "-vv", "--progress")
    failed = run_srpipe("enhance", src, dst, *options, "bar")
    assert failed.returncode == 1
    assert "cannot be written (503" in failed.stderr
    kept = b"".join(path.read_bytes() for path in _jobs(cache) if path.suffix == ".json")
    assert b"X-Amz-Signature=***" in kept
    web.refuses_puts = 0
    done = run_srpipe("enhance", src, dst, *options, "json")
    assert done.returncode == 0, done.stderr
    assert redact_url(dst) in done.stderr
    web.password = "another1"
    denied = run_srpipe("enhance", src, tmp_path / "b.tif", *options, "none")
    assert denied.returncode == 2
    assert f"{redact_url(src)} may not be read: check the credentials" in denied.stderr
    mistaken = run_srpipe("enhance", src, dst, dst)
    names = "".join(str(path) for path in cache.rglob("*"))
    said = "".join(r.stderr + r.stdout for r in (failed, done, denied, mistaken)) + names
    for secret in (PASSWORD, "f00dfeed", USER):
        assert secret not in said
        assert secret.encode() not in kept
    assert "Traceback" not in said


def test_what_cannot_be_used_is_said_before_anything_is_moved(
    web: WebServer, x2_model: Path, cache: Path, tmp_path: Path
) -> None:
    web.objects["/a.tif"] = b"no image"
    url, out = web.url("/a.tif"), tmp_path / "out.tif"

    def message(src: object, dst: object, **settings: Any) -> str:
        with pytest.raises(srpipe.RequestError) as caught:
            srpipe.enhance(str(src), str(dst), model=x2_model, **settings)
        return f"{type(caught.value).__name__}: {caught.value}"

    assert message(url, web.url("/x2.xyz")).startswith("OutputError: cannot tell the format")
    assert "are the same object" in message(url + "?sig=1", web.url("/a.tif", "me:you"))
    assert "does not exist: make it first" in message(url, tmp_path / "no" / "x.tif")
    assert "Protocol not known: quux" in message("quux://a/b.tif", out)
    assert "by protocol" in message(url, out, storage_options={"anon": True})
    out.write_bytes(b"mine")
    assert "exists" in message(url, out)
    assert not [r for r in web.requests if r[0] == "GET" and "a.tif" in r[1]]
    out.unlink()
    assert f"{url} is not an image" in message(url, out)
    with pytest.raises(srpipe.ModelError):
        srpipe.enhance(url, out, model="no-such-model")
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".srpipe"]
    assert not _jobs(cache)


def test_what_is_not_allowed(web: WebServer, photograph: Path, x2_model: Path, cache: Path) -> None:
    pytest.importorskip("s3fs")
    web.password = PASSWORD  # answers 403 to whatever S3's client signs
    options = {"s3": {"endpoint_url": web.url(""), "key": "AKIAEXAMPLE", "secret": SECRET_KEY}}
    there = f"s3://{BUCKET}/a.tif"
    with pytest.raises(srpipe.OutputError, match=f"{there} may not be written: check the cred"):
        srpipe.enhance(photograph, there, model=x2_model, storage_options=options)
    with pytest.raises(srpipe.InputError, match=f"{there} may not be read: check the cred"):
        srpipe.enhance(
            there, photograph.with_name("b.tif"), model=x2_model, storage_options=options
        )


def test_a_server_that_is_not_there(
    photograph: Path, x2_model: Path, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(srpipe.ReadError, match=r"its server cannot be reached \(.*127.0.0.1:9"):
        srpipe.enhance("http://127.0.0.1:9/a.tif", tmp_path / "x2.tif", model=x2_model)
    with pytest.raises(srpipe.WriteError, match="its server cannot be reached"):
        srpipe.enhance(photograph, "http://127.0.0.1:9/x2.tif", model=x2_model)
    assert [path.name for path in tmp_path.iterdir() if path != cache] == [photograph.name]
    assert not _jobs(cache)


@pytest.mark.parametrize("name", ["out.dzi", "out.zarr", "out.raw"])
def test_what_is_more_than_a_file_is_refused(
    photograph: Path, x2_model: Path, name: str, cache: Path
) -> None:
    with pytest.raises(srpipe.OutputError, match="more than one file"):
        srpipe.enhance(photograph, f"memory://bucket/{name}", model=x2_model)
    assert not _jobs(cache)
