from __future__ import annotations

import numpy as np
import onnx

from srpipe.models.fold import fold_constants
from srpipe.models.trial import Trial
from tests.models.nets import Net


def test_constants_are_folded() -> None:
    net = Net()
    gain = net.add("Sqrt", net.add("Add", net.weight(3.0), net.weight(1.0)))
    model = net.model(net.add("Mul", net.conv("input", 3, 3), net.add("Identity", gain)))
    folded = fold_constants(model)
    onnx.checker.check_model(folded, full_check=True)
    assert len(folded.graph.node) <= 2 < len(model.graph.node)
    assert [entry.domain for entry in folded.opset_import] == [""]
    image = np.random.default_rng(0).random((2, 3, 9, 11), np.float32)
    expected = Trial(model).run(image)[0]
    np.testing.assert_allclose(Trial(folded).run(image)[0], expected, rtol=0, atol=1e-6)


def test_operators_stay_standard() -> None:
    folded = fold_constants(Net().nafnet())
    assert {node.domain for node in folded.graph.node} == {""}
