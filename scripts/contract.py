"""Record what srpipe does, and check that it still does it: pixels, exit codes, messages, help.

scripts/contract record FILE.json     once, before a change that must change nothing
scripts/contract check FILE.json      after every step of it; exit 1 names what differs
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile
from PIL import Image

from tests.onnx_models import conv_model, elementwise_model

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "enhance", "assemble", "status", "inspect", "models", "convert", "quantize", "tune", "plan",
    "compare", "doctor",
)  # fmt: skip
KILL_AT_TILES = (1, 9, 20, 34)


def srpipe(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder."""
    command = [sys.executable, "-m", "srpipe", *words]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        **options,
    )


def make_inputs(folder: Path) -> None:
    """Make one picture of each kind, and models."""
    photo = np.asarray(Image.open(ROOT / "tests/data/dandelion.jpg").convert("RGB"))[
        100:388, 200:584
    ]
    small = photo[:140, :170]
    grey, alpha = small[..., 1], np.full(small.shape[:2], 255, np.uint8)
    alpha[40:90, 50:120] = 0
    alpha[60:70] = 128
    wide = small.astype(np.uint16) * 257
    tifffile.imwrite(
        folder / "rgb8.tif", photo, photometric="rgb", tile=(64, 64), compression="deflate"
    )
    tifffile.imwrite(folder / "rgb16.tif", wide, photometric="rgb", rowsperstrip=16)
    tifffile.imwrite(folder / "grey16.tif", wide[..., 0])
    tifffile.imwrite(folder / "float.tif", small.astype(np.float32) / 255, photometric="rgb")
    bands = np.dstack([wide, wide[..., :2] // 2])
    tifffile.imwrite(folder / "five.tif", bands, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(
        folder / "no-data.tif",
        np.where(alpha > 0, wide[..., 0], 0).astype(np.uint16),
        extratags=[(42113, 2, 0, "0", True)],
    )
    Image.fromarray(grey).save(folder / "grey8.png")
    Image.fromarray(np.dstack([small, alpha])).save(folder / "rgba8.png")
    Image.fromarray(np.dstack([grey, alpha])).save(folder / "la8.png")
    Image.fromarray(small).save(folder / "small.jpg", quality=92)
    Image.fromarray(small).save(folder / "small.png")
    Image.fromarray(small).save(folder / "small.webp", lossless=True)
    Image.fromarray(small).quantize(200).save(folder / "palette.gif")
    Image.fromarray(small).convert("CMYK").save(folder / "cmyk.tif")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(small).save(folder / "turned.jpg", exif=exif, quality=92)
    linear = (
        pyvips.Image.new_from_array(small)
        .copy(interpretation="srgb")
        .colourspace("scrgb")
        .colourspace("rgb16")
    )
    linear.write_to_file(str(folder / "rgb16.png"))
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[80:200, 100:300] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    flat = np.full((256, 512, 3), 245, np.uint8)
    flat[:140, :170] = small
    tifffile.imwrite(folder / "scan.tif", flat, photometric="rgb")
    many = folder / "many"
    many.mkdir()
    for i in range(3):
        Image.fromarray(small[: 60 + i, : 80 + i]).save(many / f"{i}.png")
    conv_model(folder / "x3.onnx", scale=3)
    conv_model(folder / "grey.onnx", channels=1)
    conv_model(folder / "nhwc.onnx", layout="NHWC")
    conv_model(folder / "half.onnx", dtype="float16")
    conv_model(folder / "by8.onnx", scale=1, multiple=8)
    conv_model(folder / "fixed.onnx", batch=1, height=64, width=64)
    conv_model(folder / "five.onnx", channels=5)
    elementwise_model(folder / "log.onnx", "Log")
    (folder / "text.tif").write_text("no image")
    (folder / "empty.tif").touch()
    (folder / "cut.tif").write_bytes((folder / "rgb8.tif").read_bytes()[:30000])


def runs() -> Iterator[tuple[str, list[str]]]:
    """Requests by name; OUT stands for the output's name without its ending."""
    for ending in (
        "tif", "png", "jpg", "webp", "dzi", "zarr", "raw", "v", "tif[compression=none]",
        "tif[compression=jpeg,Q=80,tile,pyramid]", "tif[tile,pyramid]", "png[compression=3]",
        "tif[bigtiff]", "jpg[Q=70]",
    ):  # fmt: skip
        yield f"to {ending}", ["rgb8.tif", f"OUT.{ending}"]
    for source in (
        "rgb16.tif", "grey16.tif", "float.tif", "no-data.tif", "grey8.png", "rgba8.png", "la8.png",
        "rgb16.png", "small.jpg", "small.webp", "palette.gif", "cmyk.tif", "turned.jpg",
    ):  # fmt: skip
        yield f"from {source}", [source, "OUT.tif"]
    for model in (
        "lite-x4",
        "clean-x1",
        "photo-x4",
        "x3.onnx",
        "grey.onnx",
        "nhwc.onnx",
        "half.onnx",
        "by8.onnx",
        "fixed.onnx",
    ):
        yield f"model {model}", ["small.png", "OUT.tif", "-m", model, "-t", "64"]
        yield f"model {model}, 16 bits", ["rgb16.tif", "OUT.tif", "-m", model]
    yield "model five.onnx", ["five.tif", "OUT.tif", "-m", "five.onnx"]
    options = """
    --blend mean | --blend crop | -t 64 | -t 64 --overlap 20 | -t 96 -b 3 | -w 2 -t 64
    --threads 1 -t 64 | --region 50,60,201,97 | --region 0,0,64,64 -t 64 | --outscale 1.5
    --outscale 0.5 | --outscale 3 | --outscale 1 --region 50,60,201,97 | --edges reflect
    --edges replicate | --edges wrap | --mask mask.png | --mask mask.png -t 64 --outscale 1
    --engine threads -t 64 | --engine local -t 64 | --color-management off
    --color-management srgb | --range 0,255 -m x3.onnx | --channel-order bgr | --skip-background
    --memory 800M | --checkpoint-every 1 -t 64
    """
    for words in filter(
        None, (part.strip() for line in options.splitlines() for part in line.split("|"))
    ):
        yield words, ["rgb8.tif", "OUT.tif", *words.split()]
    yield "16 bits to 8", ["rgb16.tif", "OUT.png", "--depth", "8"]
    yield "8 bits to 16", ["small.png", "OUT.png", "--depth", "16"]
    yield "white", ["rgb16.tif", "OUT.tif", "--white", "40000"]
    yield "alpha, outscale", ["rgba8.png", "OUT.png", "--outscale", "1.3"]
    yield "alpha, edges wrap", ["rgba8.png", "OUT.png", "--edges", "wrap"]
    yield "background", ["scan.tif", "OUT.tif", "--skip-background", "-t", "64"]
    yield "uniform tiles", ["scan.tif", "OUT.tif", "-t", "64"]
    yield "grey, region, 16 bits", ["grey16.tif", "OUT.tif", "--region", "10,20,90,70"]
    yield "folder", ["many", "OUT"]


def bad_requests() -> Iterator[list[str]]:
    """Requests that cannot be carried out."""
    lines = """
    none.tif o.tif | . o.tif | empty.tif o.tif | text.tif o.tif | cut.tif o.tif | rgb8.tif o.xyz
    rgb8.tif o | rgb8.tif rgb8.tif | rgb8.tif no/o.tif | rgb8.tif many
    rgb8.tif o.tif[nonsense=1] | rgb8.tif o.tif[compression=zstd] | rgb8.tif o.tif[Q=900]
    rgb8.tif o.tif[tile | rgb16.tif o.jpg | rgba8.png o.jpg | five.tif o.png
    rgb8.tif o.tif -m none.onnx | rgb8.tif o.tif -m nonsense | rgb8.tif o.tif -m text.tif
    rgb8.tif o.tif -m log.onnx | grey8.png o.tif -m five.onnx | rgb8.tif o.tif -t 0
    rgb8.tif o.tif -t 99999 | rgb8.tif o.tif -t x | rgb8.tif o.tif -t 64 --overlap 64
    rgb8.tif o.tif --overlap -1 | rgb8.tif o.tif -b 0 | rgb8.tif o.tif -w 0
    rgb8.tif o.tif --threads 0 | rgb8.tif o.tif --memory 1 | rgb8.tif o.tif --memory x
    rgb8.tif o.tif -d none | rgb8.tif o.tif -d cuda | rgb8.tif o.tif --range 1,1
    rgb8.tif o.tif --range x | rgb8.tif o.tif --white 0 | rgb8.tif o.tif --depth 12
    rgb8.tif o.tif --outscale 0 | rgb8.tif o.tif --outscale x
    rgb8.tif o.tif --region 0,0,9999,9 | rgb8.tif o.tif --region 1,2,3
    rgb8.tif o.tif --edges x | rgb8.tif o.tif --mask none.png | rgb8.tif o.tif --mask small.png
    rgb8.tif o.tif --blend x | rgb8.tif o.tif --engine x | rgb8.tif o.tif --slab 3/2
    rgb8.tif o.tif --slab x | rgb8.tif o.tif --job-dir . | rgb8.tif o.tif --checkpoint-every -1
    rgb8.tif o.tif --on-error x | rgb8.tif o.tif --nonsense | rgb8.tif | many o.tif
    many out --region 0,0,4,4 --name x | s3://nowhere
    rgb8.tif o.tif -m grey.onnx --channel-order bgr
    """
    for request in filter(
        None, (part.strip() for line in lines.splitlines() for part in line.split("|"))
    ):
        yield ["enhance", *request.split()]
    for request in (
        "assemble o.tif",
        "status none.tif",
        "inspect none.onnx",
        "convert none.pth o.onnx",
        "quantize none.onnx",
        "compare none.tif small.png",
        "plan none.tif o.tif",
        "nonsense",
        "tune -m none.onnx",
    ):
        yield request.split()


def content(path: Path) -> dict[str, str]:
    """Hashes of an output's pixels, and of its files."""
    found: dict[str, str] = {}
    files = [path] if path.is_file() else []
    for folder in (path, path.with_name(f"{path.stem}_files")):
        files += sorted(f for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else []
    whole = hashlib.sha256()
    for file in files:
        if file.name != "srpipe-manifest.jsonl":  # it holds times
            whole.update(file.read_bytes())
    found["files"] = whole.hexdigest()[:16]
    if path.is_file() and path.suffix in (".tif", ".png", ".jpg", ".webp", ".v"):
        image = pyvips.Image.new_from_file(str(path))
        found["image"] = (
            f"{image.width}x{image.height}x{image.bands} {image.format} {image.interpretation}"
        )
        found["pixels"] = hashlib.sha256(image.write_to_memory()).hexdigest()[:16]
    return found


def tidy(text: str, folder: Path) -> str:
    """A message without what differs from run to run."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"\d+(\.\d+)? (s|ms|MP/s|bytes|[KMGT]B)\b", r"N \2", text)
    return re.sub(r"pid \d+|process \d+", "process N", text).strip()


def do_run(folder: Path, number: int, words: list[str]) -> dict[str, Any]:
    """Carry out one request, and describe its output."""
    name = f"out-{number}"
    source, target, *options = (word.replace("OUT", name) for word in words)
    done = srpipe(folder, "enhance", source, target, *options, "--progress", "none")
    outcome: dict[str, Any] = {"exit": done.returncode, "said": warnings(done.stderr, folder)}
    if done.returncode == 0:
        outcome |= content(folder / target.partition("[")[0])
    return outcome


def warnings(text: str, folder: Path) -> str:
    """What was said but for the report of what was done."""
    lines = [line for line in text.splitlines() if " MP/s" not in line]
    return re.sub(r"out-\d+", "OUT", tidy("\n".join(lines), folder))


def do_slabs(folder: Path) -> dict[str, Any]:
    """One image in three slabs, in any order."""
    for k in (2, 3, 1):
        done = srpipe(
            folder, "enhance", "rgb8.tif", "slabs.tif", "-t", "64", "--slab", f"{k}/3", "-q"
        )
        if done.returncode:
            return {"exit": done.returncode, "said": tidy(done.stderr, folder)}
    done = srpipe(folder, "assemble", "slabs.tif", "-q")
    pixels = content(folder / "slabs.tif") if done.returncode == 0 else {}
    return {"exit": done.returncode} | {k: v for k, v in pixels.items() if k != "files"}


def do_killed(folder: Path, tiles: int) -> dict[str, Any]:
    """Kill a run after so many tiles, and go on."""
    words = [
        "enhance",
        "rgb8.tif",
        f"killed-{tiles}.tif",
        "-t",
        "64",
        "--engine",
        "local",
        "--checkpoint-every",
        "0",
        "--progress",
        "json",
    ]
    command = [sys.executable, "-m", "srpipe", *words]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("tiles_done", 0) >= tiles:
                break
        process.send_signal(signal.SIGKILL)
    done = srpipe(folder, *words)
    for _ in range(50):  # the orphans hold the lock until they are gone
        if "another process" not in done.stderr:
            break
        time.sleep(0.2)
        done = srpipe(folder, *words)
    return {"exit": done.returncode} | content(folder / words[2])


def measure() -> dict[str, Any]:
    """Everything that is recorded, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        tasks: dict[str, Callable[[], Any]] = {}
        for number, (title, words) in enumerate(runs()):
            tasks[f"run: {title}"] = lambda n=number, w=words: do_run(folder, n, w)
        tasks["run: slabs"] = lambda: do_slabs(folder)
        for tiles in KILL_AT_TILES:
            tasks[f"run: killed after {tiles} tiles"] = lambda t=tiles: do_killed(folder, t)
        for words in bad_requests():
            tasks[f"bad: {' '.join(words)}"] = lambda w=words: refused(folder, w)
        for command in COMMANDS:
            tasks[f"help: {command}"] = lambda c=command: srpipe(folder, c, "--help").stdout
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(tasks, pool.map(lambda task: task(), tasks.values()), strict=True))


def refused(folder: Path, words: list[str]) -> dict[str, Any]:
    """What a bad request gives."""
    done = srpipe(folder, *words)
    return {"exit": done.returncode, "said": tidy(done.stderr, folder)}


def main(action: str, file: str) -> int:
    """Record or check."""
    os.environ |= {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    now = measure()
    if action == "record":
        Path(file).write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
        print(f"{len(now)} outcomes recorded")
        return 0
    then = json.loads(Path(file).read_text())
    differing = [name for name in then if now.get(name) != then[name]]
    for name in differing:
        print(f"{name}\n  was {json.dumps(then[name])}\n  is  {json.dumps(now.get(name))}")
    print(f"{len(then) - len(differing)} of {len(then)} outcomes are the same")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
