from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srpipe.errors import ModelError
from srpipe.models.pytorch.load import load_torch

# torch warns of its own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

_COMPLETE = all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "spandrel"))


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("spandrel")
    return pytest.importorskip("torch")


@pytest.mark.skipif(_COMPLETE, reason="PyTorch and spandrel are installed")
def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(b"")
    with pytest.raises(ModelError, match=r"install them with pip install 'srpipe\[torch\]'"):
        load_torch(tmp_path / "m.pth")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must end in \.pth, \.pt, \.safetensors"):
        load_torch(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="does not exist"):
        load_torch(tmp_path / "m.pth")


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_pickled_code_is_not_run(torch: Any, tmp_path: Path, suffix: str, kind: str) -> None:
    mark, file = tmp_path / "executed", tmp_path / f"m{suffix}"
    content = {"params": {"body.0.weight": torch.zeros(3)}, "more": _Malicious(mark)}
    if kind == "bare":
        file.write_bytes(pickle.dumps(_Malicious(mark)))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelError, match="is refused: it holds more than weights"):
        load_torch(file)
    assert not mark.exists()
    # The file would have done it.
    torch.load(file, weights_only=False) if kind != "bare" else pickle.loads(file.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torchscript_is_refused(torch: Any, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"m{suffix}"
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), file)
    with pytest.raises(ModelError, match="is refused"):
        load_torch(file)


def test_other_weights_are_refused(torch: Any, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="of an architecture that spandrel"):
        load_torch(tmp_path / "m.pth")
    (tmp_path / "m.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be loaded as a PyTorch model"):
        load_torch(tmp_path / "m.safetensors")
    misfit = {"body.0.weight": torch.zeros(8, 3, 3, 3), "body.1.weight": torch.zeros(8)}
    torch.save(misfit, tmp_path / "misfit.pth")
    with pytest.raises(ModelError, match="cannot be loaded as a PyTorch model"):
        load_torch(tmp_path / "misfit.pth")


def test_models_that_do_more_than_images_are_refused(torch: Any, tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    net = Compact(num_in_ch=1, num_out_ch=3, num_feat=4, num_conv=1, upscale=1)
    torch.save(net.state_dict(), tmp_path / "m.pth")
    with pytest.raises(ModelError, match="takes 1 channels and gives 3"):
        load_torch(tmp_path / "m.pth")
