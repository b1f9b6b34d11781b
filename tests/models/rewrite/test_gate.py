from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators, rewritten

FEATURES = 16


class GateNet(Net):
    def depthwise(self, x: str, channels: int) -> str:
        kernel = self.weight(self._rng.normal(0, 0.3, (channels, 1, 3, 3)))
        bias = self.weight(self._rng.normal(0, 0.1, channels))
        return self.add("Conv", x, kernel, bias, group=channels, pads=[1] * 4)

    def split(self, x: str) -> str:
        self._nodes.append(onnx.helper.make_node("Split", [x], ["first", "second"], axis=1))
        return self.add("Mul", "first", "second")

    def computed_gate(self, x: str) -> str:
        """The half of the channels as the tensor's own size tells it, as exporters write it."""
        size = self.add("Gather", self.add("Shape", x), self.weight(np.array(1)), axis=0)
        axes = self.weight([0])
        half = self.add("Unsqueeze", self.add("Div", size, self.weight(np.array(2))), axes)
        whole = self.add("Mul", half, self.weight([2]))
        zero, one = self.weight([0]), self.weight([1])
        return self.add(
            "Mul", self.add("Slice", x, zero, half, one), self.add("Slice", x, half, whole, one)
        )


@pytest.mark.parametrize("gate", ["gate", "split", "computed_gate"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_gates(gate: str, depthwise: bool) -> None:
    net = GateNet()
    x = net.conv("input", 3, FEATURES)
    x = net.depthwise(x, FEATURES) if depthwise else x
    x = net.gate(x, FEATURES) if gate == "gate" else getattr(net, gate)(x)
    model = net.model(net.conv(x, FEATURES // 2, 3))
    changed, places = rewritten(model, "gate")
    assert places == 1
    assert not {"Slice", "Split", "Shape"} & operators(changed).keys()
    assert operators(changed)["Conv"] == (5 if depthwise else 3)
    assert largest_difference(model, changed) < 1e-6


def test_a_convolution_that_is_used_elsewhere_is_left_alone() -> None:
    net = GateNet()
    x = net.conv("input", 3, FEATURES)
    y = net.add("Concat", net.gate(x, FEATURES), x, axis=1)
    assert rewritten(net.model(net.conv(y, FEATURES * 3 // 2, 3)), "gate")[1] == 0


def test_a_grouped_convolution_is_left_alone() -> None:
    net = GateNet()
    kernel = net.weight(np.full((FEATURES, FEATURES // 2, 1, 1), 0.1))
    x = net.add("Conv", net.conv("input", 3, FEATURES), kernel, group=2)
    assert rewritten(net.model(net.conv(net.gate(x, FEATURES), 8, 3)), "gate")[1] == 0


def test_halves_that_are_not_cut_from_a_convolution_are_left_alone() -> None:
    net = GateNet()
    x = net.add("Relu", net.conv("input", 3, FEATURES))
    assert rewritten(net.model(net.conv(net.gate(x, FEATURES), 8, 3)), "gate")[1] == 0
