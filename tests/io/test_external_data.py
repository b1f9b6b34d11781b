"""Weights in other files: inside the model's folder they count, outside they are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from srpipe.errors import ModelError
from srpipe.io.external_data import external_files, hash_model, read_properties
from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session
from srpipe.models.graph import load_graph
from srpipe.models.integer_input import take_integers
from srpipe.models.verify import Runner

_WEIGHTS = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)


def external_model(folder: Path, location: str, *, where: str = "initializer") -> Path:
    """The identity, its weights in another file."""
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[3, 3, 1, 1], data_location=TensorProto.EXTERNAL
    )
    facts = (("location", location), ("offset", "0"), ("length", str(_WEIGHTS.nbytes)))
    for key, value in facts:
        tensor.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Conv", ["input", "w"], ["output"])]
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("input", "output")
    ]
    graph = helper.make_graph(
        nodes, "identity", ports[:1], ports[1:], [tensor] if where == "initializer" else []
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with weights inside and outside it."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "weights.bin", folder / "sub" / "weights.bin", tmp_path / "secret.bin"):
        _WEIGHTS.tofile(path)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    return folder


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "sub/../weights.bin"])
def test_weights_beside_the_model_are_part_of_it(folder: Path, location: str) -> None:
    path = external_model(folder, location)
    assert external_files(str(path)) == [str((folder / location).resolve())]
    before = probe_model(path).sha256
    assert before == hash_model(str(path))
    (_WEIGHTS * 2).tofile(folder / location)
    assert hash_model(str(path)) != before


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize(
    "location", ["../secret.bin", "sub/../../secret.bin", "link.bin", "/dev/zero", "", "."]
)
def test_weights_elsewhere_are_refused(folder: Path, location: str, where: str) -> None:
    path = external_model(folder, location, where=where)
    for use in (probe_model, lambda p: Session(str(p), "cpu", 1)):
        with pytest.raises(ModelError, match="outside its own folder: that is refused"):
            use(path)


def hugging_face(folder: Path) -> Path:
    """A model and its weights as links to blobs, as in Hugging Face's cache."""
    snapshot, blobs = folder / "snapshots" / "abc", folder / "blobs"
    for place in (snapshot, blobs):
        place.mkdir(parents=True)
    external_model(snapshot, "weights.bin")
    _WEIGHTS.tofile(snapshot / "weights.bin")
    for name, blob in (("model.onnx", "111"), ("weights.bin", "222")):
        (snapshot / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("../../blobs", blob))
    return snapshot / "model.onnx"


def behind_a_link(folder: Path) -> Path:
    """A link to a model whose weights lie beside the model, and not beside the link."""
    (folder / "far").mkdir()
    external_model(folder / "far", "weights.bin")
    _WEIGHTS.tofile(folder / "far" / "weights.bin")
    (folder / "link.onnx").symlink_to(Path("far", "model.onnx"))
    return folder / "link.onnx"


@pytest.mark.parametrize("make", [hugging_face, behind_a_link])
def test_links_are_followed_to_the_folder_of_the_real_file(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    info = probe_model(path)
    assert info.scale == 1
    (weights,) = external_files(str(path))
    assert not Path(weights).is_symlink()
    batch = np.random.default_rng(0).random((1, 3, 40, 48), np.float32)
    for result in (
        Session(str(path), "cpu", 1).run_free("input", "output", batch),
        Runner(path).run(batch),
        Runner(load_graph(path).SerializeToString()).run(batch),
    ):
        np.testing.assert_array_equal(result, batch)
    table = np.linspace(0, 1, 256, dtype=np.float32)
    session = Session(str(path), "cpu", 1, take_integers(info, table))
    pixels = np.random.default_rng(0).integers(0, 256, batch.shape, np.uint8)
    result = np.zeros_like(batch)
    session.run(session.inputs[0].name, "output", pixels, result)
    np.testing.assert_array_equal(result, table[pixels])
    (np.eye(3, dtype=np.float32) * 2).reshape(3, 3, 1, 1).tofile(weights)
    assert hash_model(str(path)) != info.sha256


@pytest.mark.parametrize("make", [hugging_face, behind_a_link])
def test_a_link_does_not_lead_out_of_the_real_folder(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "cache" if make is hugging_face else tmp_path)
    _WEIGHTS.tofile(tmp_path / "secret.bin")
    (weights,) = map(Path, external_files(str(path)))
    named = path.parent / "weights.bin" if make is hugging_face else weights
    named.unlink()
    named.symlink_to(tmp_path / "secret.bin")
    if make is behind_a_link:
        path = path.resolve()
    for use in (probe_model, load_graph):
        with pytest.raises(ModelError, match="outside its own folder: that is refused"):
            use(path)


def test_weights_are_regular_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.bin")
    (folder / "subfolder").mkdir()
    for location in ("pipe.bin", "subfolder"):
        path = external_model(folder, location)
        for use in (probe_model, load_graph):
            with pytest.raises(ModelError, match="no regular file: that is refused"):
                use(path)


def test_weights_that_end_too_early(folder: Path) -> None:
    path = external_model(folder, "weights.bin")
    (folder / "weights.bin").write_bytes(b"1234")
    with pytest.raises(
        ModelError, match=r"weights\.bin, which holds weights of .* ends before them"
    ):
        load_graph(path)


def test_metadata_are_read_without_loading(folder: Path) -> None:
    path = external_model(folder, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    told = {"name": "ä ü", "empty": "", "long": "x" * 100_000}
    helper.set_model_props(model, told)
    path.write_bytes(model.SerializeToString())
    assert read_properties(str(path)) == told == Session(str(path), "cpu", 1).metadata
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="damaged, or another kind of file"):
        read_properties(str(path))


def test_missing_weights_are_named(folder: Path) -> None:
    path = external_model(folder, "gone.bin")
    with pytest.raises(ModelError, match="gone"):
        probe_model(path)
    with pytest.raises(ModelError, match=r"gone\.bin, which belongs to model"):
        hash_model(str(path))


def test_every_tensor_that_onnx_finds_is_found(folder: Path) -> None:
    path = external_model(folder, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=model.graph.initializer[0])], "b", [], []
    )
    branch.node[0].attribute[0].t.external_data[0].value = "sub/weights.bin"
    model.graph.node.append(
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    )
    path.write_bytes(model.SerializeToString())
    names = [Path(name).relative_to(folder.resolve()) for name in external_files(str(path))]
    assert sorted(map(str, names)) == ["sub/weights.bin", "weights.bin"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_end_in_a_list_or_a_model_error(folder: Path, data: st.DataObject) -> None:
    path = external_model(folder, "weights.bin")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        found = external_files(str(path))
    except ModelError:
        return
    assert all(Path(name).is_relative_to(folder.resolve()) for name in found)
