"""Proves a freed graph by running it: against the fixed model, and a batch against its tiles.

The batch has an exact reference. A larger size has none but the fixed model on a crop, whose middle
must come out the same; what gathers a whole image is muted in both, because it cannot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.models.freeing.inference import Value
from srpipe.models.freeing.ports import Port
from srpipe.models.freeing.search import NodeError, Reading, describe, global_results
from srpipe.models.freeing.worlds import BATCH, HEIGHT, WIDTH, Dim, Vector, Worlds
from srpipe.models.verify import Runner, largest_difference, noise_between
from srpipe.plan.geometry import round_up

_TILES = 3
_MOST_NAMED = 3
SAME_SHARES: dict[int, float] = {TensorProto.FLOAT: 1e-4, TensorProto.FLOAT16: 2e-2}
"""By ONNX's number of a type: what another order of sums may change, as a share of the range."""
# What a far border may change, likewise.
_NEAR: dict[int, float] = {TensorProto.FLOAT: 1e-3, TensorProto.FLOAT16: 3e-2}
_FLOATS = tuple(SAME_SHARES)


class Proof:
    """The runs that a freed model has to pass."""

    def __init__(
        self,
        original: onnx.ModelProto,
        freed: onnx.ModelProto,
        port: Port,
        worlds: Worlds,
        reading: Reading,
    ) -> None:
        self._original, self._freed = original, freed
        self._port, self._worlds, self._reading = port, worlds, reading
        given = reading.values[port.input_name]
        self._dtype = given.dtype
        self._shape = [dim.vector[0] for dim in given.dims]
        self._runner = Runner(freed.SerializeToString())
        self._reference = Runner(original.SerializeToString())

    def check(self) -> None:
        """Run everything.

        Raises:
            NodeError: a run fails or differs; it names the node.
            ModelError: the given model fails.
        """
        self._check_same()
        self._check_batch()
        if any(axis in self._worlds.free for axis in (HEIGHT, WIDTH)):
            self._check_size()

    def _check_same(self) -> None:
        """At the fixed size the freed model is the fixed one."""
        tiles = self._noise({})
        result, expected = self._runner.try_run(tiles), self._reference.try_run(tiles)
        if expected is None:
            raise ModelError(
                f"the model fails on an input of {self._shape}, which it declares itself: there is "
                "nothing to compare with."
            )
        if result is None or not self._near(result, expected, SAME_SHARES):
            raise NodeError(
                "the rewritten graph gives another result than the model"
                f" ({self._suspects() or 'no node was rewritten'})"
            )

    def _check_batch(self) -> None:
        if self._worlds.free[0] != BATCH:
            return
        tiles = self._noise({BATCH: _TILES})
        together = self._runner.try_run(tiles)
        if together is None:
            raise NodeError(f"the rewritten graph takes no batch of {_TILES} ({self._suspects()})")
        axis = self._port.axes[BATCH]
        singles = [tiles.take([i], axis) for i in range(_TILES)]
        apart = [self._runner.try_run(single) for single in singles]
        joined = [single for single in apart if single is not None]
        if len(joined) == _TILES and self._near(together, np.concatenate(joined), SAME_SHARES):
            return
        raise NodeError(f"{self._mixing_node(tiles)}: it mixes the images of a batch")

    def _check_size(self) -> None:
        lattice = self._lattice()
        self._check_lattice(lattice)
        unsure, counted = self._unsure(), self._counted()
        muted = []
        if unsure and not counted:
            muted = global_results(self._original, self._reading, self._worlds)
        unsure = [*unsure, *counted][:_MOST_NAMED]
        whole_model, crop_model = self._runner, self._reference
        if muted:
            whole_model = Runner(_mute(self._freed, muted).SerializeToString())
            crop_model = Runner(_mute(self._original, muted).SerializeToString())
        height, width = self._worlds.base[HEIGHT], self._worlds.base[WIDTH]
        more = [
            round_up(max(1, n // 4), lattice) * (i + 1) * (axis in self._worlds.free)
            for i, (axis, n) in enumerate(((HEIGHT, height), (WIDTH, width)))
        ]
        image = self._noise({HEIGHT: height + more[0], WIDTH: width + more[1]})
        result = whole_model.try_run(image)
        if result is None:
            raise NodeError(f"the rewritten graph fails at another size ({self._suspects()})")
        if not unsure:
            return
        for top, left in {(0, 0), (more[0], more[1])}:
            crop = self._cut(image, top, left, height, width)
            expected = crop_model.try_run(crop)
            if expected is None:
                raise NodeError(f"the model fails on a crop of {list(crop.shape)}")
            scale = expected.shape[self._port.axes[HEIGHT]] // height
            got = self._cut(result, *(scale * n for n in (top, left, height, width)))
            if not self._near(self._middle(got), self._middle(expected), _NEAR):
                raise NodeError(
                    f"{', '.join(unsure)}: running a larger image does not confirm what the numbers "
                    "mean (they are for one size, or pixels reach too far for this size to tell)"
                )

    def _check_lattice(self, lattice: int) -> None:
        """Sizes that are no plain multiples would never be tried by anybody."""
        sizes = {
            axis: round_up(self._worlds.base[axis], lattice) + lattice
            for axis in (HEIGHT, WIDTH)
            if axis in self._worlds.free
        }
        if self._runner.try_run(self._noise(sizes)) is None:
            raise NodeError(
                f"the rewritten graph fails at the size {list(sizes.values())} ({self._suspects()})"
            )

    def _lattice(self) -> int:
        """The step of height and width at which no number of the graph is rounded."""
        step = 1
        for value in self._reading.values.values():
            for dim in value.dims:
                for factor in dim.factors:
                    formula = self._worlds.fit(factor)
                    if formula is not None and len(formula.terms) == 1:
                        step = math.lcm(step, formula.coefficient.denominator)
        return step

    def _unsure(self) -> list[str]:
        """Nodes whose numbers could also mean something else at another size."""
        nodes = self._original.graph.node
        return [describe(nodes[i]) for i, edit in self._reading.edits.items() if not edit.sure]

    def _counted(self) -> list[str]:
        """Nodes that scale by what may be the number of pixels, as a mean written as a sum does."""
        counts = {
            dim.vector[0]
            for value in self._reading.values.values()
            for dim in (*value.dims, *_pairs(value.dims))
            if all(self._worlds.depends(dim.vector, axis) for axis in (HEIGHT, WIDTH))
        }
        powers = [count**power for count in counts if count > 1 for power in (1.0, 0.5, -0.5, -1.0)]
        found = []
        for node in self._original.graph.node:
            for name in node.input if node.op_type in ("Mul", "Div") else ():
                value = self._reading.values.get(name)
                array = value.constant if value is not None and value.dtype in _FLOATS else None
                if array is None or array.size != 1:
                    continue
                if np.isclose(powers, float(array.item()), rtol=1e-3, atol=0).any():
                    found.append(describe(node, name))
        return found

    def _suspects(self) -> str:
        nodes = self._original.graph.node
        changed = [describe(nodes[i]) for i, edit in self._reading.edits.items() if edit.changes]
        more = " and others" if len(changed) > _MOST_NAMED else ""
        return ", ".join(changed[:_MOST_NAMED]) + more

    def _noise(self, sizes: dict[int, int]) -> Tensor:
        shape = list(self._shape)
        for axis, size in sizes.items():
            shape[self._port.axes[axis]] = size
        return noise_between(shape, self._reference.value_range())

    def _near(self, a: Tensor, b: Tensor, shares: dict[int, float]) -> bool:
        finite = b[np.isfinite(b)]
        reach = float(np.ptp(finite)) if finite.size else 0.0
        return largest_difference(a, b) <= shares.get(self._dtype, 1e-4) * max(reach, 1e-6)

    def _cut(self, image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        index = [slice(None)] * 4
        index[self._port.axes[HEIGHT]] = slice(top, top + height)
        index[self._port.axes[WIDTH]] = slice(left, left + width)
        return image[tuple(index)]

    def _middle(self, image: Tensor) -> Tensor:
        height, width = (image.shape[self._port.axes[axis]] for axis in (HEIGHT, WIDTH))
        tall, wide = max(1, height // 8), max(1, width // 8)
        return self._cut(image, (height - tall) // 2, (width - wide) // 2, tall, wide)

    def _mixing_node(self, tiles: Tensor) -> str:
        """The first node at which a batch is no longer its images one by one, by halving."""
        nodes = [node for node in self._freed.graph.node if self._comparable(node)]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(self._freed)
        shown = {output.name for output in exposed.graph.output}
        exposed.graph.output.extend(
            helper.make_tensor_value_info(
                node.output[0], self._reading.values[node.output[0]].dtype, None
            )
            for node in nodes
            if node.output[0] not in shown
        )
        runner = Runner(exposed.SerializeToString())
        low, high = 0, len(nodes) - 1
        while low < high:
            middle = (low + high) // 2
            if self._mixes(runner, nodes[middle].output[0], tiles):
                high = middle
            else:
                low = middle + 1
        return describe(nodes[low]) if nodes else "the graph"

    def _comparable(self, node: onnx.NodeProto) -> bool:
        value = self._reading.values.get(node.output[0])
        return value is not None and value.dtype in _FLOATS and self._place(value) is not None

    def _place(self, value: Value) -> tuple[int, Sequence[Vector]] | None:
        """The dimension that holds the batch, and its factors."""
        batch = self._worlds.axis(BATCH).factors[0]
        for i, dim in enumerate(value.dims):
            if batch in dim.factors:
                return i, dim.factors
        return None

    def _mixes(self, runner: Runner, name: str, tiles: Tensor) -> bool:
        together = runner.try_run(tiles, name)
        axis = self._port.axes[BATCH]
        place = self._place(self._reading.values[name])
        if together is None or place is None:
            return True
        position, factors = place
        at = factors.index(self._worlds.axis(BATCH).factors[0])
        sizes = [factor[0] for factor in factors]
        sizes[at] = _TILES
        shape = together.shape
        apart = together.reshape(*shape[:position], *sizes, *shape[position + 1 :])
        for i in range(_TILES):
            single = runner.try_run(tiles.take([i], axis), name)
            part = apart.take([i], position + at)
            if single is None or part.size != single.size:
                return True
            if not self._near(part.reshape(single.shape), single, SAME_SHARES):
                return True
        return False


def _pairs(dims: Sequence[Dim]) -> list[Dim]:
    """Neighbouring dimensions as one: height and width as a number of pixels."""
    return [Dim(a.factors + b.factors) for a, b in itertools.pairwise(dims)]


def _mute(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A model in which some tensors are 0, and otherwise as before."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    nodes = []
    for node in new.graph.node:
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in names:
                node.output[i] = f"{name}/heard"
                nodes.append(helper.make_node("Sub", [f"{name}/heard"] * 2, [name]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del new.graph.node[:]
    new.graph.node.extend(copies)
    return new
