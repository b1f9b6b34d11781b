"""Whole runs into every format: what is written, how it appears, how it is replaced."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import zarr

import srpipe
from srpipe.io import output_place
from srpipe.io.resize import resize_image
from srpipe.io.vips import pyvips
from srpipe.plan.geometry import Size
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import elementwise_model
from tests.processes import (
    is_running,
    output_of,
    start_srpipe,
    wait_for_line,
    wait_for_stages,
)
from tests.test_faults import in_own_disk, needs_mount
from tests.test_resume import StopAt

ARGUMENTS: dict[str, Any] = {"tile_size": 64, "overlap": 8}
FOLDERS = ("out.dzi", "out.zarr", "out.raw")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path, but for the input."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "in.tif")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pixels_of(output: Path, like: np.ndarray) -> np.ndarray:
    """The full-size pixels of an output, (height, width, bands)."""
    if output.suffix == ".zarr":
        return zarr.open_group(output, mode="r")["0"][:].transpose(1, 2, 0)
    if output.suffix in (".raw", ".bin"):
        facts = json.loads(Path(f"{output}.json").read_text())
        shape = (facts["height"], facts["width"], facts["bands"])
        return np.fromfile(output, facts["dtype"]).reshape(shape)
    if output.suffix != ".dzi":
        return read_pixels(output)
    image = ElementTree.parse(output).getroot()
    step, overlap = int(image.attrib["TileSize"]), int(image.attrib["Overlap"])
    levels = output.with_name(f"{output.stem}_files")
    top = max(int(level.name) for level in levels.iterdir())
    pixels = np.zeros_like(like)
    for path in (levels / str(top)).iterdir():
        column, row = map(int, path.stem.split("_"))
        left, above = (max(n * step - overlap, 0) for n in (column, row))
        tile = read_pixels(path)
        pixels[above : above + tile.shape[0], left : left + tile.shape[1]] = tile
    return pixels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.tif", photograph_pixels(200, 260))


@pytest.fixture
def same(model_folder: Path) -> Path:
    return elementwise_model(model_folder / "same.onnx", "Identity")


def _tags(path: Path) -> tuple[int, dict[int, int]]:
    """A TIFF's version, and the tags of its first image that hold one small number."""
    data = path.read_bytes()
    version = struct.unpack_from("<H", data, 2)[0]
    first, count, entry = ("<8xQ", "<Q", "<H10xH6x") if version == 43 else ("<4xI", "<H", "<H6xH2x")
    at = struct.unpack_from(first, data)[0]
    n = struct.unpack_from(count, data, at)[0]
    at += struct.calcsize(count)
    table = data[at : at + n * struct.calcsize(entry)]
    return version, dict(struct.iter_unpack(entry, table))


@pytest.mark.parametrize(
    ("options", "compression"),
    [
        ("compression=deflate,tile,pyramid", 8),
        ("compression=lzw,tile,pyramid,bigtiff", 5),
        ("compression=lzw,predictor=horizontal", 5),
        ("compression=jpeg,Q=95,tile,pyramid", 7),
        ("compression=jpeg,Q=95,tile,bigtiff", 7),
        ("compression=none,tile,tile_width=64,tile_height=64", 1),
    ],
)
def test_tiff_variants(
    tmp_path: Path, source: Path, same: Path, options: str, compression: int
) -> None:
    srpipe.enhance(source, f"{tmp_path}/out.tif[{options}]", model=same, **ARGUMENTS)
    output = tmp_path / "out.tif"
    version, tags = _tags(output)
    assert version == (43 if "bigtiff" in options else 42)
    assert tags[259] == compression
    assert tags.get(322) == (64 if "tile_width" in options else 128 if "tile" in options else None)
    image = pyvips.Image.new_from_file(str(output))
    if "pyramid" in options:
        level = pyvips.Image.new_from_file(str(output), page=1)
        assert (level.width, level.height) == (130, 100)
    expected = photograph_pixels(200, 260).astype(int)
    difference = np.abs(image.numpy().astype(int) - expected)
    assert difference.max() == 0 if compression != 7 else difference.mean() < 3


@pytest.mark.parametrize("name", ["out.dzi[suffix=.png]", "out.zarr", "out.raw", "out.bin"])
@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint16")])
def test_new_formats_hold_the_pixels(
    tmp_path: Path, same: Path, name: str, bands: int, dtype: str
) -> None:
    pixels = photograph_pixels(300, 560, bands, dtype)
    if bands == 4:
        pixels[..., 3] |= 1  # colours under what is transparent would bleed
    source = write_pixels(tmp_path / "in.tif", pixels)
    arguments = ARGUMENTS | {"tile_size": 512}
    srpipe.enhance(source, f"{tmp_path}/{name}", model=same, **arguments)
    output = tmp_path / name.partition("[")[0]
    written = pixels_of(output, pixels)
    assert written.dtype == pixels.dtype
    np.testing.assert_array_equal(written, pixels)
    beside = {"out.dzi": {"out_files"}, "out.raw": {"out.raw.json"}, "out.bin": {"out.bin.json"}}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in.tif", output.name} | beside.get(output.name, set())


@pytest.mark.parametrize(
    ("name", "engine", "changes"),
    [
        ("out.dzi", "threads", {}),
        ("out.zarr", "local", {"outscale": 1.5, "depth": 16}),
        ("out.raw", "serial", {}),
        ("out.tif", "threads", {"outscale": 1.5, "depth": 16}),
    ],
)
def test_an_interrupted_job_goes_on_to_the_same_bytes(
    tmp_path: Path, x2_model: Path, source: Path, name: str, engine: Any, changes: dict[str, Any]
) -> None:
    arguments = ARGUMENTS | changes | {"model": x2_model}
    calm, folder = tmp_path / "calm", tmp_path / "folder"
    calm.mkdir()
    folder.mkdir()
    srpipe.enhance(source, calm / name, engine="serial", **arguments)
    watch = StopAt(9)
    with pytest.raises(srpipe.Interrupted, match="repeat the command to go on"):
        srpipe.enhance(
            source, folder / name, engine=engine, progress=watch, stop=watch.stop, **arguments
        )
    assert [path.name for path in folder.iterdir()] == [f"{name}.srpipe"]
    assert not list((folder / f"{name}.srpipe").glob("output*"))
    if changes:
        for change, message in (
            ({"outscale": 3}, "resized to: 390x300, now 780x600"),
            ({"depth": 8}, "depth: uint16, now not recorded"),
        ):
            with pytest.raises(srpipe.JobError, match=message):
                srpipe.enhance(source, folder / name, **(arguments | change))
    srpipe.enhance(source, folder / name, engine=engine, progress=watch, **arguments)
    assert watch.first_tile >= 9
    assert content(folder) == content(calm)


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_is_replaced_without_leave_and_all_of_it_with(
    tmp_path: Path, source: Path, x2_model: Path, same: Path, name: str
) -> None:
    output = tmp_path / name
    srpipe.enhance(source, output, model=x2_model, **ARGUMENTS)
    large = content(tmp_path)
    with pytest.raises(srpipe.OutputError, match=r"exists.*--overwrite"):
        srpipe.enhance(source, output, model=same, **ARGUMENTS)
    assert content(tmp_path) == large
    srpipe.enhance(source, output, model=same, overwrite=True, **ARGUMENTS)
    small = content(tmp_path)
    assert small.keys() <= large.keys()
    assert small != large
    for path in tmp_path.iterdir():
        if path != source:
            output_place.remove_output(path)
    srpipe.enhance(source, output, model=same, **ARGUMENTS)
    assert content(tmp_path) == small


@pytest.mark.parametrize(
    ("name", "other"), [("out.zarr", "out.zarr"), ("out.dzi", "out_files"), ("a.tif", "a.tif")]
)
def test_a_folder_of_something_else_is_never_replaced(
    tmp_path: Path, source: Path, same: Path, name: str, other: str
) -> None:
    (tmp_path / other).mkdir()
    (tmp_path / other / "thesis.txt").write_text("years of work")
    with pytest.raises(srpipe.OutputError):
        srpipe.enhance(source, tmp_path / name, model=same, overwrite=True, **ARGUMENTS)
    assert (tmp_path / other / "thesis.txt").exists()


def test_what_belongs_to_an_output_is_not_replaced_without_leave(
    tmp_path: Path, source: Path, same: Path
) -> None:
    (tmp_path / "out.raw.json").write_text("{}")
    with pytest.raises(srpipe.OutputError, match=r"out\.raw\.json exists.*--overwrite"):
        srpipe.enhance(source, tmp_path / "out.raw", model=same, **ARGUMENTS)


def test_an_input_in_the_output_is_refused(tmp_path: Path, same: Path) -> None:
    (tmp_path / "out_files" / "9").mkdir(parents=True)
    source = write_pixels(tmp_path / "out_files" / "9" / "0_0.png", photograph_pixels(20, 30))
    with pytest.raises(srpipe.OutputError, match="lies in the output"):
        srpipe.enhance(source, tmp_path / "out.dzi", model=same, overwrite=True)
    with pytest.raises(srpipe.OutputError, match="lies in the output"):
        srpipe.enhance(source, tmp_path / "o.zarr", model=same, job_dir=tmp_path / "o.zarr" / "job")


@pytest.mark.parametrize("which", ["input", "output"])
def test_the_job_folder_is_not_where_input_or_output_are(
    photograph: Path, x2_model: Path, tmp_path: Path, which: str
) -> None:
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "a.tif"
    job_dir = photograph.parent if which == "input" else output.parent
    with pytest.raises(srpipe.OutputError, match="holds the input or the output"):
        srpipe.enhance(photograph, output, model=x2_model, job_dir=job_dir)
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_crash_at_any_point_of_the_last_moves(
    tmp_path: Path, source: Path, same: Path, name: str, overwrite: bool
) -> None:
    """The output appears last, and the same request puts in place what is not yet."""
    arguments = ARGUMENTS | {"model": same, "overwrite": overwrite}
    output = tmp_path / name
    srpipe.enhance(source, output, **arguments)
    expected = content(tmp_path)
    points = 0
    while True:
        for path in tmp_path.iterdir():
            if path != source:
                output_place.remove_output(path)
        if overwrite:
            srpipe.enhance(source, output, **(arguments | {"outscale": 0.5}))
        done = _crash_in_put_in_place(points, lambda: srpipe.enhance(source, output, **arguments))
        if done:
            break
        present = {k: v for k, v in content(tmp_path).items() if ".srpipe" not in k}
        if output.exists() and not overwrite:
            assert present == expected
        srpipe.enhance(source, output, **arguments)
        assert content(tmp_path) == expected
        points += 1
    assert points >= 1


class _CrashError(BaseException):
    pass


def _crash_in_put_in_place(after: int, run: Any) -> bool:
    """Run; end it after so many disk operations of the moves. Whether it came to its end."""
    operations = 0

    def counted(operation: Any) -> Any:
        def call(*arguments: Any) -> None:
            nonlocal operations
            if operations == after:
                raise _CrashError
            operations += 1
            operation(*arguments)

        return call

    moves = output_place.put_in_place

    def put_in_place(*arguments: Any, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "link", "remove"):
                patch.setattr(output_place.disk, name, counted(getattr(output_place.disk, name)))
            moves(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srpipe.io.job_folder.put_in_place", put_in_place)
        try:
            run()
        except _CrashError:
            return False
    return True


def test_a_killed_writer_leaves_no_half_of_an_output(tmp_path: Path, x2_model: Path) -> None:
    name = "out.dzi"
    pixels = photograph_pixels(788, 1400).repeat(2, axis=0)
    source = write_pixels(tmp_path / "in.tif", pixels)
    process = start_srpipe(
        "enhance", source, tmp_path / name, "-m", x2_model, "-t", "128", "--progress", "json",
        "--checkpoint-every", "0.1",
    )  # fmt: skip
    stages = wait_for_stages(process.pid)
    wait_for_line(process, lambda line: is_running(line) and json.loads(line)["tiles_done"] > 20)
    stages["writer"].kill()
    _, err = output_of(process)
    assert process.returncode == 1
    assert "repeat the command" in err
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif", f"{name}.srpipe"}
    assert not list((tmp_path / f"{name}.srpipe").glob("output*"))


@needs_mount
@pytest.mark.parametrize("name", ["out.dzi[suffix=.png]", "out.zarr"])
def test_a_full_disk_stops_the_job_and_room_lets_it_go_on(
    tmp_path: Path, same: Path, name: str
) -> None:
    """Noise does not compress: the output outgrows its estimate on the small disk."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    source = write_pixels(tmp_path / "in.tif", noise)
    # Pixels and seams take 1.7 MB; the output is estimated at 1.4 or 1.5 MB, and takes 1.9.
    done = in_own_disk(
        """
        mkdir "$2"; mount -t tmpfs -o size=3300k none "$2"
        run() { "$0" -m srpipe enhance "$1" "$2" -m "$3" -t 256 --overlap 8; }
        run "$1" "$2/$4" "$3" && exit 90 || echo "exit $?" >&2
        ls "$2" >&2
        mount -o remount,size=9m "$2"
        run "$1" "$2/$4" "$3"
        cp -r "$2" "$5"
        """,
        source, tmp_path / "disk", same, name, tmp_path / "copy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, code, listing, *_ = done.stderr.strip().splitlines()
    output = name.partition("[")[0]
    assert f"{output} cannot be written" in first
    assert "free space" in first
    assert (code, listing) == ("exit 1", f"{output}.srpipe")
    np.testing.assert_array_equal(pixels_of(tmp_path / "copy" / output, noise), noise)


def test_sixteen_bits_from_eight_have_no_step_of_eight(tmp_path: Path, source: Path) -> None:
    third = elementwise_model(tmp_path / "third.onnx", "Mul", 1 / 3)
    srpipe.enhance(source, tmp_path / "o.png", model=third, depth=16, **ARGUMENTS)
    written = read_pixels(tmp_path / "o.png")
    assert written.dtype == np.uint16
    expected = read_pixels(source) / 255 / 3 * 65535
    assert np.abs(written - expected).max() < 0.51
    assert pyvips.Image.new_from_file(str(tmp_path / "o.png")).interpretation == "rgb16"


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_eight_bits_from_sixteen_are_rounded_once(tmp_path: Path, same: Path, bands: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (90, 70, bands), np.uint16)
    source = write_pixels(tmp_path / "in.tif", pixels)
    srpipe.enhance(source, tmp_path / "o.webp[lossless]", model=same, depth=8, **ARGUMENTS)
    srpipe.enhance(source, tmp_path / "o.tif", model=same, depth=8, **ARGUMENTS)
    written = read_pixels(tmp_path / "o.tif")
    assert written.dtype == np.uint8
    assert np.abs(written - pixels / 257).max() < 0.51


def test_depth_of_the_input_changes_nothing(tmp_path: Path, source: Path, x2_model: Path) -> None:
    arguments = ARGUMENTS | {"model": x2_model}
    srpipe.enhance(source, tmp_path / "a.tif", **arguments)
    srpipe.enhance(source, tmp_path / "b.tif", depth=8, outscale=2, **arguments)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize(
    ("outscale", "bands", "dtype"),
    [
        (0.013, 3, "uint8"),
        (0.3, 2, "uint16"),
        (1, 1, "uint8"),
        (1.37, 3, "uint16"),
        (3, 4, "uint8"),
        (5.2, 3, "uint8"),
    ],
)
def test_outscale_resizes_what_the_model_gives(
    tmp_path: Path, x2_model: Path, outscale: float, bands: int, dtype: str
) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(200, 260, bands, dtype))
    arguments = ARGUMENTS | {"model": x2_model}
    report = srpipe.enhance(source, tmp_path / "out.tif", outscale=outscale, **arguments)
    size = Size(max(1, int(260 * outscale + 0.5)), max(1, int(200 * outscale + 0.5)))
    assert report.output_size == size
    srpipe.enhance(source, tmp_path / "plain.tif", **arguments)
    plain = pyvips.Image.new_from_file(str(tmp_path / "plain.tif"))
    alpha_band = bands - 1 if bands in (2, 4) else None
    expected = resize_image(plain, size, alpha_band).numpy().reshape(size.height, size.width, bands)
    written = read_pixels(tmp_path / "out.tif")
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, expected)


def test_resolution_follows_the_real_factor(tmp_path: Path, x2_model: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(40, 50), xres=10.0, yres=12.0)
    srpipe.enhance(source, tmp_path / "out.tif", model=x2_model, outscale=1.25, tile_size=64)
    written = pyvips.Image.new_from_file(str(tmp_path / "out.tif"))
    assert (written.xres, written.yres) == (pytest.approx(12.5), pytest.approx(15))


def test_a_transparent_part_does_not_shine_through(tmp_path: Path, same: Path) -> None:
    """Red beside transparent green stays red where it is resized."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :31] = (200, 0, 0, 255)
    pixels[:, 31:] = (0, 200, 0, 0)
    source = write_pixels(tmp_path / "in.png", pixels)
    srpipe.enhance(source, tmp_path / "out.png", model=same, outscale=0.5, tile_size=64)
    written = read_pixels(tmp_path / "out.png")
    seen = written[written[..., 3] > 20]
    assert np.abs(seen[:, :3].astype(int) - (200, 0, 0)).max() <= 1


def test_zarr_without_its_package_is_a_clear_error(
    tmp_path: Path, source: Path, same: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(srpipe.OutputError, match=r"pip install 'srpipe\[zarr\]'"):
        srpipe.enhance(source, tmp_path / "out.zarr", model=same, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.dzi[colour=blue]", "the option .colour"),
        ("out.dzi[overlap=many]", "with overlap=many: it must be a whole number"),
        ("out.dzi[layout=google]", "without the option layout"),
        ("out.dzi[suffix=.gif]", "tiles that end in '.gif'"),
        ("out.raw[colour=blue]", "the option .colour"),
        ("out.zarr[chunk=7]", "chunks of '7' pixels"),
        ("out.zarr[compression=lzw]", "compression 'lzw'"),
        ("out.zarr[level=7]", "the option 'level'"),
    ],
)
def test_bad_options_are_known_before_any_work(
    tmp_path: Path, source: Path, same: Path, name: str, message: str
) -> None:
    with pytest.raises(srpipe.OutputError, match=message):
        srpipe.enhance(source, f"{tmp_path}/{name}", model=same, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_deepzoom_tiles_keep_the_profile_and_no_orientation(tmp_path: Path, same: Path) -> None:
    image = pyvips.Image.new_from_array(photograph_pixels(60, 50)).copy(interpretation="srgb")
    profile = pyvips.Operation.call("profile_load", "srgb")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.write_to_file(str(tmp_path / "in.tif"))
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.dzi", model=same, tile_size=64)
    (tile,) = (tmp_path / "out_files" / "6").iterdir()
    written = pyvips.Image.new_from_file(str(tile))
    assert written.get("icc-profile-data") == profile
    assert "orientation" not in written.get_fields()
    assert not (tmp_path / "out_files" / "vips-properties.xml").exists()
