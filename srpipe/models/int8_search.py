"""Makes INT8 versions of one model, and finds the one to keep.

What costs accuracy is dealt with in this order: channels are equalised, ranges are clipped as far as it
pays, weights are rounded by their results, and convolutions that still harm most go back to float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.models.activations import look_inside
from srpipe.models.calibration import Shares
from srpipe.models.equalize import equalize
from srpipe.models.float_convolutions import FloatSearch
from srpipe.models.graph import save_graph
from srpipe.models.qdq import Graph, Range, Recipe, is_split, quantized_tensors, write_qdq
from srpipe.models.rounding import round_on_tiles
from srpipe.models.speed import compare_speeds
from srpipe.plan.model_info import ModelInfo

LEAST_PSNR_DB = 45.0
"""What an INT8 model is to keep of its float32 model's output."""

_MARGIN_DB = 0.5  # other tiles than those that decide may be worse
_CLIPS = (1.0, 0.85, 0.7, 0.55)
_BEST_PSNR_DB = 120.0
_QUICK_ROUNDS = 3  # forms differ by more than the machine's moods


@dataclass(frozen=True, slots=True)
class Candidate:
    """One INT8 version."""

    recipe: Recipe
    path: Path
    psnr_db: float


class Workbench:
    """One model on its tiles: builds INT8 versions and compares them with float32."""

    def __init__(
        self, info: ModelInfo, model: onnx.ModelProto, shares: Shares, cores: int, folder: Path
    ) -> None:
        graph = Graph(model)
        self.convolutions = [
            str(node.output[0]) for node in graph.nodes if graph.is_quantizable(node)
        ]
        if not self.convolutions:
            raise ModelError(
                f"{info.path} has no convolution with constant weights: nothing to quantise."
            )
        self._info, self._shares, self._cores, self._folder = info, shares, cores, folder
        self._model = equalize(model, self._peaks(model))
        self._graph = Graph(self._model)
        self._session = Session(info.path, "cpu", cores)
        self._last: tuple[Recipe, onnx.ModelProto] | None = None

    def best(self, source: Path, tile: Tensor) -> Candidate:
        """The first form that is accurate enough, the fastest first; or else the most accurate."""
        made = []
        for recipe in self._forms(source, tile):
            made.append(self._make(recipe))
            if made[-1].psnr_db >= LEAST_PSNR_DB:
                return made[-1]
        return max(made, key=lambda candidate: candidate.psnr_db)

    def _forms(self, source: Path, tile: Tensor) -> list[Recipe]:
        """All convolutions in integers, with PReLUs split where that can be and not; fastest first."""
        chosen = frozenset(self.convolutions)
        splits = any(is_split(self._graph, node, chosen) for node in self._graph.nodes)
        if not splits:
            return [self._clipped(chosen, split=False)]
        recipes = [self._clipped(chosen, split=split) for split in (True, False)]
        paths = [self._folder / f"form-{i}.onnx" for i in range(len(recipes))]
        for path, recipe in zip(paths, recipes, strict=True):
            save_graph(write_qdq(self._model, recipe), path)
        _, *speeds = compare_speeds([source, *paths], self._info, tile, self._cores, _QUICK_ROUNDS)
        return [recipes[i] for i in np.argsort(speeds)[::-1]]

    def _clipped(self, chosen: frozenset[str], *, split: bool) -> Recipe:
        """The recipe whose ranges are clipped as far as it pays."""
        return min((self._recipe(chosen, split, clip) for clip in _CLIPS), key=self._loss)

    def _make(self, recipe: Recipe) -> Candidate:
        """As few float convolutions as the accuracy allows."""
        search = FloatSearch(self._model, recipe, self._loss, self._rounded_loss)
        recipe = search.run(10 ** (-(LEAST_PSNR_DB + _MARGIN_DB) / 10))
        path = self._folder / f"final-{recipe.split}.onnx"
        save_graph(self._rounded(recipe), path)
        return Candidate(recipe, path, self.psnr_db(path, self._shares.deciding))

    def psnr_db(self, path: Path, tiles: Sequence[Tensor]) -> float:
        """A version against float32 on some tiles."""
        loss = self._mean_square(Session(str(path), "cpu", self._cores), tiles)
        return min(_BEST_PSNR_DB, -10 * math.log10(max(loss, 1e-30)))

    def _recipe(self, chosen: frozenset[str], split: bool, clip: float) -> Recipe:
        black, white = self._info.value_range
        ranges = {
            name: Range(min(low * clip, 0.0), max(high * clip, 0.0))
            for name, (low, high) in self._extremes.items()
        } | {self._info.input_name: Range(min(black, 0.0), white)}  # so that 8-bit pixels are exact
        return Recipe(chosen=chosen, ranges=ranges, split=split)

    @cached_property
    def _extremes(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of every tensor that may be rounded."""
        found: dict[str, tuple[float, float]] = {}

        def see(name: str, values: Tensor) -> None:
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(values.min())), max(high, float(values.max()))

        names = self._possible_tensors()
        look_inside(self._model, names, self._shares.calibration, self._cores, see)
        return found

    def _possible_tensors(self) -> list[str]:
        """With some convolutions left float, others than before are rounded."""
        alone = [quantized_tensors(self._graph, {name}) for name in self.convolutions]
        return list(dict.fromkeys(name for names in alone for name in names))

    def _peaks(self, model: onnx.ModelProto) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def see(name: str, values: Tensor) -> None:
            peaks = np.abs(values).max(axis=(1, 2))
            found[name] = np.maximum(found[name], peaks) if name in found else peaks

        look_inside(model, self.convolutions, self._shares.calibration, self._cores, see)
        return found

    def _rounded(self, recipe: Recipe) -> onnx.ModelProto:
        if self._last is None or self._last[0] != recipe:
            calibration = self._shares.calibration
            integers = round_on_tiles(self._model, recipe, calibration, self._cores)
            self._last = recipe, write_qdq(self._model, recipe, integers)
        return self._last[1]

    def _loss(self, recipe: Recipe) -> float:
        return self._loss_of(write_qdq(self._model, recipe))

    def _rounded_loss(self, recipe: Recipe) -> float:
        return self._loss_of(self._rounded(recipe))

    def _loss_of(self, model: onnx.ModelProto) -> float:
        path = self._folder / "trial.onnx"
        save_graph(model, path)
        return self._mean_square(Session(str(path), "cpu", self._cores), self._shares.deciding)

    def _mean_square(self, session: Session, tiles: Sequence[Tensor]) -> float:
        """Mean squared difference from float32, of the value range squared."""
        low, high = self._info.value_range
        squares = [
            float(np.mean((self._result(session, tile) - self._result(self._session, tile)) ** 2))
            for tile in tiles
        ]
        return float(np.mean(squares)) / (high - low) ** 2

    def _result(self, session: Session, tile: Tensor) -> Tensor:
        names = [self._info.output_name]
        (result,) = session.run_several(self._info.input_name, names, tile)
        return np.clip(result, *self._info.value_range)
