"""Halving an image by cubic interpolation as one convolution.

Some x2 models compute x4 and halve it. ONNX Runtime's cubic Resize works pixel by pixel; halfway
between two pixels its four weights are always the same, so that it is a convolution with stride 2 over
the image with its edges repeated.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from srpipe.models.rewrite.editor import Editor, attribute

# A dense convolution is the fastest for the few channels of an image.
_MAX_CHANNELS = 4
_OPSET_WITH_SCALES = 11


def halve_by_convolution(graph: Editor) -> int:
    """Rewrite cubic Resize to half the size; returns how many there were."""
    places = 0
    for node in graph.nodes("Resize"):
        channels = graph.channels(node.input[0])
        if channels is None or channels > _MAX_CHANNELS or not _halves(graph, node):
            continue
        a = attribute(node, "cubic_coeff_a", -0.75)
        # Keys' cubic convolution (1981) at a distance of 1.5 and of 0.5.
        outer, inner = a / 8, 0.5 - a / 8
        taps = np.array([outer, inner, inner, outer])
        kernel = np.zeros((channels, channels, 4, 4), np.float32)
        kernel[range(channels), range(channels)] = np.outer(taps, taps)
        pads = graph.stored(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
        padded = graph.node("Pad", [node.input[0], pads], mode="edge")
        halved = graph.node(
            "Conv", [padded.output[0], graph.weight(kernel)], node.output[0], strides=[2, 2]
        )
        graph.replace([node], [padded, halved])
        places += 1
    return places


def _halves(graph: Editor, node: NodeProto) -> bool:
    scales = graph.floats(node.input[2]) if len(node.input) == 3 else None
    return (
        graph.opset >= _OPSET_WITH_SCALES
        and scales is not None
        and scales.tolist() == [1, 1, 0.5, 0.5]
        and attribute(node, "mode") == b"cubic"
        and attribute(node, "coordinate_transformation_mode", b"half_pixel") == b"half_pixel"
        and not attribute(node, "exclude_outside", 0)
        and not attribute(node, "antialias", 0)
        and attribute(node, "axes") is None
    )
