"""What is shipped: the wheel with its models, the public names, light imports."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import srpipe
from srpipe.models.zoo import bundled_models
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parents[1]


def test_wheel_contains_models_types_and_licence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in bundled_models():
        assert f"srpipe/models/box/{name}.onnx" in names
    assert "srpipe/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "scripts")) for name in names)


def test_every_public_name_is_there() -> None:
    for name in srpipe.__all__:
        assert getattr(srpipe, name).__name__ == name
    assert set(srpipe.__all__) <= set(dir(srpipe))
    with pytest.raises(AttributeError, match="no attribute 'upscale'"):
        srpipe.upscale  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_is_public() -> None:
    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    errors = {cls.__name__ for cls in below(srpipe.SrpipeError)}
    public = {name for name in srpipe.__all__ if name.endswith("Error")}
    assert errors == public | {"Interrupted"}
    assert all(cls.exit_code in (1, 2, 130) for cls in below(srpipe.SrpipeError))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("srpipe", {"numpy", "pyvips", "onnxruntime", "numba", "cv2", "tqdm"}),
        ("srpipe.cli.main", {"numba", "cv2", "tqdm"}),
        ("srpipe.runtime.stages.reader", {"onnxruntime", "numba", "cv2"}),
        ("srpipe.runtime.stages.batcher", {"onnxruntime", "pyvips", "numba", "cv2"}),
        ("srpipe.runtime.stages.worker", {"pyvips", "numba", "cv2"}),
        ("srpipe.runtime.stages.accumulator", {"onnxruntime", "pyvips", "cv2"}),
        ("srpipe.runtime.stages.writer", {"onnxruntime", "numba", "cv2"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not absent & set(loaded.stdout.split())
