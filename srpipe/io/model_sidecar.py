"""Metadata of a model file, with what others wrote in it and beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srpipe.io.small_files import parse_json, read_small
from srpipe.plan.model_metadata import read_foreign

logger = logging.getLogger(__name__)

# OpenModelDB's entries take a few kB.
MAX_SIDECAR_BYTES = 1_000_000


def complete_metadata(path: str, props: Mapping[str, str]) -> dict[str, str]:
    """The key-value pairs of a model file and what others say of it, the file's own first.

    Args:
        path: the .onnx file.
        props: its key-value pairs.
    """
    file = Path(path)
    return dict(props) | read_foreign(props, read_sidecar(sidecar_path(path)), file.name)


def sidecar_path(path: str) -> Path:
    """Where the JSON file that describes a model would be."""
    return Path(path).with_suffix(".json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None, with a warning, if it is damaged, and None without one."""
    content = sidecar_content(path)
    if content is None:
        return None
    try:
        sidecar = parse_json(content)
    except ValueError as error:
        logger.warning("%s is no JSON (%s): it is ignored.", path, error)
        return None
    return sidecar if isinstance(sidecar, dict) else None


def sidecar_content(path: Path) -> bytes | None:
    """What is in a file that may describe a model; None, with a warning, if it cannot be read."""
    try:
        return read_small(path, MAX_SIDECAR_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read (%s): it is ignored.", path, error.strerror)
        return None


def warn_of_other_scale(path: str, metadata: Mapping[str, str], scale: int) -> None:
    """Say so where a model's metadata or name speaks of another scale than it has."""
    told = metadata.get("scale", metadata.get("scale_hint", ""))
    try:
        differs = float(told) != scale
    except ValueError:  # it says nothing
        return
    if differs:
        logger.warning(
            "%s enlarges %d times, though its metadata or name says %.20s: check that it is the "
            "model you mean.",
            path,
            scale,
            told,
        )
