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

        If there is none, the one with the least loss.
        """
        best, best_loss = self._recipe, self._loss(self._recipe)
        if best_loss <= most:
            return best
        ranked = self._ranked()
        tried = 0
        step = 1
        while tried < len(ranked):
            tried = min(tried + step, len(ranked))
            step *= 2
            left = [name for group in ranked[:tried] for name in group]
            if sum(self._costs[name] for name in left) > _MOST_FLOAT * sum(self._costs.values()):
                break
            recipe = self._without(left)
            loss = self._loss(recipe)
            if loss < best_loss:
                best, best_loss = recipe, loss
            if loss <= most:
                break
        return best

    def _ranked(self) -> list[list[str]]:
        """Groups by what they gain for their cost, best first; those that gain nothing left out."""
        base = self._quick_loss(self._recipe)
        gains = [
            (base - self._quick_loss(self._without(group)))
            / sum(self._costs[name] for name in group)
            for group in self._groups
        ]
        order = sorted(range(len(gains)), key=lambda i: -gains[i])
        return [self._groups[i] for i in order if gains[i] > 0]

    def _without(self, names: list[str]) -> Recipe:
        return replace(self._recipe, chosen=self._recipe.chosen - set(names))
