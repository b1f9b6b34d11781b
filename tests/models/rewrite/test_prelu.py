from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators, rewritten

FEATURES = 16


def prelu_net(slope: np.ndarray, opset: int = 17) -> onnx.ModelProto:
    """Two convolutions with a PReLU each, and one to RGB."""
    net = Net()
    x = net.add("PRelu", net.conv("input", 3, FEATURES), net.weight(slope))
    x = net.add("PRelu", net.conv(x, FEATURES, FEATURES), net.weight(slope))
    return net.model(net.conv(x, FEATURES, 3), opset)


@settings(max_examples=12)
@given(
    slope=st.lists(st.floats(-3, 3, width=32), min_size=FEATURES, max_size=FEATURES, unique=True),
    shape=st.sampled_from([(FEATURES, 1, 1), (1, FEATURES, 1, 1)]),
    opset=st.sampled_from([9, 11, 13, 16, 17, 18]),
)
def test_slopes_of_their_own(slope: list[float], shape: tuple[int, ...], opset: int) -> None:
    model = prelu_net(np.array(slope, np.float32).reshape(shape), opset)
    changed, places = rewritten(model, "prelu")
    assert places == 2
    assert "PRelu" not in operators(changed)
    assert largest_difference(model, changed) < 1e-5


@pytest.mark.parametrize("shape", [(FEATURES, 1, 1), (1, 1, 1), (1,), (), (1, 1, 1, 1)])
@pytest.mark.parametrize("slope", [0.25, 0.0, 1.0, -0.5, 1.5])
def test_one_slope_for_all_is_leaky_relu(shape: tuple[int, ...], slope: float) -> None:
    model = prelu_net(np.full(shape, slope, np.float32))
    changed, places = rewritten(model, "prelu")
    assert places == 2
    assert operators(changed)["LeakyRelu"] == 2
    assert largest_difference(model, changed) < 1e-5


def test_slopes_along_the_width_are_left_alone() -> None:
    net = Net()
    x = net.conv("input", 3, FEATURES)
    x = net.add("PRelu", x, net.weight(np.linspace(0, 1, 16).reshape(1, 1, 16)))
    model = net.model(net.conv(x, FEATURES, 3))
    changed, places = rewritten(model, "prelu")
    assert places == 0
    assert operators(changed)["PRelu"] == 1


def test_computed_slopes_are_left_alone() -> None:
    net = Net()
    x = net.conv("input", 3, FEATURES)
    x = net.add("PRelu", x, net.add("GlobalAveragePool", net.conv("input", 3, FEATURES)))
    assert rewritten(net.model(net.conv(x, FEATURES, 3)), "prelu")[1] == 0
