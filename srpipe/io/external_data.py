"""Weights that an ONNX model keeps in other files: which they are, and that they lie beside it.

ONNX Runtime reads whatever path a model names, in versions that are still in use anywhere on the
disk. The few fields that can name one are found in protobuf's wire format (protobuf.dev, "Encoding";
field numbers of onnx.proto) without loading anything.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from srpipe.errors import ModelError
from srpipe.io.small_files import open_regular

# Where tensors are, as paths of field numbers: ModelProto.graph, GraphProto.initializer, …
_MODEL = {7: "graph", 25: "function"}
_INSIDE = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}  # fmt: skip
_MAX_DEPTH = 64
_MAX_BYTES = 2**31  # of a protobuf
_CHUNK_BYTES = 1 << 20


def external_files(model: str) -> list[str]:
    """Files beside a model that hold its weights, sorted.

    Raises:
        ModelError: one lies outside the model's folder, or the file is no ONNX model.
        OSError: the file cannot be read.
    """
    try:
        with os.fdopen(open_regular(model), "rb") as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                raise ValueError("no protobuf")
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        locations = set(_locations(content, "model", 0))
    except (ValueError, IndexError):
        raise ModelError(
            f"{model} cannot be loaded as an ONNX model: it is damaged, or another kind of file."
        ) from None
    return sorted(_inside_folder(model, location) for location in locations)


def hash_model(model: str) -> str:
    """SHA-256 of a model and of the files that hold its weights.

    Raises:
        ModelError: as :func:`external_files`; or a file is missing.
    """
    sha256 = hashlib.sha256()
    files = (model, *external_files(model))
    try:
        for path in files:
            with os.fdopen(open_regular(path), "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    sha256.update(chunk)
    except OSError as error:
        raise ModelError(
            f"{error.filename}, which belongs to model {model}, cannot be read "
            f"({error.strerror}): keep them together."
        ) from None
    return sha256.hexdigest()


def _inside_folder(model: str, location: str) -> str:
    folder = Path(os.path.realpath(os.path.dirname(model) or "."))
    path = folder
    if "\0" not in location and not os.path.isabs(location):
        path = Path(os.path.realpath(folder / location))
    if folder not in path.parents:
        raise ModelError(
            f"model {model} keeps weights in {location!r}, outside its own folder: that is refused; "
            "put the file beside the model."
        )
    return os.fspath(path)


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    inside = _MODEL if kind == "model" else _INSIDE[kind]
    for number, value in _fields(message):
        if number not in inside:
            continue
        if inside[number] == "entry":
            entry = {n: bytes(v).decode(errors="surrogateescape") for n, v in _fields(value)}
            if entry.get(1) == "location":
                yield entry.get(2, "")
        else:
            yield from _locations(value, inside[number], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of the fields with a length; others are skipped."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        match key & 7:
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                length, position = _varint(message, position)
                if position + length > len(message):
                    raise ValueError("truncated")
                yield key >> 3, message[position : position + length]
                position += length
            case _:
                raise ValueError("no protobuf")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("no protobuf")
