"""Finds out which rewrites a model gains from on this machine."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.processor import available_cores
from srpipe.models.graph import load_graph
from srpipe.models.rewrite.apply import REWRITES, can_be_rewritten, rewrite_settled
from srpipe.models.rewrite.check import TOLERANCE, Check, laid_out, tile_shape
from srpipe.models.rewrite.constants import settle_constants
from srpipe.models.speed import compare_speeds
from srpipe.plan.model_info import ModelInfo

logger = logging.getLogger(__name__)

LEAST_GAIN = 1.02
"""A rewrite that is not faster by this factor may only seem so."""
ROUNDS = 5
_TILE_PX = 128
# More runs at once than this need memory, and show nothing new.
_MAX_CORES = 4
# A model so large takes seconds even to look through.
_LARGE_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """The original with some rewrites, found to compute the same."""

    names: tuple[str, ...]
    content: bytes
    """Serialized, with all weights."""
    places: int
    """Where the last rewrite changed the graph."""
    difference: float
    """The largest seen, as a share of the range."""


class Candidates:
    """Makes rewritten graphs of one model, and checks them."""

    def __init__(self, info: ModelInfo) -> None:
        """Read the model.

        Raises:
            ModelError: it cannot be read.
        """
        self._info = info
        model = load_graph(info.path)
        self._original = model if can_be_rewritten(model) else None
        self._settled: onnx.ModelProto | None = None
        self._check: Check | None = None

    def make(self, names: tuple[str, ...]) -> Candidate | None:
        """The graph with these rewrites; None where the last one finds nothing, or changes results.

        No names: with its constants settled only.
        """
        if self._original is None:
            return None
        try:
            self._settled = self._settled or settle_constants(self._original)
            rewritten, places = rewrite_settled(self._settled, names)
            if names and not places:
                return None
            content = bytes(rewritten.SerializeToString())
            self._check = self._check or Check(self._original.SerializeToString(), self._info)
            difference = self._check.difference(content)
        except ModelError as error:
            logger.debug("rewrites %s of %s: %s", names, self._info.path, error)
            return None
        logger.debug("rewrites %s of %s differ by %.1e", names, self._info.path, difference)
        return Candidate(names, content, places, difference) if difference <= TOLERANCE else None

    def single(self) -> Iterator[Candidate]:
        """Every rewrite that finds something, alone."""
        for name in REWRITES:
            candidate = self.make((name,))
            if candidate is not None:
                yield candidate


def choose_rewrites(
    info: ModelInfo, least_gain: float = LEAST_GAIN, rounds: int = ROUNDS
) -> Candidate | None:
    """The graph with all rewrites that make a model faster here; None: the original.

    One after the other is added to those already chosen, if it is measurably faster with it.

    Args:
        info: the model, on a CPU.
        least_gain: how many times as fast a rewrite must make it.
        rounds: of measuring.

    Raises:
        ModelError: the model cannot be read.
    """
    if info.file_bytes > _LARGE_BYTES:
        _say(info)
    candidates = Candidates(info)
    matching = [candidate.names[0] for candidate in candidates.single()]
    if not matching:
        return None
    if info.file_bytes <= _LARGE_BYTES:
        _say(info)
    tile = trial_tile(info)
    best: Candidate | None = None
    for name in matching:
        chosen = () if best is None else best.names
        candidate = candidates.make((*chosen, name))
        if candidate is not None and gain(info, candidate, best, tile, rounds) >= least_gain:
            best = candidate
    return best


def _say(info: ModelInfo) -> None:
    logger.warning("Finding out, once, whether %s runs faster with its graph rewritten.", info.name)


def trial_tile(info: ModelInfo, side_px: int = _TILE_PX) -> Tensor:
    """A tile of noise to measure with, about as large as asked for."""
    shape = tile_shape(info, side_px, side_px)
    low, high = info.value_range
    noise = np.random.default_rng(1).random(shape, np.float32)
    return laid_out(info, noise * np.float32(high - low) + np.float32(low))


def gain(
    info: ModelInfo,
    candidate: Candidate,
    base: Candidate | None,
    tile: Tensor,
    rounds: int = ROUNDS,
) -> float:
    """How many times as fast one graph is as another; None: as the original.

    By processor time: what else the machine does must not decide.
    """
    with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
        paths = [Path(info.path), Path(folder, "candidate.onnx")]
        paths[1].write_bytes(candidate.content)
        if base is not None:
            paths[0] = Path(folder, "base.onnx")
            paths[0].write_bytes(base.content)
        before, after = compare_speeds(paths, info, tile, _cores(), rounds, time.process_time)
    return after / before


def _cores() -> int:
    return min(available_cores(), _MAX_CORES)
