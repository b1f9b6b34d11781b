"""What probing found out about models, kept in the user's cache by all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from srpipe.io.cache import read_cached_json, write_cached_json
from srpipe.io.external_data import hash_model
from srpipe.io.model_sidecar import MAX_SIDECAR_BYTES, complete_metadata, sidecar_path
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import processor_name
from srpipe.io.small_files import read_small
from srpipe.plan.model_info import MAX_CHANNELS, MAX_SCALE, ModelInfo
from srpipe.plan.plain import rebuild
from srpipe.settings import ValueRange

logger = logging.getLogger(__name__)

_KIND = "models"
# Of what probing does: to be raised where it comes to other results for the same model.
_VERSION = 2


class KnownModel:
    """A model's place in the cache."""

    def __init__(
        self, path: str, device: str, value_range: ValueRange | None, output_name: str | None
    ) -> None:
        """Find the place of a model as it is now.

        Args:
            path: the .onnx file.
            device: where it is probed.
            value_range: what the caller says of black and white, None for nothing.
            output_name: the output that the caller wants, None for any.

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
            "output": output_name,
            "device": device,
            "processor": processor_name(),
            "onnxruntime": onnx_runtime_version(),
            "probe": _VERSION,
        }
        self._name = _digest(facts)

    def read(self) -> ModelInfo | None:
        """What is known of it; None where that is nothing, or damaged."""
        known: tuple[ModelInfo, dict[str, str]] | None = None
        if self._name is not None:
            known = read_cached_json(_KIND, self._name, _parse)
        if known is None:
            return None
        logger.debug("%s is known: it is not probed again", self._path)
        info, props = known
        metadata = complete_metadata(self._path, props)  # warns of what cannot be used
        return replace(info, path=self._path, metadata=metadata)

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


def _parse(entry: Any) -> tuple[ModelInfo, dict[str, str]]:
    facts, props = entry["facts"], entry["props"]
    if entry["digest"] != _digest([facts, props]):
        raise ValueError("its digest is that of another entry")
    if not all(isinstance(text, str) for pair in props.items() for text in pair):
        raise TypeError("key-value pairs are text")
    info = rebuild(ModelInfo, facts)
    fixed = [1 if size is None else size for size in (info.batch, info.height_px, info.width_px)]
    sizes = (info.scale, info.channels, info.multiple_px, info.least_px, *fixed)
    if min(sizes) < 1 or info.scale > MAX_SCALE or info.channels > MAX_CHANNELS or info.lost_px < 0:
        raise ValueError("no model has such sizes")
    if not -math.inf < info.value_range[0] < info.value_range[1] < math.inf:
        raise ValueError("black is not below white")
    return info, props


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest_of(sidecar: Path) -> str:
    try:
        return hashlib.sha256(read_small(sidecar, MAX_SIDECAR_BYTES)).hexdigest()
    except OSError:
        return ""
