from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators, rewritten


def halving_net(
    opset: int = 17, channels: int = 3, scales: tuple[float, ...] = (1, 1, 0.5, 0.5), **how: object
) -> onnx.ModelProto:
    net = Net()
    x = net.conv("input", 3, channels)
    how = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"} | how
    region = net.weight(np.zeros(0)) if opset < 13 else ""
    x = net.add("Resize", x, region, net.weight(np.array(scales)), **how)
    return net.model(x if channels == 3 else net.conv(x, channels, 3), opset)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 19])
@pytest.mark.parametrize("a", [-0.75, -0.5])
def test_halving(opset: int, a: float) -> None:
    model = halving_net(opset, cubic_coeff_a=a)
    changed, places = rewritten(model, "halve")
    assert places == 1
    assert "Resize" not in operators(changed)
    assert largest_difference(model, changed) < 1e-5


@pytest.mark.parametrize(
    ("opset", "options"),
    [
        (17, {"scales": (1.0, 1.0, 2.0, 2.0)}),
        (17, {"scales": (1.0, 1.0, 0.5, 0.25)}),
        (17, {"mode": "linear"}),
        (17, {"coordinate_transformation_mode": "asymmetric"}),
        (17, {"exclude_outside": 1}),
        (17, {"channels": 16}),
        (18, {"antialias": 1}),
    ],
)
def test_other_resizing_is_left_alone(opset: int, options: dict[str, object]) -> None:
    changed, places = rewritten(halving_net(opset, **options), "halve")  # type: ignore[arg-type]
    assert places == 0
    assert operators(changed)["Resize"] == 1
