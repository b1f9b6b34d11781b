from __future__ import annotations

import onnx
import pytest

from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators, rewritten


def shuffling_net(side: int, mode: str | None = None, opset: int = 17) -> onnx.ModelProto:
    net = Net()
    x = net.conv("input", 3, 3 * side**2)
    how = {} if mode is None else {"mode": mode}
    return net.model(net.add("DepthToSpace", x, blocksize=side, **how), opset)


@pytest.mark.parametrize("opset", [15, 17, 19])
@pytest.mark.parametrize("side", [2, 3, 4])
def test_a_shuffle_becomes_two_transpositions_to_the_bit(side: int, opset: int) -> None:
    model = shuffling_net(side, opset=opset)
    changed, places = rewritten(model, "shuffle")
    assert places == 1
    assert operators(changed)["Transpose"] == 2
    assert "DepthToSpace" not in operators(changed)
    assert largest_difference(model, changed) == 0


@pytest.mark.parametrize(("mode", "opset"), [("CRD", 17), ("DCR", 13)])
def test_other_shuffles_are_left_alone(mode: str, opset: int) -> None:
    changed, places = rewritten(shuffling_net(2, mode, opset), "shuffle")
    assert places == 0
    assert operators(changed)["DepthToSpace"] == 1
