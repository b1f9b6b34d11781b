"""How a model can be called: its input and output, their layout and channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.session import Session
from srpipe.io.space import format_bytes
from srpipe.plan.model_info import MAX_CHANNELS, Layout, put_inside
from srpipe.settings import ValueRange

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
# In a batch of fixed size: 1 GB of float32.
_MAX_VALUES = 2**28
# Tried in this order where the file leaves the number open.
_FREE_CHANNELS = (3, 1, 4)


@dataclass(frozen=True, slots=True)
class Port:
    """One way to call a model."""

    input_name: str
    output_name: str
    layout: Layout
    dtype: str
    channels: int
    batch: int | None
    height_px: int | None
    width_px: int | None
    value_range: ValueRange
    lost_px: int = 0
    """See :class:`srpipe.plan.model_info.ModelInfo`; not known before it is measured."""

    @property
    def span(self) -> float:
        """White less black."""
        return self.value_range[1] - self.value_range[0]

    def noise(self, batch: int, height: int, width: int, seed: int = 0) -> Tensor:
        """Noise over the whole range, laid out as the model takes it."""
        shape = (batch, self.channels, height, width)
        values = np.random.default_rng(seed).random(shape, np.float32) * self.span
        return self.laid_out(values + np.float32(self.value_range[0]))

    def laid_out(self, nchw: Tensor) -> Tensor:
        """An NCHW array as the model takes it."""
        array = nchw if self.layout == "NCHW" else nchw.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array, self.dtype)

    def nchw(self, array: Tensor) -> Tensor:
        """An array of the model's as NCHW."""
        return array if self.layout == "NCHW" else array.transpose(0, 3, 1, 2)

    def run(self, session: Session, batch: Tensor) -> Tensor | None:
        """The result as NCHW, or None where the model fails or gives no batch of images."""
        result = session.run_free(self.input_name, self.output_name, batch)
        if result is None or result.ndim != 4 or len(result) != len(batch) or not result.size:
            return None
        return (
            put_inside(self.nchw(result), self.lost_px, "NCHW")
            if self.lost_px
            else self.nchw(result)
        )


def find_ports(
    name: str, session: Session, value_range: ValueRange, output_name: str | None = None
) -> Iterator[Port]:
    """The ways in which a model may be called: by its outputs, and of each the likeliest first.

    Args:
        name: the file, for messages.
        session: of the model.
        value_range: black and white in its numbers.
        output_name: the only output that counts; None: all of them.

    Raises:
        ModelError: there are none, because it is no image-to-image model or has no such output.
    """
    inputs, outputs = session.inputs, session.outputs
    ports = signature(session)
    images = [
        node for node in outputs if len(node.shape) in (0, 4) and output_name in (None, node.name)
    ]
    if output_name is not None and not images:
        raise ModelError(
            f"{name} has no image output named {output_name!r} ({ports}): name another with "
            "--output-name."
        )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not images:
        raise ModelError(
            f"{name} is no image-to-image model ({ports}): srpipe needs one input and one output "
            "of four dimensions, batch, channels, height and width."
        )
    node = inputs[0]
    fitting = [output for output in images if output.type == node.type]
    if node.type not in _DTYPES or not fitting:
        raise ModelError(
            f"{name} works on {node.type} and {images[0].type} ({ports}): srpipe needs float32 or "
            "float16, the same in and out."
        )
    dims = [d if isinstance(d, int) and d > 0 else None for d in node.shape]
    ways = likely_layouts(dims)
    if not ways:
        raise ModelError(
            f"{name} takes no image of 1 to {MAX_CHANNELS} channels ({ports}): srpipe needs a "
            "model of grey, RGB or a few bands."
        )
    values = math.prod(d or 1 for d in dims)
    if values > _MAX_VALUES:
        raise ModelError(
            f"{name} takes only batches of {' x '.join(str(d or 'any') for d in dims)} numbers "
            f"({format_bytes(4 * values)}; {ports}), which is more than a tile can be: try 'srpipe "
            "convert', which frees fixed sizes, or export it for smaller ones."
        )
    for output, (layout, channels) in product(fitting, ways):
        height, width = dims[2:4] if layout == "NCHW" else dims[1:3]
        yield Port(
            input_name=node.name,
            output_name=output.name,
            layout=layout,
            dtype=_DTYPES[node.type],
            channels=channels,
            batch=dims[0],
            height_px=height,
            width_px=width,
            value_range=value_range,
        )


def likely_layouts(dims: Sequence[int | None]) -> list[tuple[Layout, int]]:
    """Layout and channels that input dimensions allow, likeliest first.

    What the file says comes before what it leaves open; then RGB, then a square image, then the fewest
    channels.

    Args:
        dims: four, None where one is free.
    """
    told: list[tuple[Layout, int]] = []
    left_open: list[tuple[Layout, int]] = []
    layouts: tuple[tuple[Layout, int], ...] = (("NCHW", 1), ("NHWC", 3))
    for layout, axis in layouts:
        channels = dims[axis]
        if channels is None and dims[1] is None:
            left_open += [(layout, channels) for channels in _FREE_CHANNELS]
        elif channels is not None and channels <= MAX_CHANNELS:
            told.append((layout, channels))
    squares = {"NCHW": dims[2] == dims[3], "NHWC": dims[1] == dims[2]}
    told.sort(key=lambda way: (way[1] != 3, not squares[way[0]], way[1]))
    return told + left_open


def signature(session: Session) -> str:
    """What the file says of its inputs and outputs."""
    return f"{_describe(session.inputs)} in, {_describe(session.outputs)} out"


def _describe(nodes: list[Any]) -> str:
    return " and ".join(f"{node.name} {node.type}{list(node.shape)}" for node in nodes) or "nothing"
