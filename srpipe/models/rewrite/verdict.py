"""Which graph a job runs: found out once for a model, ONNX Runtime and processor, and kept.

Importing this is cheap; ONNX is only needed where nothing is kept yet.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from srpipe.errors import InferenceError, ModelError
from srpipe.io.cache import cache_folder, read_cached_json, write_cached, write_cached_json
from srpipe.io.child import most_bytes, try_out
from srpipe.io.external_data import hash_model
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import available_cores, processor_name
from srpipe.io.small_files import read_small
from srpipe.models.speed import rough_speed
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.plain import rebuild

logger = logging.getLogger(__name__)

# To be raised with every change of a rewrite, or of how they are chosen.
_VERSION = 1
_KIND = "graphs"
WORTHWHILE_S = 20.0
"""Work of less seconds than this would not earn what measuring costs."""
_MAX_GRAPH_BYTES = 2**31  # as much as protobuf takes


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
    kept: Rewritten | float | None = read_cached_json(_KIND, _key(info), _parse)
    if isinstance(kept, Rewritten) and _can_be_had(info.path, kept):
        return kept
    if not megapixels:
        return AS_IT_IS
    speed = rough_speed(info, "cpu", available_cores())
    if speed is None:
        return AS_IT_IS
    # Small jobs add up until they would have been worth it.
    total_s = megapixels / speed + (kept if isinstance(kept, float) else 0.0)
    if total_s < WORTHWHILE_S:
        write_cached_json(_KIND, _key(info), {"earlier_s": total_s})
        return AS_IT_IS
    from srpipe.models.rewrite import choose  # imports onnx

    choosing = partial(choose.choose_rewrites, info, choose.LEAST_GAIN, choose.ROUNDS)
    try:
        best = try_out(info.path, choosing, most_bytes())
    except (ModelError, InferenceError) as error:
        logger.info("The graph of %s is left as it is: %s", info.path, error)
        return AS_IT_IS
    # The file is read once more than when it was probed: what is kept must be of the same content.
    if hash_model(info.path) != info.sha256:
        return AS_IT_IS
    found = AS_IT_IS
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
    if kept := _kept_file(wanted):
        return kept[1]
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
    kept = _kept_file(wanted) if wanted.rewrites else None
    return replace(info, path=str(kept[0]), sha256=wanted.sha256) if kept else info


def _kept_file(wanted: Rewritten) -> tuple[Path, bytes] | None:
    """A rewritten graph's file and its content; None where that is not kept, or damaged."""
    folder = cache_folder(_KIND)
    if folder is None:
        return None
    path = folder / f"{wanted.sha256}.onnx"
    try:
        content = read_small(path, _MAX_GRAPH_BYTES)
    except OSError:
        return None
    return (path, content) if hashlib.sha256(content).hexdigest() == wanted.sha256 else None


def _can_be_had(path: str, wanted: Rewritten) -> bool:
    """Whether a rewritten graph is kept, or can be made again as it was."""
    if not wanted.rewrites:
        return True
    try:
        read_graph(path, wanted)
    except (ModelError, InferenceError):
        return False
    return True


def _key(info: ModelInfo) -> str:
    facts = (_VERSION, info.sha256, onnx_runtime_version(), processor_name(), info.value_range,
             info.output_name)  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _parse(value: Any) -> Rewritten | float:
    """What was kept: the graph, or the seconds of jobs too small to find anything out for."""
    if value.keys() == {"earlier_s"}:
        seconds = float(value["earlier_s"])
        if not 0 <= seconds < math.inf:
            raise ValueError("no work takes so long")
        return seconds
    found: Rewritten = rebuild(Rewritten, value)
    hashed = re.fullmatch("[0-9a-f]{64}", found.sha256) is not None
    if hashed != bool(found.rewrites) or bool(found.sha256) != hashed:
        raise ValueError("it is no hash of a graph")
    return found
