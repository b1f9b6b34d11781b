"""Comparing two pictures: the strip, and the page as a browser shows it."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from srpipe.comparison import compare
from srpipe.errors import InputError, OutputError, RequestError, SettingsError
from srpipe.io import viewer_script
from srpipe.io.vips import pyvips
from srpipe.plan.geometry import Rect
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.processes import PATIENCE_S

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
RED, GREEN = (200, 30, 30), (30, 160, 30)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Red before, green after, at twice the size."""
    before = np.full((200, 300, 3), RED, np.uint8)
    after = np.full((400, 600, 3), GREEN, np.uint8)
    return write_pixels(tmp_path / "before.png", before), write_pixels(
        tmp_path / "after.tif", after
    )


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The viewer's package, by this machine's npm."""
    npm = shutil.which("npm")
    folder = tmp_path_factory.mktemp("npm")
    name = f"openseadragon@{viewer_script.VERSION}"
    if npm is not None:
        subprocess.run(
            [npm, "pack", "--fetch-retries=0", name],
            cwd=folder,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    found = list(folder.glob("openseadragon-*.tgz"))
    if not found:
        pytest.skip("npm cannot fetch OpenSeadragon here")
    return str(found[0])


def test_a_strip_shows_before_twice_and_after(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    strip = tmp_path / "strip.png"
    made = compare(*pair, strip, crops=[Rect(10, 20, 50, 40), Rect(0, 0, 300, 200)])
    pixels = read_pixels(strip)
    assert made.folder is None
    assert pixels.shape[1] == 3 * 600 + 2 * 8
    bottom = pixels[-200]  # a row through the second crop
    for left, colour in ((300, RED), (908, RED), (1516, GREEN)):
        np.testing.assert_allclose(bottom[left], colour, atol=1)


def test_crops_are_chosen_where_there_is_detail(tmp_path: Path) -> None:
    pixels = np.full((400, 600, 3), 128, np.uint8)
    pixels[250:350, 400:500] = photograph_pixels(100, 100)
    before = write_pixels(tmp_path / "in.png", pixels)
    made = compare(before, before, tmp_path / "strip.jpg")
    x, y = zip(*((c.left + c.width / 2, c.top + c.height / 2) for c in made.crops), strict=True)
    assert any(400 < a < 500 and 250 < b < 350 for a, b in zip(x, y, strict=True))


def test_a_profile_is_taken_into_account(tmp_path: Path) -> None:
    colours = np.full((40, 40, 3), (30, 160, 30), np.uint8)
    wide = pyvips.Image.new_from_memory(colours.tobytes(), 40, 40, 3, "uchar")
    wide = wide.copy(interpretation="srgb").icc_transform("p3", input_profile="srgb")
    wide.write_to_file(str(tmp_path / "wide.png"))
    assert abs(int(read_pixels(tmp_path / "wide.png")[0, 0, 0]) - 30) > 20
    strip = tmp_path / "strip.png"
    compare(tmp_path / "wide.png", tmp_path / "wide.png", strip, crops=[Rect(0, 0, 40, 40)])
    np.testing.assert_allclose(read_pixels(strip)[-20, 20], (30, 160, 30), atol=3)


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_grey_alpha_and_16_bits_are_shown(tmp_path: Path, bands: int) -> None:
    before = write_pixels(tmp_path / "in.tif", photograph_pixels(50, 60, bands, "uint16"))
    compare(before, before, tmp_path / "strip.png", crops=[Rect(0, 0, 50, 40)])
    assert read_pixels(tmp_path / "strip.png").shape[2] == 3


def test_bands_that_are_not_named_are_colours(tmp_path: Path) -> None:
    pixels = photograph_pixels(50, 60)
    image = pyvips.Image.new_from_memory(pixels.tobytes(), 60, 50, 3, "uchar")
    image.copy(interpretation="multiband").write_to_file(str(tmp_path / "in.v"))
    compare(
        tmp_path / "in.v", tmp_path / "in.v", tmp_path / "strip.png",
        crops=[Rect(0, 0, 60, 50)], allow_untrusted=True,
    )  # fmt: skip
    np.testing.assert_array_equal(read_pixels(tmp_path / "strip.png")[-50:, -60:], pixels)


def test_what_does_not_fit_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    before, after = pair
    with pytest.raises(InputError, match="is no enlargement of"):
        compare(after, before, tmp_path / "strip.png")
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        compare(tmp_path / "none.png", after, tmp_path / "strip.png")
    with pytest.raises(SettingsError, match="not inside"):
        compare(before, after, tmp_path / "strip.png", crops=[Rect(290, 0, 20, 20)])
    with pytest.raises(OutputError, match="what to make"):
        compare(before, after, tmp_path / "strip.xyz")
    with pytest.raises(OutputError, match="is one of the pictures"):
        compare(before, after, before, overwrite=True)
    (tmp_path / "strip.png").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        compare(before, after, tmp_path / "strip.png")
    compare(before, after, tmp_path / "strip.png", overwrite=True)
    (tmp_path / "page_files").mkdir()
    with pytest.raises(OutputError, match="not of such a page"):
        compare(before, after, tmp_path / "page.html", overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_a_page_is_whole(tmp_path: Path, pair: tuple[Path, Path], package: str) -> None:
    page = tmp_path / "page.html"
    made = compare(*pair, page, openseadragon=package)
    folder = tmp_path / "page_files"
    assert made.folder == str(folder)
    largest = {name: max(int(p.name) for p in (folder / f"{name}_files").iterdir() if p.is_dir())
               for name in ("before", "after")}  # fmt: skip
    assert largest == {"before": 9, "after": 10}
    tile = read_pixels(folder / "after_files" / "10" / "0_0.jpg")
    np.testing.assert_allclose(tile[100, 100], GREEN, atol=3)
    assert "BSD" in (folder / "openseadragon.LICENSE.txt").read_text() or (
        folder / "openseadragon.LICENSE.txt"
    ).read_text().startswith("Copyright")
    compare(*pair, page, overwrite=True, openseadragon=package)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "after.tif", "before.png", "page.html", "page_files",
    ]  # fmt: skip


def screenshot(page: Path, folder: Path) -> np.ndarray:
    """What Chromium shows of a page, 600 pixels wide, once it has decoded the tiles."""
    shot = folder / "shot.png"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--window-size=600,400",
        "--hide-scrollbars", "--virtual-time-budget=5000", f"--screenshot={shot}", page.as_uri(),
    ]  # fmt: skip
    environment = os.environ | {"HOME": str(folder)}
    # Its time leaps ahead, while decoding takes the machine's own time.
    for _ in range(6):
        subprocess.run(
            command, capture_output=True, timeout=PATIENCE_S, check=True, env=environment
        )
        pixels = read_pixels(shot)[..., :3]
        row = pixels[pixels.shape[0] // 3]
        if np.ptp(row[row.shape[0] // 5].astype(int)) > 50:
            break
    return pixels


def assert_divided(pixels: np.ndarray, share: float) -> None:
    """Red is left and green is right of that share of the width, at a height without labels."""
    row, width = pixels[pixels.shape[0] // 3], pixels.shape[1]
    for x in (0.2, 0.35, 0.45, 0.55, 0.65, 0.8):
        np.testing.assert_allclose(row[int(x * width)], RED if x < share else GREEN, atol=6)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_before_left_and_after_right(
    tmp_path: Path, pair: tuple[Path, Path], package: str
) -> None:
    folder = tmp_path / 'a "page" & 100% <b>'
    folder.mkdir()
    page = folder / "it's #1.html"
    compare(*pair, page, openseadragon=package)
    assert_divided(screenshot(page, tmp_path), 0.5)
    text = page.read_text()
    # Keys move the slider, and the cut stays under it when the picture is zoomed and moved.
    for script, share in (
        ("press('PageUp', 2);", 0.7),
        ("press('Home', 1);", 0.0),
        ("press('End', 1);", 1.0),
        ("press('PageDown', 1); viewer.viewport.zoomBy(3, {x: 0.2, y: 0.3}, true);", 0.4),
    ):  # fmt: skip
        press = (
            "<script>function press(key, times) { for (let i = 0; i < times; i++) "
            "slider.dispatchEvent(new KeyboardEvent('keydown', {key})); } "
            "const wait = setInterval(() => { if (shown < 2) return; clearInterval(wait); "
            f"{script} }}, 100);</script></body>"
        )
        page.write_text(text.replace("</body>", press))
        assert_divided(screenshot(page, tmp_path), share)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry on this machine that serves files of a folder, asked by an empty cache's user."""
    root = tmp_path / "registry"
    folder = root / "openseadragon" / "-"
    folder.mkdir(parents=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(root), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "cache"))
    yield folder / f"openseadragon-{viewer_script.VERSION}.tgz"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_viewer_is_fetched_once_and_known_by_its_hash(registry: Path, package: str) -> None:
    with pytest.raises(RequestError, match=r"cannot be fetched .*--openseadragon"):
        viewer_script.load_viewer()
    registry.write_bytes(b"something else")
    with pytest.raises(RequestError, match="something else than was published"):
        viewer_script.load_viewer()
    shutil.copy(package, registry)
    first = viewer_script.load_viewer()
    registry.unlink()
    assert viewer_script.load_viewer() == first
    assert b"openseadragon" in first.script[:200].lower()


def test_another_file_is_no_viewer(tmp_path: Path) -> None:
    (tmp_path / "o.tgz").write_bytes(b"no package")
    with pytest.raises(InputError, match="its hash differs"):
        viewer_script.load_viewer(str(tmp_path / "o.tgz"))
    with pytest.raises(InputError, match="cannot be read"):
        viewer_script.load_viewer(str(tmp_path / "none.tgz"))


def test_the_registry_is_the_one_of_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    settings = tmp_path / "npmrc"
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(settings))
    assert viewer_script.registry() == "https://registry.npmjs.org"
    settings.write_text("fund=false\nregistry = https://npm.example.org/all/\n")
    assert viewer_script.registry() == "https://npm.example.org/all"
    monkeypatch.setenv("npm_config_registry", "https://other.example.org/")
    assert viewer_script.registry() == "https://other.example.org"
