from __future__ import annotations

import numpy as np
import onnx
import pytest

from srpipe.errors import ModelError, SettingsError
from srpipe.models.graph import metadata_of
from srpipe.models.half import to_half
from srpipe.models.tlc import localise_pooling
from srpipe.models.trial import Trial
from tests.conftest import photograph_pixels
from tests.models.nets import Net


def photograph(height: int, width: int) -> np.ndarray:
    pixels = photograph_pixels(height, width).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels, np.float32) / 255


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return Trial(model).run(image)[0]


def naive_local_mean(image: np.ndarray, window: int) -> np.ndarray:
    """Float64 mean over the last window that fits, pixel by pixel."""
    height, width = image.shape[2:]
    result = np.empty(image.shape)
    tall, wide = min(window, height), min(window, width)
    for y in range(height):
        top = min(max(y - (tall - 1) // 2, 0), height - tall)
        for x in range(width):
            left = min(max(x - (wide - 1) // 2, 0), width - wide)
            part = image[:, :, top : top + tall, left : left + wide].astype(np.float64)
            result[:, :, y, x] = part.mean(axis=(2, 3))
    return result


def pooling_model(kind: str, opset: int) -> onnx.ModelProto:
    net = Net()
    if kind == "GlobalAveragePool":
        pooled = net.add(kind, "input")
    elif opset < 18:
        pooled = net.add(kind, "input", axes=[-1, -2])
    else:
        pooled = net.add(kind, "input", net.weight([2, 3]))
    return net.model(net.add("Mul", "input", net.add("Sigmoid", pooled)), opset)


@pytest.mark.parametrize(
    ("kind", "opset"),
    [("GlobalAveragePool", 11), ("GlobalAveragePool", 17), ("ReduceMean", 17), ("ReduceMean", 18)],
)
@pytest.mark.parametrize("window", [1, 6, 9, 33, 100])
def test_means_are_those_of_the_window(kind: str, opset: int, window: int) -> None:
    local = localise_pooling(pooling_model(kind, opset), window)
    onnx.checker.check_model(local)
    image = np.random.default_rng(1).random((2, 3, 25, 40), np.float32)
    expected = image / (1 + np.exp(-naive_local_mean(image, window)))
    np.testing.assert_allclose(run(local, image), expected, rtol=0, atol=2e-6)


def test_window_counts_input_pixels() -> None:
    net = Net()
    folded = net.add("SpaceToDepth", "input", blocksize=4)
    pooled = net.add("Sub", folded, net.add("GlobalAveragePool", folded))
    model = net.model(net.add("DepthToSpace", pooled, blocksize=4))
    image = np.random.default_rng(2).random((1, 3, 48, 64), np.float32)
    blocks = image.reshape(1, 3, 12, 4, 16, 4).transpose(0, 3, 5, 1, 2, 4).reshape(1, 48, 12, 16)
    means = blocks - naive_local_mean(blocks, 5)
    expected = means.reshape(1, 4, 4, 3, 12, 16).transpose(0, 3, 4, 1, 5, 2).reshape(image.shape)
    np.testing.assert_allclose(run(localise_pooling(model, 20), image), expected, atol=2e-6)


def test_within_the_window_nothing_changes() -> None:
    model = Net().nafnet()
    before = model.SerializeToString()
    local = localise_pooling(model, 96)
    assert model.SerializeToString() == before
    image = photograph(96, 64)
    np.testing.assert_allclose(run(local, image), run(model, image), rtol=0, atol=5e-6)
    assert metadata_of(local) == {"tlc_window_px": "96", "tile_size": "192"}


def test_tiles_come_closer_to_the_whole_image() -> None:
    model = Net().nafnet()
    image = photograph(192, 256)
    assert tiling_error(localise_pooling(model, 32), image) < 0.1 * tiling_error(model, image)


def tiling_error(model: onnx.ModelProto, image: np.ndarray) -> float:
    """Mean difference between the whole image and four tiles, cut after a halo of 32 pixels."""
    height, width = image.shape[2:]
    tiled = np.empty_like(image)
    trial = Trial(model)
    for top in (0, height // 2):
        for left in (0, width // 2):
            y0, x0 = max(0, top - 32), max(0, left - 32)
            y1, x1 = top + height // 2, left + width // 2
            (tile,) = trial.run(image[:, :, y0 : y1 + 32, x0 : x1 + 32])
            tiled[:, :, top:y1, left:x1] = tile[:, :, top - y0 : y1 - y0, left - x0 : x1 - x0]
    return float(np.abs(tiled - trial.run(image)[0]).mean())


def test_what_was_measured_before_is_forgotten() -> None:
    model = Net().nafnet()
    told = {"name": "n", "receptive_radius_px": "9", "seam_class": "discouraged", "seam_tile": "64"}
    onnx.helper.set_model_props(model, told)
    facts = metadata_of(localise_pooling(model, 32))
    assert facts == {"name": "n", "tlc_window_px": "32", "tile_size": "64"}


def test_half_before_or_after() -> None:
    model = Net().nafnet()
    image = photograph(96, 128)
    expected = run(localise_pooling(model, 32), image)
    for both in (to_half(localise_pooling(model, 32)), localise_pooling(to_half(model), 32)):
        np.testing.assert_allclose(run(both, image), expected, rtol=0, atol=5e-3)


def test_running_sums_of_a_large_image_stay_exact_in_half() -> None:
    local = to_half(localise_pooling(pooling_model("GlobalAveragePool", 17), 8))
    image = np.full((1, 3, 4, 3000), 0.75, np.float32)
    image[..., 1500:] = 0.25
    expected = image / (1 + np.exp(-naive_local_mean(image[..., 1400:1600], 8)[..., 50]))[..., None]
    np.testing.assert_allclose(run(local, image)[..., :1490], expected[..., :1490], atol=1e-3)


def test_what_cannot_be_made_local_is_named() -> None:
    with pytest.raises(ModelError, match="nothing to make local"):
        localise_pooling(Net().model("input"))
    net = Net()
    flat = net.add("Flatten", net.add("GlobalAveragePool", "input"))
    mixed = net.add("Gemm", flat, net.weight(np.eye(3)))
    column = net.add("Reshape", mixed, net.weight([0, 3, 1, 1]))
    with pytest.raises(ModelError, match="Flatten Flatten1, which follows GlobalAveragePool"):
        localise_pooling(net.model(net.add("Mul", "input", column)))
    net = Net()
    pooled = net.add("GlobalAveragePool", "input")
    wide = net.add("Conv", pooled, net.weight(np.ones((3, 3, 3, 3))), pads=[1, 1, 1, 1])
    with pytest.raises(ModelError, match="Conv Conv1, which follows"):
        localise_pooling(net.model(net.add("Mul", "input", wide)))
    net = Net()
    mean_only = net.model(net.add("GlobalAveragePool", "input"))
    with pytest.raises(ModelError, match="must stay global"):
        localise_pooling(mean_only)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ReduceMean", {"axes": [2, 3], "keepdims": 0}),
        ("ReduceL2", {"axes": [-1]}),
        ("ReduceMax", {"axes": [2, 3]}),
        ("ReduceSum", {}),
        ("GlobalMaxPool", {}),
        ("InstanceNormalization", {}),
        ("Softmax", {"axis": 2}),
        ("MatMul", {}),
    ],
)
@pytest.mark.parametrize("size", [("height", "width"), (64, 96)])
def test_what_would_stay_global_is_named(
    op: str, attributes: dict[str, object], size: tuple[int | str, int | str]
) -> None:
    net = Net()
    local = net.add("Mul", "input", net.add("GlobalAveragePool", "input"))
    more = [net.weight(np.ones(3))] * 2 if op == "InstanceNormalization" else []
    if op == "MatMul":
        more = [net.add("Transpose", "input", perm=[0, 1, 3, 2])]
    rest = net.add(op, "input", *more, **attributes)
    if op == "ReduceMean":
        rest = net.add("Unsqueeze", rest, net.weight([2, 3]))
    if op == "MatMul":
        rest = net.add("Slice", rest, net.weight([0]), net.weight([1]), net.weight([3]))
    model = net.model(net.add("Add", local, rest))
    for axis, dim in enumerate(size):
        if isinstance(dim, int):
            model.graph.input[0].type.tensor_type.shape.dim[2 + axis].dim_value = dim
    with pytest.raises(ModelError, match=rf"^{op} {op}\d would still work on the whole image"):
        localise_pooling(model, 16)


def test_windows_and_channels_are_no_whole_image() -> None:
    """Sums over channels, and attention within blocks, are local however large the image is."""
    net = Net()
    folded = net.add("SpaceToDepth", "input", blocksize=4)
    last = net.add("Transpose", folded, perm=[0, 2, 3, 1])
    mixed = net.add("MatMul", net.add("Softmax", last, axis=-1), net.weight(np.eye(48)))
    back = net.add("DepthToSpace", net.add("Transpose", mixed, perm=[0, 3, 1, 2]), blocksize=4)
    norm = net.add("ReduceL2", back, axes=[1])
    pooled = net.add("GlobalAveragePool", "input")
    model = net.model(net.add("Mul", net.add("Mul", back, norm), pooled))
    assert metadata_of(localise_pooling(model, 16))["tlc_window_px"] == "16"


@pytest.mark.parametrize("window", [0, -5, 10**20])
def test_no_window_at_all(window: int) -> None:
    with pytest.raises(SettingsError, match=f"a window of {window} pixels cannot be"):
        localise_pooling(Net().model("input"), window)


def test_a_window_below_a_pixel_of_the_map() -> None:
    net = Net()
    folded = net.add("SpaceToDepth", "input", blocksize=4)
    pooled = net.add("Sub", folded, net.add("GlobalAveragePool", folded))
    with pytest.raises(SettingsError, match="a window of 1 pixels is too small"):
        localise_pooling(net.model(net.add("DepthToSpace", pooled, blocksize=4)), 1)


@pytest.mark.parametrize("told", [{}, {"tile_size": "70000"}, {"tile_size": "²"}])
def test_the_tile_is_one_that_srpipe_takes(told: dict[str, str]) -> None:
    model = pooling_model("GlobalAveragePool", 17)
    onnx.helper.set_model_props(model, told)
    assert metadata_of(localise_pooling(model, 100_000))["tile_size"] == "8192"
