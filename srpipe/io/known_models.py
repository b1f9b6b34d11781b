"""What probing found out about models, kept in the user's cache by all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from srpipe.io.cache import read_cached_json, write_cached_json
from srpipe.io.external_data import hash_model
from srpipe.io.model_sidecar import MAX_SIDECAR_BYTES, complete_metadata, sidecar_path
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import processor_name
from srpipe.io.small_files import read_small
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.plain import rebuild
from srpipe.settings import ValueRange

logger = logging.getLogger(__name__)

_KIND = "models"
# Of what probing does: to be raised where it comes to other results for the same model.
_VERSION = 1


class KnownModel:
    """A model's place in the cache."""

    def __init__(self, path: str, device: str, value_range: ValueRange | None) -> None:
        """Find the place of a model as it is now.

        Args:
            path: the .onnx file.
            device: where it is probed.
            value_range: what the caller says of black and white, None for nothing.

        Raises:
            ModelError: the file is no ONNX model, or keeps weights outside its folder.
        """
        self._path = path
        self._name: str | None = None
        self._content = ""
        if not os.path.isfile(path):
            return  # whoever loads it will say so
        self._content = hash_model(path)
        facts = {
            "content": self._content,
            "name": Path(path).name,
            "sidecar": _digest_of(sidecar_path(path)),
            "value range": value_range,
            "device": device,
            "processor": processor_name(),
            "onnxruntime": onnx_runtime_version(),
            "probe": _VERSION,
        }
        self._name = _digest(facts)

    def read(self) -> ModelInfo | None:
        """What is known of it; None where that is nothing, or damaged."""
        entry: Any = read_cached_json(_KIND, self._name) if self._name else None
        try:
            facts, props = entry["facts"], entry["props"]
            if entry["digest"] != _digest([facts, props]) or facts.keys() != _names():
                return None
            logger.debug("%s is known: it is not probed again", self._path)
            metadata = complete_metadata(self._path, props)  # warns of what cannot be used
            low, high = facts["value_range"]
            told = {"path": self._path, "value_range": (low, high), "metadata": metadata}
            info: ModelInfo = rebuild(ModelInfo, facts | told)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            return None
        return info

    def keep(self, info: ModelInfo, props: dict[str, str]) -> None:
        """Keep what was found out, unless the file was another one by then.

        Args:
            info: the model.
            props: the file's own key-value pairs.
        """
        if self._name is None or info.sha256 != self._content:
            return
        facts = asdict(info)
        entry = {"facts": facts, "props": props, "digest": _digest([facts, props])}
        write_cached_json(_KIND, self._name, entry)


def _names() -> set[str]:
    return {field.name for field in fields(ModelInfo)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest_of(sidecar: Path) -> str:
    try:
        return hashlib.sha256(read_small(sidecar, MAX_SIDECAR_BYTES)).hexdigest()
    except OSError:
        return ""
