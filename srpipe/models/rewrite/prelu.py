"""PReLU as operators of the blocked layout.

ONNX Runtime fuses ReLU and LeakyReLU into its blocked convolutions, but not PReLU, for which every
tensor leaves the layout and comes back. With one slope for all channels PReLU is LeakyReLU. With a
slope a for each, PReLU(x) = x + (1 - a) ReLU(-x): two convolutions of a single weight per channel,
the first with ReLU fused into it and the second with the sum.
"""

from __future__ import annotations

import numpy as np

from srpipe.models.rewrite.editor import Editor, Floats


def block_prelu(graph: Editor) -> int:
    """Rewrite PReLU with constant slopes; returns how many there were."""
    places = 0
    for node in graph.nodes("PRelu"):
        x, y = node.input[0], node.output[0]
        slope, channels = graph.floats(node.input[1]), graph.channels(x)
        if slope is None or channels is None or not _per_channel(slope, channels):
            continue
        if (slope == slope.flat[0]).all():
            new = [graph.node("LeakyRelu", [x], y, alpha=float(slope.flat[0]))]
        else:
            slopes = slope.reshape(channels, 1, 1, 1)
            turned = graph.node("Conv", [x, graph.weight(-np.ones_like(slopes))], group=channels)
            below = graph.node("Relu", turned.output)
            change = graph.node("Conv", [below.output[0], graph.weight(1 - slopes)], group=channels)
            new = [turned, below, change, graph.node("Add", [change.output[0], x], y)]
        graph.replace([node], new)
        places += 1
    return places


def _per_channel(slope: Floats, channels: int) -> bool:
    """Whether slopes are one for all, or one for each channel of (batch, channel, y, x)."""
    shape = (1,) * (4 - slope.ndim) + slope.shape
    return shape in ((1, 1, 1, 1), (1, channels, 1, 1))
