"""Which graph a job runs: found out once for a model, ONNX Runtime and processor, and kept.

Importing this is cheap; ONNX is only needed where nothing is kept yet.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Any

from srpipe.errors import InferenceError, ModelError
from srpipe.io.cache import cache_folder, read_cached_json, write_cached, write_cached_json
from srpipe.io.external_data import hash_model
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import processor_name
from srpipe.plan.model_info import ModelInfo

logger = logging.getLogger(__name__)

# To be raised with every change of a rewrite, or of how they are chosen.
_VERSION = 1
_KIND = "graphs"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Which graph of a model to run; without rewrites, the file as it is."""

    rewrites: tuple[str, ...] = ()
    """Names of rewrites."""
    sha256: str = ""
    """Of the graph that they make."""


AS_IT_IS = Rewritten()


def find_graph(info: ModelInfo, megapixels: float) -> Rewritten:
    """The graph that is the fastest here, as far as is known or worth finding out.

    Args:
        info: the model, on a CPU.
        megapixels: work at hand, input pixels; 0: nothing is measured for it.
    """
    if info.dtype != "float32":
        return AS_IT_IS
    kept = _parse(read_cached_json(_KIND, _key(info)))
    if kept is not None or not megapixels:
        return kept or AS_IT_IS
    from srpipe.models.rewrite.choose import choose_rewrites  # imports onnx

    try:
        choice = choose_rewrites(info, megapixels)
    except (ModelError, InferenceError) as error:
        logger.info("The graph of %s is left as it is: %s", info.path, error)
        return AS_IT_IS
    # The file is read once more than when it was probed: what is kept must be of the same content.
    if not choice.final or hash_model(info.path) != info.sha256:
        return AS_IT_IS
    found, best = AS_IT_IS, choice.best
    if best is not None:
        found = Rewritten(best.names, hashlib.sha256(best.content).hexdigest())
        write_cached(_KIND, f"{found.sha256}.onnx", best.content)
    value = {"rewrites": list(found.rewrites), "sha256": found.sha256}
    write_cached_json(_KIND, _key(info), value)
    return found


def read_graph(path: str, wanted: Rewritten) -> bytes:
    """A rewritten graph, serialized, with all of its weights: as it was kept, or made again.

    Args:
        path: the original model.
        wanted: the rewrites, at least one.

    Raises:
        InferenceError: what the rewrites make now is another graph.
        ModelError: the original cannot be read.
    """
    folder = cache_folder(_KIND)
    if folder is not None:
        try:
            content = (folder / f"{wanted.sha256}.onnx").read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() == wanted.sha256:
            return content
    from srpipe.models.graph import load_graph  # imports onnx
    from srpipe.models.rewrite.apply import rewrite_graph

    content = rewrite_graph(load_graph(path), wanted.rewrites)
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise InferenceError(
            f"the rewritten graph of {path} that the job began with cannot be made again: start over "
            "with --fresh."
        )
    write_cached(_KIND, f"{wanted.sha256}.onnx", content)
    return content


def graph_info(info: ModelInfo, wanted: Rewritten) -> ModelInfo:
    """The model as if the rewritten graph were its file; unchanged where that is not kept."""
    folder = cache_folder(_KIND)
    path = folder / f"{wanted.sha256}.onnx" if folder and wanted.rewrites else None
    if path is None or not path.is_file():
        return info
    return replace(info, path=str(path), sha256=wanted.sha256)


def _key(info: ModelInfo) -> str:
    facts = (_VERSION, info.sha256, onnx_runtime_version(), processor_name(), info.value_range)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _parse(value: Any) -> Rewritten | None:
    """What was kept; None if it makes no sense."""
    try:
        rewrites, sha256 = value["rewrites"], value["sha256"]
    except (TypeError, KeyError):
        return None
    good = (
        isinstance(rewrites, list)
        and all(isinstance(name, str) for name in rewrites)
        and isinstance(sha256, str)
        and bool(rewrites) == bool(sha256)
    )
    return Rewritten(tuple(rewrites), sha256) if good else None
