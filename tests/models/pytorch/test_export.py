from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from srpipe.errors import ModelError
from srpipe.io.model_probe import probe_model
from srpipe.models.graph import metadata_of, save_graph
from srpipe.models.pytorch.export import export_torch
from srpipe.models.trial import Trial

# torch warns of its own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("spandrel")
    return pytest.importorskip("torch")


def make_net(torch: Any, kind: str) -> Any:
    """A small net of spandrel's own code, with weights that leave no part of it idle."""
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel.architectures.SCUNet import SCUNet

    torch.manual_seed(0)
    blocks = {"middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    esrgan = {"num_filters": 16, "num_blocks": 2}
    net = {
        "compact": lambda: Compact(num_feat=16, num_conv=2, upscale=2),
        "esrgan": lambda: ESRGAN(scale=4, **esrgan),
        "esrgan-unshuffle": lambda: ESRGAN(in_nc=12, scale=4, shuffle_factor=2, **esrgan),
        "nafnet": lambda: NAFNet(width=8, **blocks),
        "scunet": lambda: SCUNet(config=[2, 1, 1, 1, 1, 1, 1]),
    }[kind]()
    with torch.no_grad():
        for name, values in net.named_parameters():
            if name.endswith(("beta", "gamma", "relative_position_params")):
                values.normal_()
    return net.eval()


@pytest.mark.parametrize(
    ("kind", "suffix", "scale", "multiple"),
    [
        ("compact", ".pth", 2, 1),
        ("esrgan", ".safetensors", 4, 1),
        ("esrgan-unshuffle", ".pt", 2, 4),
        ("nafnet", ".safetensors", 1, 4),
        ("scunet", ".pth", 1, 64),
    ],
)
def test_graph_does_what_the_net_does(
    torch: Any, tmp_path: Path, kind: str, suffix: str, scale: int, multiple: int
) -> None:
    net, source = make_net(torch, kind), tmp_path / f"{kind}{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(net.state_dict(), source)
    else:
        torch.save({"params": net.state_dict()}, source)
    model = export_torch(source)
    onnx.checker.check_model(model, full_check=True)
    told = metadata_of(model)
    assert told["name"] == kind
    assert (told["scale"], told["size_multiple"]) == (str(scale), str(multiple))
    trial = Trial(model)
    for batch, height, width in ((1, 128, 192), (3, 64, 128)):
        image = np.random.default_rng(9).random((batch, 3, height, width), np.float32)
        with torch.no_grad():
            expected = net(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(trial.run(image)[0], expected, rtol=0, atol=1e-5)
    if multiple < 64:
        save_graph(model, tmp_path / "m.onnx")
        info = probe_model(tmp_path / "m.onnx")
        assert (info.scale, info.multiple_px, info.channels) == (scale, multiple, 3)
        assert (info.batch, info.height_px, info.width_px) == (None, None, None)


def test_half_precision_weights(torch: Any, tmp_path: Path) -> None:
    net = make_net(torch, "compact").half()
    torch.save(net.state_dict(), tmp_path / "m.pth")
    model = export_torch(tmp_path / "m.pth")
    image = np.random.default_rng(9).random((1, 3, 20, 30), np.float32)
    with torch.no_grad():
        expected = net.float()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(Trial(model).run(image)[0], expected, rtol=0, atol=1e-5)


def test_a_net_that_needs_more_than_its_image_is_refused(torch: Any, tmp_path: Path) -> None:
    from spandrel.architectures.MixDehazeNet import MixDehazeNet

    net = MixDehazeNet(embed_dims=[8, 16, 32, 16, 8], depths=[1, 1, 1, 1, 1])
    torch.save(net.state_dict(), tmp_path / "m.pth")
    with pytest.raises(ModelError, match="needs more than its own network"):
        export_torch(tmp_path / "m.pth")
