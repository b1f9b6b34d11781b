"""Finds out what a model is: names and types from the file, the rest by running it on small inputs.

What a file says of its output dimensions is not believed; scale, size multiple, batch and reach are
measured. Value range and colour order cannot be measured: metadata tells, or the usual default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import ModelError, SettingsError
from srpipe.io.binding import Tensor
from srpipe.io.devices import Device
from srpipe.io.external_data import hash_model
from srpipe.io.model_sidecar import complete_metadata, warn_of_other_scale
from srpipe.io.session import Session
from srpipe.plan.geometry import round_up
from srpipe.plan.model_info import MAX_CHANNELS, Layout, ModelInfo
from srpipe.settings import ValueRange, parse_value_range

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_MULTIPLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 96, 128)
# Probes are at least this large, for models that pad by reflection.
_PROBE_PX = 32
_MAX_SCALE = 8
# A change of the result below this share of the range is no reach.
_REACH_TOLERANCE = 1e-3
_MAX_REACH_PX = 64
_MAX_MULTIPLE = 1024
# Tried in this order where the file leaves the number open.
_FREE_CHANNELS = (3, 1, 4)


@dataclass(frozen=True, slots=True)
class _Port:
    """How to call the model."""

    input_name: str
    output_name: str
    layout: Layout
    dtype: str
    channels: int
    batch: int | None
    height_px: int | None
    width_px: int | None
    value_range: ValueRange

    @property
    def span(self) -> float:
        """White less black."""
        return self.value_range[1] - self.value_range[0]

    def noise(self, batch: int, height: int, width: int, seed: int = 0) -> Tensor:
        shape = (batch, self.channels, height, width)
        values = np.random.default_rng(seed).random(shape, np.float32) * self.span
        return self.laid_out(values + np.float32(self.value_range[0]))

    def laid_out(self, nchw: Tensor) -> Tensor:
        array = nchw if self.layout == "NCHW" else nchw.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array, self.dtype)

    def nchw(self, array: Tensor) -> Tensor:
        return array if self.layout == "NCHW" else array.transpose(0, 3, 1, 2)

    def run(self, session: Session, batch: Tensor) -> Tensor | None:
        """The result as NCHW, or None where the model fails or gives no batch of images."""
        result = session.run_free(self.input_name, self.output_name, batch)
        if result is None or result.ndim != 4 or len(result) != len(batch):
            return None
        return self.nchw(result)


def probe_model(
    path: str | os.PathLike[str],
    device: str = "cpu",
    threads: int = 0,
    *,
    value_range: ValueRange | None = None,
) -> ModelInfo:
    """Load a model and find out what it does.

    Args:
        path: an .onnx file.
        device: where to run the probes.
        threads: cores to use, 0 for all.
        value_range: what black and white are in its numbers, whatever its metadata say.

    Raises:
        ModelError: it cannot be loaded, or is no image-to-image model; the message says what it is.
    """
    name = os.fspath(path)
    wanted = Device.parse(device)
    if wanted.probing != wanted:
        Session(name, device, threads)  # whether it starts at all
    session = Session(name, str(wanted.probing), threads)
    metadata = session.metadata = complete_metadata(name, session.metadata)
    given = _value_range(name, metadata) if value_range is None else value_range
    reasons = []
    for port in _ports(name, session, given):
        try:
            multiple, scale = _find_scale(name, session, port, metadata)
        except ModelError as error:
            reasons.append(str(error))
            continue
        warn_of_other_scale(name, metadata, scale)
        return _measure(name, session, port, multiple, scale)
    raise ModelError(reasons[0])  # the likeliest way to call it


def read_model_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The key-value pairs of an .onnx file, without probing it.

    Raises:
        ModelError: it cannot be loaded.
    """
    name = os.fspath(path)
    return complete_metadata(name, Session(name, "cpu", 1).metadata)


def _measure(name: str, session: Session, port: _Port, multiple: int, scale: int) -> ModelInfo:
    batch, exact = _find_batch(session, port, multiple)
    file = Path(name)
    metadata = session.metadata
    return ModelInfo(
        path=name,
        name=" ".join(metadata.get("name", "").split()) or file.stem,
        sha256=hash_model(name),
        file_bytes=file.stat().st_size,
        input_name=port.input_name,
        output_name=port.output_name,
        layout=port.layout,
        dtype="float16" if port.dtype == "float16" else "float32",
        channels=port.channels,
        scale=scale,
        batch=batch,
        height_px=port.height_px,
        width_px=port.width_px,
        multiple_px=multiple,
        least_px=_find_least(session, port, multiple, scale),
        batch_exact=exact,
        radius_px=_find_radius(name, session, port, multiple, scale),
        value_range=port.value_range,
        white=_whole(name, metadata, "pixel_white"),
        bgr=port.channels == 3 and _is_bgr(name, metadata),
        tile_px=_whole(name, metadata, "tile_size"),
        metadata=metadata,
    )


def _value_range(name: str, metadata: dict[str, str]) -> ValueRange:
    try:
        return parse_value_range(metadata.get("value_range", "1"))
    except SettingsError as error:
        raise ModelError(f"{name} has unusable metadata: {error}") from None


def _is_bgr(name: str, metadata: dict[str, str]) -> bool:
    order = metadata.get("color_order", "rgb").lower()
    if order not in ("rgb", "bgr"):
        raise ModelError(f"{name} has metadata color_order={order!r}: it must be rgb or bgr.")
    return order == "bgr"


def _ports(name: str, session: Session, value_range: ValueRange) -> Iterator[_Port]:
    """The ways in which the model may be called, likeliest first."""
    inputs, outputs = session.inputs, session.outputs
    signature = f"{_signature(inputs)} in, {_signature(outputs)} out"
    images = [node for node in outputs if len(node.shape) in (0, 4)]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not images:
        raise ModelError(
            f"{name} is no image-to-image model ({signature}): srpipe needs one input and one output "
            "of four dimensions, batch, channels, height and width."
        )
    node, output = inputs[0], images[0]
    if node.type not in _DTYPES or output.type != node.type:
        raise ModelError(
            f"{name} works on {node.type} and {output.type} ({signature}): srpipe needs float32 or "
            "float16, the same in and out."
        )
    dims = [d if isinstance(d, int) and d > 0 else None for d in node.shape]
    ways = likely_layouts(dims)
    if not ways:
        raise ModelError(
            f"{name} takes no image of 1 to {MAX_CHANNELS} channels ({signature}): srpipe needs a "
            "model of grey, RGB or a few bands."
        )
    for layout, channels in ways:
        height, width = dims[2:4] if layout == "NCHW" else dims[1:3]
        yield _Port(
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


def _signature(nodes: list[Any]) -> str:
    return " and ".join(f"{node.name} {node.type}{list(node.shape)}" for node in nodes) or "nothing"


def _number(
    name: str, metadata: dict[str, str], key: str, default: float, most: int = 65535
) -> float:
    text = metadata.get(key)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise ModelError(
            f"{name} has metadata {key}={text!r}: it must be a number above 0, at most {most}."
        )
    return value


def _whole(name: str, metadata: dict[str, str], key: str) -> int | None:
    return max(1, int(_number(name, metadata, key, 1))) if key in metadata else None


def _find_scale(
    name: str, session: Session, port: _Port, metadata: dict[str, str]
) -> tuple[int, int]:
    """Scale and size multiple: the first at which two sizes work that share no larger measure."""
    free = port.height_px is None or port.width_px is None
    multiples = _MULTIPLES if free else (1,)
    if "size_multiple" in metadata:
        multiples = (max(1, int(_number(name, metadata, "size_multiple", 1, _MAX_MULTIPLE))),)
    seen = ""
    for multiple in multiples:
        height = _probe_px(multiple)
        width = height + multiple
        batch = port.noise(port.batch or 1, port.height_px or height, port.width_px or width)
        result = port.run(session, batch)
        if result is None:
            continue
        in_height, in_width = port.nchw(batch).shape[2:]
        _, out_channels, out_height, out_width = result.shape
        seen = f" (an input of {in_width}x{in_height} gives {out_width}x{out_height})"
        scale = out_height // in_height
        whole = (out_height, out_width) == (in_height * scale, in_width * scale)
        if whole and 1 <= scale <= _MAX_SCALE:
            if out_channels != port.channels:
                raise ModelError(
                    f"{name} takes {port.channels} channels and gives {out_channels}: srpipe needs a "
                    "model that gives as many as it takes."
                )
            return multiple, scale
    signature = f"{_signature(session.inputs)} in, {_signature(session.outputs)} out"
    raise ModelError(
        f"{name} is no image-to-image model that srpipe can use ({signature}): no input size gave an "
        f"output of the same channels, 1 to {_MAX_SCALE} times as large{seen}."
    )


def _probe_px(multiple: int) -> int:
    return round_up(_PROBE_PX, multiple)


def _find_batch(session: Session, port: _Port, multiple: int) -> tuple[int | None, bool]:
    """The fixed batch size if there is one, and whether a batch equals its tiles bit for bit."""
    height = port.height_px or _probe_px(multiple)
    width = port.width_px or _probe_px(multiple)
    n = port.batch or 2
    pair = port.noise(n, height, width)
    together = port.run(session, pair)
    if port.batch is not None:
        return port.batch, together is not None and _stays_put(session, port, pair, together)
    singles = [port.run(session, pair[i : i + 1]) for i in range(n)]
    if together is None or any(single is None for single in singles):
        return 1, True
    apart = np.concatenate([single for single in singles if single is not None])
    if not np.allclose(together, apart, rtol=0, atol=1e-2 * port.span):
        return 1, True  # the batch is baked in: entries mix
    return None, bool(np.array_equal(together, apart))


def _stays_put(session: Session, port: _Port, pair: Tensor, together: Tensor) -> bool:
    """Whether an entry of a fixed batch is the same in another place of the batch."""
    turned = port.run(session, np.ascontiguousarray(pair[::-1]))
    return turned is not None and bool(np.array_equal(turned[::-1], together))


def _find_least(session: Session, port: _Port, multiple: int, scale: int) -> int:
    """The smallest free size that works, a multiple."""
    if port.height_px is not None and port.width_px is not None:
        return 1
    size = multiple
    while size < 4 * _MAX_REACH_PX:
        height, width = port.height_px or size, port.width_px or size
        result = port.run(session, port.noise(port.batch or 1, height, width))
        if result is not None and result.shape[2:] == (height * scale, width * scale):
            return size
        size = max(multiple, size * 2 // multiple * multiple)
    return multiple


def _find_radius(name: str, session: Session, port: _Port, multiple: int, scale: int) -> int | None:
    """How far the left half of a tile reaches into the right half, input pixels."""
    told = session.metadata.get("receptive_radius_px", "")
    if told.isascii() and told.isdigit():
        return int(told)
    height = port.height_px or _probe_px(multiple)
    width = port.width_px or round_up(2 * _MAX_REACH_PX, multiple)
    half = width // 2
    first = port.noise(port.batch or 1, height, width, seed=1)
    before = port.run(session, first)
    if before is None or not np.isfinite(before).all():
        return None
    radius = 0
    other = port.nchw(port.noise(port.batch or 1, height, width, seed=2))[..., :half]
    # Dark as well: a model that pools globally may take no notice of other noise of the same mean.
    black = port.value_range[0]
    for left in (other, (other - black) / 4 + black):
        second = port.nchw(first).copy()
        second[..., :half] = left
        after = port.run(session, port.laid_out(second))
        if after is None or not np.isfinite(after).all():
            return None
        change = np.abs(after.astype(np.float32) - before.astype(np.float32))[..., half * scale :]
        reached = np.flatnonzero(change.max(axis=(0, 1, 2)) > _REACH_TOLERANCE * port.span)
        radius = max(radius, int(reached[-1]) // scale + 1 if len(reached) else 0)
    return radius if radius < width - half else None
