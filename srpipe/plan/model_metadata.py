"""What others write about a model, in srpipe's own words.

QGIS Deepness keeps JSON values in the file's metadata (its documentation, "Adding metadata to ONNX
model", and ``model_base.py``); ONNX has names for author and licence (onnx, MetadataProps.md);
OpenModelDB describes a model in a JSON file (its ``schema.ts``), which people keep beside the model;
file names speak of the scale (``4x_…``, ``…-x2``, ``…_x4plus``).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

logger = logging.getLogger(__name__)

_MAX_TEXT = 300
_MAX_HINT = 32
_MAX_TILE_PX = 65535
_MAX_VALUE = 65535
# Other people's names for what srpipe has a key for.
_TEXT_KEYS = {
    "model_name": "name",
    "model_author": "author",
    "model_license": "licence",
    "license": "licence",
    "description": "purpose",
}
_OPENMODELDB_KEYS = {"name", "architecture", "scale"}
# "4x_name" and "4xName" at the beginning; "name-x2", "name_x4plus", "name_2x" between separators.
_PREFIX = re.compile(r"(\d{1,2})x(?!\d)", re.IGNORECASE)
_INSIDE = re.compile(r"(?<![a-z\d])(?:x(\d{1,2})(?=plus|[^a-z\d]|$)|(\d{1,2})x(?![a-z\d]))")


def read_foreign(
    props: Mapping[str, str], sidecar: Mapping[str, Any] | None, file_name: str
) -> dict[str, str]:
    """Facts about a model that others wrote, under srpipe's keys.

    Args:
        props: the key-value pairs of the .onnx file.
        sidecar: the JSON object beside it, None without one.
        file_name: the model file's name, without its folder.

    Returns:
        Some of ``name``, ``author``, ``licence``, ``purpose``, ``architecture``, ``tile_size``,
        ``value_range`` and ``scale_hint``, none of which ``props`` has. What makes no sense is left
        out. A hint is no fact: only running the model tells its scale. ``props`` with a ``scale``
        need none.
    """
    found: dict[str, str] = {}
    for facts in (_from_props(props), _from_sidecar(sidecar or {}), _from_name(file_name)):
        for key, value in facts:
            if key not in props and not (key == "scale_hint" and "scale" in props):
                found.setdefault(key, value)
    return found


def scale_hint(file_name: str) -> int | None:
    """The scale a file name speaks of, None if it speaks of none or of several."""
    stem = file_name.rpartition(".")[0] or file_name
    prefix = _PREFIX.match(stem)
    texts = [prefix[1]] if prefix else [a or b for a, b in _INSIDE.findall(stem.lower())]
    hints = {int(text) for text in texts}
    return hints.pop() if len(hints) == 1 and 0 < min(hints) <= _MAX_HINT else None


def _from_props(props: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for theirs, ours in _TEXT_KEYS.items():
        if text := _text(props.get(theirs)):
            yield ours, text
    kind = _text(_decoded(props, "model_type"))
    if kind and not kind.isdigit():
        yield "purpose", kind
    # Its documentation says tiles_size, its code tile_size, which is srpipe's own key.
    size = _number(_decoded(props, "tiles_size"))
    if size is not None and size == int(size) and 0 < size <= _MAX_TILE_PX:
        yield "tile_size", str(int(size))
    yield from _standardization(props)


def _standardization(props: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(x - mean) / std on [0, 1], which is a value range where all channels share it."""
    means = _numbers(_decoded(props, "standardization_mean"))
    stds = _numbers(_decoded(props, "standardization_std"))
    if not means or not stds or len(means) != len(stds) or min(stds) <= 0:
        return
    if len(set(means)) > 1 or len(set(stds)) > 1:
        logger.warning(
            "standardization_mean %s and standardization_std %s differ from channel to channel, "
            "which srpipe cannot apply: they are ignored. Put them into the model itself.",
            means,
            stds,
        )
        return
    low, high = (0 - means[0]) / stds[0], (1 - means[0]) / stds[0]
    if (low, high) != (0, 1) and max(-low, high) <= _MAX_VALUE:
        yield "value_range", f"{low:.9g},{high:.9g}"


def _from_sidecar(sidecar: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not sidecar.keys() >= _OPENMODELDB_KEYS:
        if sidecar:
            logger.debug("the JSON beside the model is not OpenModelDB's: it is ignored")
        return
    authors = sidecar.get("author")
    authors = authors if isinstance(authors, list) else [authors]
    texts = {
        "name": _text(sidecar["name"]),
        "author": ", ".join(author for author in map(_text, authors) if author),
        "licence": _text(sidecar.get("license")),
        "purpose": _text(_first_line(sidecar.get("description"))),
        "architecture": _text(sidecar["architecture"]),
    }
    yield from ((key, text) for key, text in texts.items() if text)
    scale = _number(sidecar["scale"])
    if scale is not None and scale == int(scale) and 0 < scale <= _MAX_HINT:
        yield "scale_hint", str(int(scale))


def _from_name(file_name: str) -> Iterator[tuple[str, str]]:
    hint = scale_hint(file_name)
    if hint is not None:
        yield "scale_hint", str(hint)


def _decoded(props: Mapping[str, str], key: str) -> Any:
    """A Deepness value, which is JSON; None if there is none or it is not."""
    if key not in props:
        return None
    try:
        return json.loads(props[key])
    except (ValueError, RecursionError):
        logger.debug("metadata %s=%.80r is not JSON: it is ignored", key, props[key])
        return None


def _text(value: Any) -> str:
    """Printable text on one line, empty for anything else."""
    if not isinstance(value, str):
        return ""
    words = "".join(c if c.isprintable() else " " for c in value[: 4 * _MAX_TEXT]).split()
    return " ".join(words)[:_MAX_TEXT]


def _first_line(value: Any) -> Any:
    return value.strip().partition("\n")[0] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _numbers(value: Any) -> list[float]:
    values = [_number(v) for v in value] if isinstance(value, list) else [_number(value)]
    return [] if None in values else [v for v in values if v is not None]
