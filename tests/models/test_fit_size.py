from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.models.fit_size import SizeRule, fit_size
from tests.models.ncnn.files import run_onnx
from tests.onnx_models import save


def _model(path: Path, *steps: tuple[str, int, int, int]) -> onnx.ModelProto:
    """Convolutions (op, kernel, stride, lost on each side) on 3 channels, one after another."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "input"
    for i, (op, kernel, stride, pad) in enumerate(steps):
        values = rng.uniform(0, 2, (3, 3, kernel, kernel)) / (3 * kernel**2)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{i}"))
        y = "output" if i == len(steps) - 1 else f"x{i}"
        attributes = {"strides": [stride] * 2, "pads": [pad] * 4}
        nodes.append(helper.make_node(op, [x, f"w{i}"], [y], **attributes))
        x = y
    return onnx.load(save(path, nodes, weights, ["n", 3, "h", "w"]))


HALVED = [("Conv", 3, 1, 0), ("Conv", 2, 2, 0), ("Conv", 3, 1, 0), ("ConvTranspose", 2, 2, 0)]


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ([("Conv", 3, 1, 1)], SizeRule(1, 1, 0, 0)),
        ([("Conv", 5, 1, 0), ("Conv", 3, 1, 0)], SizeRule(1, 1, 0, 6)),
        ([("Conv", 3, 1, 0), ("ConvTranspose", 4, 2, 3)], SizeRule(2, 1, 0, 8)),
        ([("Conv", 3, 1, 0), ("ConvTranspose", 4, 2, 2)], SizeRule(2, 1, 0, 6)),
        ([("ConvTranspose", 4, 2, 0)], SizeRule(2, 1, 0, -2)),
        (HALVED, SizeRule(1, 2, 0, 6)),
        ([("Conv", 2, 2, 0), ("Conv", 2, 2, 0), ("ConvTranspose", 4, 4, 0)], SizeRule(1, 4, 0, 0)),
        ([("Conv", 4, 1, 0), ("Conv", 2, 2, 0), ("ConvTranspose", 2, 2, 0)], SizeRule(1, 2, 1, 3)),
    ],
)
def test_output_becomes_a_whole_multiple(
    tmp_path: Path, steps: list[tuple[str, int, int, int]], rule: SizeRule
) -> None:
    plain = _model(tmp_path / "m.onnx", *steps)
    fitted, found = fit_size(plain)
    assert found == rule
    rng = np.random.default_rng(1)
    for batch, height, width in ((1, 16, 16), (2, 17, 30), (1, 3, 2), (1, 18, 27)):
        images = rng.random((batch, 3, height, width), np.float32)
        result = run_onnx(fitted.SerializeToString(), images)
        assert result.shape == (batch, 3, rule.scale * height, rule.scale * width)
        # The same as the plain model's on a padded image, cut by hand.
        margin = rule.margin_px
        more = [(rule.rest_px - size - 2 * margin) % rule.multiple_px for size in (height, width)]
        sides = [(0, 0), (0, 0), (margin, margin + more[0]), (margin, margin + more[1])]
        whole = run_onnx(plain.SerializeToString(), np.pad(images, sides, mode="edge"))
        cut = whole[..., rule.crop_px :, rule.crop_px :][..., : result.shape[2], : result.shape[3]]
        np.testing.assert_allclose(result, cut, rtol=0, atol=1e-6)


def test_a_model_that_fits_is_not_changed(tmp_path: Path) -> None:
    plain = _model(tmp_path / "m.onnx", ("Conv", 3, 1, 1))
    assert fit_size(plain)[0] is plain


@pytest.mark.parametrize("steps", [[("Conv", 2, 2, 0)], [("ConvTranspose", 9, 9, 0)]])
def test_other_scales_are_refused(tmp_path: Path, steps: list[tuple[str, int, int, int]]) -> None:
    with pytest.raises(ModelError, match="no whole multiple"):
        fit_size(_model(tmp_path / "m.onnx", *steps))


def test_a_size_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Slice", ["input", "from", "to", "axes"], ["output"])]
    bounds = {"from": [0, 0], "to": [20, 20], "axes": [2, 3]}
    weights = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in bounds.items()]
    model = onnx.load(save(tmp_path / "m.onnx", nodes, weights, ["n", 3, "h", "w"]))
    with pytest.raises(ModelError, match="no whole multiple"):
        fit_size(model)
