from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators, rewritten

FEATURES = 16


class NormNet(Net):
    def norm(self, x: str, *, opset: int = 17, square: str = "Pow", eps_first: bool = False) -> str:
        """As exporters write it, up to the division."""

        def mean(x: str) -> str:
            if opset < 18:
                return self.add("ReduceMean", x, axes=[1])
            return self.add("ReduceMean", x, self.weight([1]))

        centred = self.add("Sub", x, mean(x))
        second = centred if square == "Mul" else self.weight(2.0)
        variance = mean(self.add(square, centred, second))
        eps = self.weight(1e-6)
        pair = (eps, variance) if eps_first else (variance, eps)
        return self.add("Div", centred, self.add("Sqrt", self.add("Add", *pair)))

    def affine(self, x: str, shape: tuple[int, ...] = (1, FEATURES, 1, 1)) -> str:
        gain, bias = self._rng.normal(1, 0.3, shape), self._rng.normal(0, 0.3, shape)
        return self.add("Add", self.add("Mul", self.weight(gain), x), self.weight(bias))


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_norms(opset: int, square: str, kernel: int) -> None:
    net = NormNet()
    x = net.norm(net.conv("input", 3, FEATURES), opset=opset, square=square, eps_first=kernel == 3)
    model = net.model(net.conv(net.affine(x), FEATURES, 3, kernel), opset)
    changed, places = rewritten(model, "norm")
    assert places == 1
    found = operators(changed)
    assert "ReduceMean" not in found
    assert found["Add"] == (0 if kernel == 1 else 1)  # a bias before padding cannot be moved
    assert largest_difference(model, changed) < 1e-5


def test_norms_without_gain_and_with_other_users() -> None:
    net = NormNet()
    x = net.norm(net.conv("input", 3, FEATURES))
    y = net.affine(net.norm(net.conv(x, FEATURES, FEATURES, 1)))
    x = net.add("Add", net.conv(y, FEATURES, FEATURES, 1), y)
    model = net.model(net.conv(x, FEATURES, 3))
    changed, places = rewritten(model, "norm")
    assert places == 2
    assert largest_difference(model, changed) < 1e-5


def test_a_gain_goes_into_all_convolutions_that_follow() -> None:
    net = NormNet()
    y = net.affine(net.norm(net.conv("input", 3, FEATURES)), (FEATURES, 1, 1))
    x = net.add("Mul", net.conv(y, FEATURES, 3, 1), net.conv(y, FEATURES, 3, 1))
    model = net.model(x)
    changed, places = rewritten(model, "norm")
    assert places == 1
    assert operators(changed)["Add"] == 0
    assert largest_difference(model, changed) < 1e-5


def test_a_mean_that_is_used_elsewhere_is_left_alone() -> None:
    net = NormNet()
    x = net.conv("input", 3, FEATURES)
    mean = net.add("ReduceMean", x, axes=[1])
    centred = net.add("Sub", x, mean)
    variance = net.add("ReduceMean", net.add("Mul", centred, centred), axes=[1])
    root = net.add("Sqrt", net.add("Add", variance, net.weight(1e-6)))
    y = net.add("Add", net.add("Div", centred, root), mean)
    assert rewritten(net.model(net.conv(y, FEATURES, 3)), "norm")[1] == 0


def test_norms_over_other_axes_are_left_alone() -> None:
    net = NormNet()
    x = net.conv("input", 3, FEATURES)
    centred = net.add("Sub", x, net.add("ReduceMean", x, axes=[2, 3]))
    variance = net.add("ReduceMean", net.add("Mul", centred, centred), axes=[2, 3])
    root = net.add("Sqrt", net.add("Add", variance, net.weight(np.array(1e-6))))
    model: onnx.ModelProto = net.model(net.conv(net.add("Div", centred, root), FEATURES, 3))
    assert rewritten(model, "norm")[1] == 0
