"""Fixed-size nets from bricks that bake batch, height and width into their numbers, as exporters do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 4
WINDOW = 8


class Net:
    """A net at one size, built brick by brick; the same bricks and size give the same weights."""

    def __init__(self, batch: int, height: int, width: int, opset: int = 17) -> None:
        self.batch, self.height, self.width, self.opset = batch, height, width, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(5)
        self.x = "input"
        self.conv(3, FEATURES)

    @property
    def shape(self) -> list[int]:
        return [self.batch, FEATURES, self.height, self.width]

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names[0]

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        return self.constant(self._rng.normal(0, scale, shape).astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.ints(*shape))

    def turn(self, x: str, *order: int) -> str:
        return self.node("Transpose", x, perm=order)

    def add(self, y: str) -> None:
        self.x = self.node("Add", self.x, y)

    def conv(self, before: int = FEATURES, after: int = FEATURES, stride: int = 1) -> None:
        kernel = self.weight(after, before, 3, 3)
        self.x = self.node("Conv", self.x, kernel, pads=[1] * 4, strides=[stride] * 2)

    # The bricks; each keeps the shape.

    def flat(self) -> None:
        """Tokens and back, the batch baked into both."""
        flat = self.reshape(self.x, self.batch, FEATURES, -1)
        self.add(self.reshape(self.node("Sigmoid", flat), *self.shape))

    def windows(self) -> None:
        """Window partition, a layer with a table for every place in the window, and back."""
        down, across, c, n = self.height // WINDOW, self.width // WINDOW, FEATURES, WINDOW
        last = self.turn(self.x, 0, 2, 3, 1)
        cut = self.turn(self.reshape(last, self.batch, down, n, across, n, c), 0, 1, 3, 2, 4, 5)
        tokens = self.reshape(cut, self.batch * down * across, n * n, c)
        tokens = self.node("MatMul", tokens, self.weight(c, c))
        tokens = self.node("Add", tokens, self.weight(n * n, c))
        tokens = self.node("Softmax", tokens, axis=1)
        cut = self.reshape(tokens, self.batch, down, across, n, n, c)
        last = self.reshape(
            self.turn(cut, 0, 1, 3, 2, 4, 5), self.batch, self.height, self.width, c
        )
        self.add(self.turn(last, 0, 3, 1, 2))

    def grid(self, table: bool = True) -> None:
        """As windows, but each takes its pixels from all over the image."""
        down, across, c, n = self.height // WINDOW, self.width // WINDOW, FEATURES, WINDOW
        last = self.turn(self.x, 0, 2, 3, 1)
        cut = self.turn(self.reshape(last, self.batch, n, down, n, across, c), 0, 2, 4, 1, 3, 5)
        tokens = self.reshape(cut, self.batch * down * across, n * n, c)
        if table:
            tokens = self.node("Add", tokens, self.weight(n * n, c))
        tokens = self.node(
            "Softmax", self.node("Mul", tokens, self.weight(1, 1, c, scale=9)), axis=1
        )
        cut = self.reshape(tokens, self.batch, down, across, n, n, c)
        last = self.reshape(
            self.turn(cut, 0, 3, 1, 4, 2, 5), self.batch, self.height, self.width, c
        )
        self.add(self.turn(last, 0, 3, 1, 2))

    def shuffle(self) -> None:
        """Pixel shuffle by hand, then a convolution of stride 2."""
        self.conv(after=4 * FEATURES)
        cut = self.reshape(self.x, self.batch, FEATURES, 2, 2, self.height, self.width)
        cut = self.turn(cut, 0, 1, 4, 2, 5, 3)
        self.x = self.reshape(cut, self.batch, FEATURES, 2 * self.height, 2 * self.width)
        self.conv(stride=2)

    def crop(self) -> None:
        """Padding, and a Slice that ends at a baked number."""
        pads = self.ints(0, 0, 2, 3, 0, 0, 2, 3)
        padded = self.node("Pad", self.x, pads, mode="reflect")
        ends = self.ints(self.height + 2, self.width + 3)
        self.add(self.node("Slice", padded, self.ints(2, 3), ends, self.ints(2, 3)))

    def roll(self) -> None:
        """A cyclic shift by four rows, counted from the top."""
        axis = self.ints(2)
        low = self.node("Slice", self.x, self.ints(self.height - 4), self.ints(self.height), axis)
        high = self.node("Slice", self.x, self.ints(0), self.ints(self.height - 4), axis)
        self.add(self.node("Concat", low, high, axis=2))

    def expand(self) -> None:
        self.add(self.node("Expand", self.weight(1, FEATURES, 1, 1), self.ints(*self.shape)))

    def tile(self) -> None:
        repeats = self.ints(self.batch, 1, self.height, self.width)
        self.add(self.node("Tile", self.weight(1, FEATURES, 1, 1), repeats))

    def token(self) -> None:
        """A learned token, expanded to the batch, joined on and cut off again."""
        flat = self.reshape(self.x, self.batch, FEATURES, self.height * self.width)
        learned = self.node(
            "Expand", self.weight(1, FEATURES, 1), self.ints(self.batch, FEATURES, 1)
        )
        joined = self.node("Concat", learned, flat, axis=2)
        whole = self.ints(self.height * self.width + 1)
        cut = self.node("Slice", joined, self.ints(1), whole, self.ints(2))
        self.x = self.reshape(cut, *self.shape)

    def resize(self) -> None:
        small = self.node("AveragePool", self.x, kernel_shape=[2, 2], strides=[2, 2])
        self.add(self.node("Resize", small, "", "", self.ints(*self.shape), mode="linear"))

    def plane(self) -> None:
        """A noise level as a plane, made by ConstantOfShape."""
        value = numpy_helper.from_array(np.array([0.5], np.float32))
        shape = self.ints(self.batch, 1, self.height, self.width)
        plane = self.node("ConstantOfShape", shape, value=value)
        self.x = self.node("Concat", self.x, plane, axis=1)
        self.conv(before=FEATURES + 1)

    def stored_plane(self) -> None:
        """The same, stored in the file."""
        plane = np.full((self.batch, 1, self.height, self.width), 0.5, np.float32)
        self.x = self.node("Concat", self.x, self.constant(plane), axis=1)
        self.conv(before=FEATURES + 1)

    def stored_bias(self) -> None:
        """A bias per channel, stored for every pixel."""
        bias = np.broadcast_to(np.arange(FEATURES, dtype=np.float32)[:, None, None], self.shape)
        self.add(self.constant(np.ascontiguousarray(bias)))

    def split(self) -> None:
        half = FEATURES // 2
        first = self.node("Split", self.x, self.ints(half, half), outputs=2, axis=1)
        self.x = self.node("Concat", first.replace("_0", "_1"), first, axis=1)

    def attention(self) -> None:
        """Channel attention through a matrix product on the pooled batch."""
        pooled = self.reshape(self.node("GlobalAveragePool", self.x), self.batch, FEATURES)
        gate = self.node("Gemm", pooled, self.weight(FEATURES, FEATURES))
        gate = self.reshape(self.node("Sigmoid", gate), self.batch, FEATURES, 1, 1)
        self.x = self.node("Mul", self.x, gate)

    def pooled(self) -> None:
        """Global pooling as a window of the fixed size."""
        kernel = [self.height, self.width]
        self.add(self.node("AveragePool", self.x, kernel_shape=kernel))

    def summed(self) -> None:
        """Global pooling as a sum and a baked number of pixels."""
        total = self.node("ReduceSum", self.x, self.ints(2, 3))
        share = self.constant(np.array(1 / (self.height * self.width), np.float32))
        self.x = self.node("Sub", self.x, self.node("Mul", total, share))

    def instances(self) -> None:
        """Instance norm with the images of the batch as more channels of one."""
        count = self.batch * FEATURES
        joined = self.reshape(self.x, 1, count, self.height, self.width)
        ones = [self.constant(np.full(count, v, np.float32)) for v in (1, 0)]
        self.x = self.reshape(self.node("InstanceNormalization", joined, *ones), *self.shape)

    def table(self) -> None:
        """A learned table for every pixel of the fixed size: no other size can be."""
        self.add(self.weight(1, FEATURES, self.height, self.width))

    def mean_of_batch(self) -> None:
        mean = self.node("ReduceMean", self.x, axes=[0], keepdims=1)
        self.x = self.node("Sub", self.x, mean)

    def softmax_of_batch(self) -> None:
        self.x = self.node("Softmax", self.x, axis=0)

    def model(self, dtype: str = "float32") -> onnx.ModelProto:
        """The net with a last convolution to RGB."""
        self.conv(after=3)
        return self.finish(self.x, [self.batch, 3, self.height, self.width])

    def finish(self, result: str, shape: Sequence[int | str]) -> onnx.ModelProto:
        """A model of the nodes so far."""
        last = helper.make_node("Identity", [result], ["output"], name="last")
        graph = helper.make_graph(
            [*self.nodes, last],
            "net",
            [
                helper.make_tensor_value_info(
                    "input", TensorProto.FLOAT, [self.batch, 3, self.height, self.width]
                )
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return model


LOCAL = (
    "flat", "windows", "shuffle", "crop", "expand", "tile", "token", "resize",
    "plane", "stored_plane", "stored_bias", "split", "roll",
)  # fmt: skip
GLOBAL = ("attention", "pooled")


def build(bricks: Sequence[str], batch: int, height: int, width: int) -> onnx.ModelProto:
    """A net of bricks at one size."""
    net = Net(batch, height, width)
    for brick in bricks:
        getattr(net, brick)()
    return net.model()
