"""Weights that an ONNX model keeps in other files: which they are, and that they lie beside it.

Beside it is also beside the file that a link leads to: Hugging Face's cache keeps a model and its
weights as links to one folder of blobs.

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
_METADATA = 14
_MAX_DEPTH = 64
_MAX_BYTES = 2**31  # of a protobuf
_CHUNK_BYTES = 1 << 20


def external_files(model: str) -> list[str]:
    """Files beside a model that hold its weights, sorted; links are resolved.

    Raises:
        ModelError: one lies outside the model's folder or is no regular file, or the model's file is no
            ONNX model.
        OSError: the file cannot be read.
    """
    return sorted({external_file(model, location) for location in _read_locations(model)})


def external_file(model: str, location: str) -> str:
    """The file that a model names, which need not exist, without links.

    Raises:
        ModelError: it lies outside the model's folder and that of the file which the model is a link
            to, or is no regular file.
    """
    folders = _folders(model)
    path = folders[0]
    if "\0" not in location and not os.path.isabs(location):
        places = [folder / location for folder in folders]
        path = Path(os.path.realpath(next(filter(os.path.lexists, places), places[0])))
    if set(folders).isdisjoint(path.parents):
        raise ModelError(
            f"model {model} keeps weights in {location!r}, outside its own folder: that is refused; "
            "put the file beside the model."
        )
    if path.exists() and not path.is_file():
        raise ModelError(
            f"model {model} keeps weights in {location!r}, which is no regular file: that is refused."
        )
    return os.fspath(path)


def loadable_path(model: str) -> str:
    """The model's path for ONNX Runtime, which looks for weights beside it: a link's target where they
    do not lie beside the link.

    Raises:
        ModelError, OSError: as :func:`external_files`.
    """
    locations = _read_locations(model)
    beside = all(os.path.exists(Path(model).parent / location) for location in locations)
    return model if beside else os.path.realpath(model)


def has_links(model: str) -> bool:
    """Whether a model or its weights are reached by links, which some libraries refuse to follow.

    Raises:
        ModelError, OSError: as :func:`external_files`.
    """
    folder = Path(model).parent
    return any(
        external_file(model, location) != os.path.join(os.path.realpath(folder), location)
        for location in _read_locations(model)
    )


def files_bytes(model: str) -> int:
    """Bytes of a model and of the files that hold its weights; 0 for those that are missing.

    Raises:
        ModelError: as :func:`external_files`.
    """
    try:
        files = [model, *external_files(model)]
    except OSError:
        return 0
    return sum(os.path.getsize(file) for file in files if os.path.isfile(file))


def read_properties(model: str) -> dict[str, str]:
    """A model's key-value pairs, read without loading it.

    Raises:
        ModelError: it cannot be read, or is no ONNX model.
    """
    try:
        content = _map(model)
        entries = [dict(_fields(value)) for n, value in _fields(content) if n == _METADATA]
    except OSError as error:
        raise ModelError(f"model file {model} cannot be read ({error.strerror}).") from None
    except (ValueError, IndexError):
        raise _damaged(model) from None
    texts = [[str(bytes(entry.get(n, b"")), errors="replace") for n in (1, 2)] for entry in entries]
    return {key: value for key, value in texts}  # noqa: C416 (a list of lists is no list of pairs)


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


def _folders(model: str) -> list[Path]:
    """Where a model's weights may lie."""
    folders = (
        os.path.realpath(os.path.dirname(model) or "."),
        os.path.dirname(os.path.realpath(model)),
    )
    return [Path(folder) for folder in dict.fromkeys(folders)]


def _read_locations(model: str) -> set[str]:
    try:
        return set(_locations(_map(model), "model", 0))
    except (ValueError, IndexError):
        raise _damaged(model) from None


def _map(model: str) -> memoryview:
    with os.fdopen(open_regular(model), "rb") as file:
        if os.fstat(file.fileno()).st_size > _MAX_BYTES:
            raise ValueError("no protobuf")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _damaged(model: str) -> ModelError:
    return ModelError(
        f"{model} cannot be loaded as an ONNX model: it is damaged, or another kind of file."
    )


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
