"""ONNX files as graphs: reading, writing and metadata, shared by all that changes a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from srpipe.errors import ModelError, OutputError
from srpipe.io.external_data import external_file, external_files


def load_graph(path: str | os.PathLike[str], *, external: bool = True) -> onnx.ModelProto:
    """Read an .onnx file.

    Args:
        path: the file.
        external: read its weights in other files too.

    Raises:
        ModelError: missing, damaged, or it keeps weights outside its folder.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        raise ModelError(f"{name} is a folder: name a model file.")
    if not os.path.isfile(name):
        raise ModelError(f"model file {name} does not exist: check the path.")
    external_files(name)
    try:
        model = onnx.load(name, load_external_data=False)
        if external:
            _load_weights(model, name)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{name} cannot be loaded as an ONNX model: {error}") from None
    return model


def _load_weights(model: onnx.ModelProto, path: str) -> None:
    """Read what a model keeps in other files; onnx itself follows no links."""
    for tensor in external_data_helper._get_all_tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        told = external_data_helper.ExternalDataInfo(tensor)
        with open(external_file(path, told.location), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = told.offset or 0
            length = size - offset if told.length is None else told.length
            if not (offset >= 0 and 0 <= length <= size - offset):
                raise ModelError(
                    f"{file.name}, which holds weights of {path}, ends before them: it is damaged."
                )
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The path of a model to write.

    Raises:
        OutputError: no .onnx name, no folder, or it exists and ``overwrite`` is not given.
    """
    path = Path(os.path.realpath(target))  # through a link, which stays
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name the .onnx file to write.")
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"{path} does not end in .onnx: the name of a model must end in .onnx.")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: name another file, or replace it with --overwrite.")
    return path


def save_graph(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write a model under a temporary name and rename it: a reader never finds a part of it.

    Raises:
        OutputError: the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))  # a link stays, and leads to the new model
    unfinished = target.with_name(f".{target.name}.part")
    try:
        onnx.save(model, unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise OutputError(
            f"{target} cannot be written ({error.strerror}): check the folder and its free space."
        ) from None


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The file's key-value pairs."""
    return {entry.key: entry.value for entry in model.metadata_props}


def add_metadata(model: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Set key-value pairs in place, keeping those under other keys."""
    onnx.helper.set_model_props(model, metadata_of(model) | dict(entries))


def write_metadata(path: str | os.PathLike[str], entries: Mapping[str, str]) -> None:
    """Set key-value pairs in an .onnx file, and change nothing else.

    Raises:
        ModelError: as :func:`load_graph`.
        OutputError: the folder cannot be written to.
    """
    model = load_graph(path, external=False)
    add_metadata(model, entries)
    save_graph(model, path)
