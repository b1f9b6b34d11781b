"""Merged kernels equal their branches; the exported model equals the trained one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from torch.nn import functional  # noqa: E402
from training.export import build_model, write_model  # noqa: E402
from training.network import (  # noqa: E402
    EdgeBlock,
    EdgeBranch,
    NetworkSettings,
    Upscaler,
    Weights,
    merge_pointwise,
    upscale,
)


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(3)


def padded_with(images, values):
    """`images` (batch, channels, h, w) with a border of one pixel of each channel's value."""
    inner = images - values[None, :, None, None]
    return functional.pad(inner, (1, 1, 1, 1)) + values[None, :, None, None]


def branch_by_branch(block: EdgeBlock, images):
    """What `block` means, computed without merging anything."""
    total = functional.conv2d(images, block.full.weight, block.full.bias, padding=1)
    total = total + block.point(images)
    middle = padded_with(block.expand(images), block.expand.bias)
    total = total + block.squeeze(middle)
    for edge in block.edges:
        pointwise = padded_with(edge.pointwise(images), edge.pointwise.bias)
        channels = pointwise.shape[1]
        masks = (edge.strength[:, None, None] * edge.mask)[:, None]
        total = total + functional.conv2d(pointwise, masks, edge.bias, groups=channels)
    return total + images if block.has_identity else total


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 8), (8, 12)])
def test_merged_block_equals_its_branches(inputs: int, outputs: int):
    block = EdgeBlock(inputs, outputs)
    for edge in block.edges:
        torch.nn.init.normal_(edge.strength)
    images = torch.rand(2, inputs, 11, 9)
    merged = block.merged()
    result = functional.conv2d(images, merged.kernel, merged.bias, padding=1)
    torch.testing.assert_close(result, branch_by_branch(block, images), atol=1e-5, rtol=0)


def test_edge_branch_ignores_a_constant_picture():
    merged = EdgeBranch(3, 4, torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])).merged()
    result = functional.conv2d(torch.full((1, 3, 5, 5), 0.7), merged.kernel, merged.bias)
    expected = merged.bias[None, :, None, None].expand_as(result)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_merged_pointwise_equals_two_convolutions():
    first = Weights(torch.randn(6, 3, 1, 1), torch.randn(6))
    second = Weights(torch.randn(4, 6, 3, 3), torch.randn(4))
    merged = merge_pointwise(first, second)
    images = torch.rand(1, 3, 7, 8)
    two_steps = functional.conv2d(functional.conv2d(images, *first), *second)
    torch.testing.assert_close(functional.conv2d(images, *merged), two_steps, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "fold", "smooth"),
    [(2, 1, 0), (3, 1, 0), (4, 1, 0), (1, 1, 0), (1, 2, 0), (1, 3, 0), (2, 1, 1), (4, 1, 1)],
)
@pytest.mark.parametrize("residual", [False, True])
def test_exported_model_equals_the_trained_one_at_any_size(
    scale: int, fold: int, smooth: int, residual: bool, tmp_path
):
    depth = 6 if residual else 3
    network = NetworkSettings(scale, 8, depth, smooth=bool(smooth), residual=residual, fold=fold)
    upscaler = Upscaler(network)
    path = tmp_path / "small.onnx"
    model = build_model(network, upscaler.merged(), {"name": "small", "scale": str(scale)})
    write_model(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 18, 24), (3, 3, 9 * fold, 5 * fold)):
        images = torch.rand(shape)
        (result,) = session.run(["output"], {"input": images.numpy()})
        expected = upscaler(images).detach().numpy()
        assert result.shape == (shape[0], 3, shape[2] * scale, shape[3] * scale)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map == {"name": "small", "scale": str(scale)}


def test_parameters_are_those_of_the_merged_network():
    network = NetworkSettings(scale=2, features=24, convolutions=6)
    counted = sum(part.numel() for layer in Upscaler(network).merged() for part in layer)
    assert network.parameters == counted == 24108


@pytest.mark.parametrize(("scale", "fold"), [(2, 1), (1, 2), (1, 3)])
def test_receptive_radius_is_what_a_pixel_can_reach(scale: int, fold: int):
    network = NetworkSettings(scale=scale, features=8, convolutions=3, fold=fold)
    images = torch.rand(1, 3, 42, 42, requires_grad=True)
    for row in range(18, 24):
        Upscaler(network)(images)[0, :, row * scale : (row + 1) * scale].sum().backward()
        rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        assert row - int(rows.min()) <= network.receptive_radius_px
        assert int(rows.max()) - row <= network.receptive_radius_px
        images.grad = None


def test_folding_goes_with_scale_one_only():
    with pytest.raises(ValueError, match="fold 2 goes with scale 1"):
        NetworkSettings(scale=2, fold=2)
    with pytest.raises(ValueError, match="must make pairs"):
        NetworkSettings(convolutions=5, residual=True)
    with pytest.raises(ValueError, match="nothing to enlarge"):
        NetworkSettings(scale=1, smooth=True)


def test_bfloat16_computes_nearly_the_same():
    network = NetworkSettings(scale=2, features=8, convolutions=3)
    weights = [Weights(*(part.detach() for part in layer)) for layer in Upscaler(network).merged()]
    images = torch.rand(1, 3, 16, 16)
    exact = upscale(images, weights, network)
    rounded = upscale(images, weights, network, bfloat16=True)
    assert 0 < (rounded - exact).abs().max() < 0.02
