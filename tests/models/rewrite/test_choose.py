"""Which models are rewritten, and that none is whose results would change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from srpipe.errors import ModelError
from srpipe.io.model_probe import probe_model
from srpipe.models.graph import load_graph
from srpipe.models.half import to_half
from srpipe.models.rewrite import apply, choose
from srpipe.models.rewrite.apply import rewrite_graph
from srpipe.models.rewrite.check import TOLERANCE, Check
from srpipe.models.rewrite.choose import Candidates, choose_rewrites
from srpipe.models.rewrite.editor import Editor
from tests.models.nets import Net
from tests.models.rewrite.running import largest_difference, operators
from tests.models.rewrite.test_prelu import prelu_net
from tests.onnx_models import conv_model

SLOPES = np.linspace(-0.5, 1.5, 16, dtype=np.float32).reshape(16, 1, 1)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    path = tmp_path / "compact.onnx"
    onnx.save(prelu_net(SLOPES), path)
    return path


def test_candidates_compute_the_same(compact: Path) -> None:
    (found,) = Candidates(probe_model(compact)).single()
    assert found.names == ("prelu",)
    assert found.places == 2
    assert found.difference < 1e-5
    changed = onnx.load_model_from_string(found.content)
    assert largest_difference(onnx.load(compact), changed) < 1e-5
    assert rewrite_graph(load_graph(compact), ["prelu"]) == found.content


def test_several_rewrites_of_one_model(tmp_path: Path) -> None:
    path = tmp_path / "nafnet.onnx"
    onnx.save(Net().nafnet(), path)
    names = ("norm", "gate", "shuffle")
    info = probe_model(path)
    candidates = Candidates(info)
    # How the processor rounds decides whether the sums of a gate differ by less than the tolerance.
    found = {candidate.names: candidate for candidate in candidates.single()}
    assert {("norm",), ("shuffle",)} <= found.keys() <= {(name,) for name in names}
    assert all(candidate.difference <= TOLERANCE for candidate in found.values())
    content = rewrite_graph(load_graph(path), names)
    assert not {"ReduceMean", "Slice"} & operators(onnx.load_model_from_string(content)).keys()
    assert Check(path.read_bytes(), info).difference(content) < 10 * TOLERANCE
    both = candidates.make(("norm", "shuffle"))
    assert both is not None
    assert "ReduceMean" not in operators(onnx.load_model_from_string(both.content))


def test_metadata_stay(compact: Path) -> None:
    model = onnx.load(compact)
    onnx.helper.set_model_props(model, {"license": "CC0"})
    changed = onnx.load_model_from_string(rewrite_graph(model, ["prelu"]))
    assert [(entry.key, entry.value) for entry in changed.metadata_props] == [("license", "CC0")]


def test_a_rewrite_that_changes_results_is_left_alone(
    compact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: Editor) -> int:
        for node in graph.nodes("PRelu"):
            graph.replace([node], [graph.node("Relu", node.input[:1], node.output[0])])
        return 2

    monkeypatch.setitem(apply.REWRITES, "prelu", wrong)
    assert not list(Candidates(probe_model(compact)).single())


def test_half_precision_and_integers_are_left_alone(compact: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    onnx.save(to_half(onnx.load(compact)), half)
    assert not list(Candidates(probe_model(half)).single())
    model = onnx.load(compact)
    scale = onnx.numpy_helper.from_array(np.float32(0.01), "scale")
    model.graph.initializer.append(scale)
    model.graph.node[0].input[0] = "rounded"
    for node in (
        onnx.helper.make_node("DequantizeLinear", ["integers", "scale"], ["rounded"]),
        onnx.helper.make_node("QuantizeLinear", ["input", "scale"], ["integers"]),
    ):
        model.graph.node.insert(0, node)
    onnx.save(model, compact)
    assert not list(Candidates(probe_model(compact)).single())


def test_weights_in_other_files(compact: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(compact), outside, save_as_external_data=True, size_threshold=0, location="w.bin"
    )
    (found,) = Candidates(probe_model(outside)).single()
    assert found.difference < 1e-5
    assert rewrite_graph(load_graph(outside), ["prelu"]) == found.content


def test_a_model_with_the_channels_last(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.add("Transpose", "input", perm=[0, 3, 1, 2]), 3, 16)
    x = net.conv(net.add("PRelu", x, net.weight(SLOPES)), 16, 3)
    model = net.model(net.add("Transpose", x, perm=[0, 2, 3, 1]))
    for port in (model.graph.input[0], model.graph.output[0]):
        for dim, size in zip(port.type.tensor_type.shape.dim, ["n", "h", "w", 3], strict=True):
            dim.Clear()
            if isinstance(size, str):
                dim.dim_param = f"{port.name}_{size}"
            else:
                dim.dim_value = size
    path = tmp_path / "nhwc.onnx"
    onnx.save(model, path)
    info = probe_model(path)
    assert info.layout == "NHWC"
    (found,) = Candidates(info).single()
    assert found.difference < 1e-5


def test_nothing_is_measured_for_a_model_without_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(choose, "trial_tile")
    plain = conv_model(tmp_path / "plain.onnx", scale=1)
    assert choose_rewrites(probe_model(plain)) is None


def test_unknown_rewrites_are_refused(compact: Path) -> None:
    with pytest.raises(ModelError, match="no rewrite magic"):
        rewrite_graph(load_graph(compact), ["magic"])
