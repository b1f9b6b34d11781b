from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import psutil
import pytest

from srpipe.io.vips import pyvips
from tests.onnx_models import conv_model
from tests.processes import named_memory, wait_until_gone

hypothesis.settings.register_profile("srpipe", deadline=None, print_blob=True)
hypothesis.settings.load_profile("srpipe")

PHOTOGRAPH = Path(__file__).parent / "data" / "dandelion.jpg"


def read_pixels(path: Path | str) -> np.ndarray:
    """(height, width, bands) of an image file."""
    image = pyvips.Image.new_from_file(str(path))
    return image.numpy().reshape(image.height, image.width, image.bands)


def write_pixels(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Write (height, width, bands) pixels, with libvips' usual colour space for their depth."""
    height, width, bands = pixels.shape
    vips_format = {"uint8": "uchar", "uint16": "ushort"}.get(pixels.dtype.name, "float")
    image = pyvips.Image.new_from_memory(pixels.tobytes(), width, height, bands, vips_format)
    grey, colour = ("b-w", "srgb") if pixels.dtype == np.uint8 else ("grey16", "rgb16")
    image = image.copy(interpretation=colour if bands >= 3 else grey)
    image.write_to_file(str(path), **options)
    return path


def photograph_pixels(height: int, width: int, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """A crop of a photograph, enlarged if it must be, in any number of bands and depth."""
    image = pyvips.Image.new_from_file(str(PHOTOGRAPH))
    factor = max(1.0, width / image.width, height / image.height)
    image = image.resize(factor) if factor > 1 else image
    top, left = min(100, image.height - height), min(220, image.width - width)
    rgb = image.crop(left, top, width, height).numpy().reshape(height, width, 3)
    alpha = np.add.outer(np.arange(height) * 3, np.arange(width) * 5) % 256
    stacked = np.dstack([rgb, alpha.astype(np.uint8)])
    chosen = stacked[..., {1: [1], 2: [1, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[bands]]
    if dtype == "uint16":
        return chosen.astype(np.uint16) * 257 // 3  # dark: its values alone would say 8 bits
    return np.ascontiguousarray(chosen)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or changes the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRPIPE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def x2_model(model_folder: Path) -> Path:
    """Two convolutions, scale 2, everything free."""
    return conv_model(model_folder / "x2.onnx")


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """300x200 RGB TIFF."""
    return write_pixels(tmp_path / "photograph.tif", photograph_pixels(200, 300))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No test may leave a process, a thread of a run, or named shared memory."""
    me = psutil.Process()
    before, running = named_memory([me]), me.children()
    yield
    assert not [thread.name for thread in threading.enumerate() if "srpipe" in thread.name]
    # What ran before, as a server for several tests may, is that of another fixture.
    started = [child for child in me.children() if child not in running]
    below = [process for child in started for process in child.children(recursive=True)]
    wait_until_gone([*started, *below])
    assert named_memory([me]) <= before
