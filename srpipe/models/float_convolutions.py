"""Which convolutions to leave in float, where integers for all of them lose too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from srpipe.models.qdq import Graph, Recipe

# Trials: convolutions next to one another stand and fall together in deep models.
_MAX_TRIALS = 40
# Multiplications in float, of all: beyond it little is left to gain.
_MOST_FLOAT = 0.5


class FloatSearch:
    """Tries what leaving each convolution in float gains, and takes the best for their cost."""

    def __init__(
        self,
        model: onnx.ModelProto,
        recipe: Recipe,
        quick_loss: Callable[[Recipe], float],
        loss: Callable[[Recipe], float],
    ) -> None:
        """Nothing is run yet.

        Args:
            model: the float model.
            recipe: with all convolutions in integers.
            quick_loss: mean squared error of a recipe, good enough to compare.
            loss: the one that counts.
        """
        self._recipe, self._quick_loss, self._loss = recipe, quick_loss, loss
        graph = Graph(model)
        order = [node for node in graph.nodes if node.output[0] in recipe.chosen]
        size = -(-len(order) // _MAX_TRIALS)
        self._groups = [
            [str(node.output[0]) for node in order[i : i + size]]
            for i in range(0, len(order), size)
        ]
        # Multiplications for each pixel of the result; pixels are taken to be equally many.
        self._costs = {
            str(node.output[0]): float(np.prod(graph.floats(node.input[1]).shape)) for node in order
        }

    def run(self, most: float) -> Recipe:
        """The recipe with the fewest float convolutions whose loss is at most ``most``.

        If there is none with half of the work in integers, the one with the least loss.
        """
        loss = self._loss(self._recipe)
        if loss <= most:
            return self._recipe
        ranked = self._ranked()
        work = np.cumsum([self._work(group) for group in ranked])
        enough = int((work <= _MOST_FLOAT * sum(self._costs.values())).sum())
        recipe = self._first(ranked, enough)
        least = self._loss(recipe) if enough else loss
        if least > most:
            return recipe if least < loss else self._recipe
        too_few = 0
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            trial = self._first(ranked, middle)
            if self._loss(trial) <= most:
                enough, recipe = middle, trial
            else:
                too_few = middle
        return recipe

    def _first(self, ranked: list[list[str]], n: int) -> Recipe:
        """With the first ``n`` groups in float."""
        return self._without([name for group in ranked[:n] for name in group])

    def _work(self, group: list[str]) -> float:
        return sum(self._costs[name] for name in group)

    def _ranked(self) -> list[list[str]]:
        """Groups by what they gain for their cost, best first; those that gain nothing left out."""
        base = self._quick_loss(self._recipe)
        gains = [
            (base - self._quick_loss(self._without(group))) / self._work(group)
            for group in self._groups
        ]
        order = sorted(range(len(gains)), key=lambda i: -gains[i])
        return [self._groups[i] for i in order if gains[i] > 0]

    def _without(self, names: list[str]) -> Recipe:
        return replace(self._recipe, chosen=self._recipe.chosen - set(names))
