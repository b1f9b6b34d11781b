"""Finds out what a model is: names and types from the file, the rest by running it on small inputs.

What a file says of its output dimensions is not believed; scale, size multiple, batch and reach are
measured. Value range and colour order cannot be measured: metadata tells, or the usual default.
A child process with limits does it, and what was found out is kept in the user's cache.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from srpipe.errors import ModelError, OutOfMemoryError, SettingsError
from srpipe.io.binding import Tensor
from srpipe.io.child import model_bytes, try_out
from srpipe.io.devices import Device
from srpipe.io.external_data import files_bytes, hash_model, read_properties
from srpipe.io.known_models import KnownModel
from srpipe.io.model_port import Port, find_ports, signature
from srpipe.io.model_sidecar import complete_metadata, warn_of_other_scale
from srpipe.io.session import Session
from srpipe.plan.geometry import round_up
from srpipe.plan.model_info import MAX_SCALE, ModelInfo
from srpipe.settings import ValueRange, parse_value_range

logger = logging.getLogger(__name__)

_MULTIPLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 96, 128)
# Probes are at least this large, for models that pad by reflection.
_PROBE_PX = 32
_LARGE_PROBE_PX = 160
# A change of the result below this share of the range is no reach.
_REACH_TOLERANCE = 1e-3
_MAX_REACH_PX = 64
_MAX_MULTIPLE = 1024
_MAX_LENGTH_PX = 65535


def probe_model(
    path: str | os.PathLike[str],
    device: str = "cpu",
    threads: int = 0,
    *,
    value_range: ValueRange | None = None,
    output_name: str | None = None,
) -> ModelInfo:
    """Load a model and find out what it does.

    Args:
        path: an .onnx file.
        device: where to run the probes.
        threads: cores to use, 0 for all.
        value_range: what black and white are in its numbers, whatever its metadata say.
        output_name: the output to take; None: the image of the largest scale.

    Raises:
        ModelError: it cannot be loaded, or is no image-to-image model; the message says what it is.
    """
    name = os.fspath(path)
    wanted = Device.parse(device)
    entry = KnownModel(name, str(wanted.probing), value_range, output_name)
    info = entry.read()
    if info is None:
        # Only on the CPU is the memory that a model takes this machine's own.
        limit_bytes = model_bytes(files_bytes(name)) if wanted.kind == "cpu" else None
        probe = partial(_probe, name, wanted, threads, value_range, output_name)
        info, props = try_out(name, probe, limit_bytes)
        entry.keep(info, props)
    elif wanted.kind != "cpu":
        Session(name, device, threads)  # whether it starts at all
    warn_of_other_scale(name, info.metadata, info.scale)
    if info.outputs and output_name is None:
        logger.warning(
            "%s gives several images (%s): %s is taken, the first of the largest (--output-name "
            "chooses another).",
            name,
            ", ".join(info.outputs),
            info.output_name,
        )
    return info


def _probe(
    name: str,
    device: Device,
    threads: int,
    value_range: ValueRange | None,
    output_name: str | None,
) -> tuple[ModelInfo, dict[str, str]]:
    """What running the model tells, and the file's own key-value pairs."""
    if device.probing != device:
        Session(name, str(device), threads)  # whether it starts at all
    session = Session(name, str(device.probing), threads)
    props = dict(session.metadata)
    metadata = session.metadata = complete_metadata(name, props)
    given = _value_range(name, metadata) if value_range is None else value_range
    reasons = []
    found: dict[str, tuple[Port, int, int]] = {}
    for port in find_ports(name, session, given, output_name):
        if port.output_name not in found:
            try:
                found[port.output_name] = _find_scale(name, session, port, metadata)
            except ModelError as error:
                reasons.append(str(error))
    if not found:
        raise ModelError(reasons[0])  # the likeliest way to call it
    port, multiple, scale = max(found.values(), key=lambda way: way[2])
    several = [f"{output} x{way[2]}" for output, way in found.items() if len(found) > 1]
    info = replace(_measure(name, session, port, multiple, scale), outputs=tuple(several))
    return _with_halo(info, session if device.kind == "cpu" else None, threads), props


def _with_halo(info: ModelInfo, on_cpu: Session | None, threads: int) -> ModelInfo:
    told = _whole_from_0(info.metadata, "halo_px")
    if told is not None:
        return replace(info, halo_px=told, halo_from="metadata")
    from srpipe.models.halo import measure_halo  # only what was not probed before needs it

    try:
        halo = measure_halo(info, on_cpu or Session(info.path, "cpu", threads))
    except (ModelError, OutOfMemoryError) as error:  # of the session: what a CPU cannot run
        logger.info("the halo of %s cannot be measured: %s", info.name, error)
        return info
    if halo is None:
        return info
    return replace(info, halo_px=halo.px, halo_from="measured" if halo.exact else "balanced")


def read_model_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The key-value pairs of an .onnx file, without loading it.

    Raises:
        ModelError: it cannot be loaded.
    """
    name = os.fspath(path)
    return complete_metadata(name, read_properties(name))


def _measure(name: str, session: Session, port: Port, multiple: int, scale: int) -> ModelInfo:
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
        outputs=(),
        layout=port.layout,
        dtype="float16" if port.dtype == "float16" else "float32",
        channels=port.channels,
        scale=scale,
        lost_px=port.lost_px,
        batch=batch,
        height_px=port.height_px,
        width_px=port.width_px,
        multiple_px=multiple,
        least_px=_find_least(session, port, multiple, scale),
        batch_exact=exact,
        radius_px=_find_radius(session, port, multiple, scale),
        halo_px=None,
        halo_from=None,
        value_range=port.value_range,
        black=_pixel_value(name, metadata, "pixel_black"),
        white=_pixel_value(name, metadata, "pixel_white"),
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


def _pixel_value(name: str, metadata: dict[str, str], key: str) -> float | None:
    try:
        value = float(metadata[key]) if key in metadata else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise ModelError(f"{name} has metadata {key}={metadata[key]!r}: it must be a number.")
    return value


def _whole(name: str, metadata: dict[str, str], key: str) -> int | None:
    return max(1, int(_number(name, metadata, key, 1))) if key in metadata else None


def _whole_from_0(metadata: dict[str, str], key: str) -> int | None:
    """A length that metadata tell; None where they do not, or what they say is none."""
    told = metadata.get(key, "")
    return min(int(told), _MAX_LENGTH_PX) if told.isascii() and told.isdigit() else None


def _find_scale(
    name: str, session: Session, port: Port, metadata: dict[str, str]
) -> tuple[Port, int, int]:
    """The port with what is lost, the size multiple and the scale: the first multiple at which sizes
    work that share no larger measure.
    """
    free = port.height_px is None or port.width_px is None
    multiples = _MULTIPLES if free else (1,)
    if "size_multiple" in metadata:
        multiples = (max(1, int(_number(name, metadata, "size_multiple", 1, _MAX_MULTIPLE))),)
    seen = ""
    # Where convolutions without padding take much away, it takes larger images to see it.
    for least_px in (_PROBE_PX, _LARGE_PROBE_PX) if free else (_PROBE_PX,):
        for multiple in multiples:
            sizes = [port.height_px or round_up(least_px, multiple)]
            sizes.append(port.width_px or sizes[0] + multiple)
            shapes = _shapes(session, port, *sizes)
            if shapes is None:
                continue
            (in_height, in_width), (out_channels, out_height, out_width) = shapes
            seen = f" (an input of {in_width}x{in_height} gives {out_width}x{out_height})"
            law = _size_law((in_height, in_width), (out_height, out_width))
            if law is None or not 1 <= law[0] <= MAX_SCALE:
                continue
            if law[1] and not _holds(session, port, multiple, sizes, law):
                continue
            if out_channels != port.channels:
                raise ModelError(
                    f"{name} takes {port.channels} channels and gives {out_channels}: srpipe needs a "
                    "model that gives as many as it takes."
                )
            return replace(port, lost_px=law[1]), multiple, law[0]
    raise ModelError(
        f"{name} is no image-to-image model that srpipe can use ({signature(session)}): no input "
        f"size gave an output of the same channels, 1 to {MAX_SCALE} times as large, or smaller than "
        f"that by the same everywhere{seen}."
    )


def _shapes(
    session: Session, port: Port, height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int, int]] | None:
    """Height and width of an input; channels, height and width of its output."""
    batch = port.noise(port.batch or 1, height, width)
    result = port.run(session, batch)
    if result is None:
        return None
    in_height, in_width = port.nchw(batch).shape[2:]
    return (in_height, in_width), (result.shape[1], result.shape[2], result.shape[3])


def _size_law(inputs: tuple[int, int], outputs: tuple[int, int]) -> tuple[int, int] | None:
    """Scale, and what the output lacks of that, which two sides of an image have in common."""
    exact = outputs[0] // inputs[0]
    if exact >= 1 and outputs == (inputs[0] * exact, inputs[1] * exact):
        return exact, 0
    if inputs[0] == inputs[1]:  # of a fixed size: less than one pixel in four is lost
        scale = -(-outputs[0] // inputs[0])
    else:
        scale = (outputs[1] - outputs[0]) // (inputs[1] - inputs[0])
    lost = [scale * side - got for side, got in zip(inputs, outputs, strict=True)]
    plausible = inputs[0] != inputs[1] or 4 * lost[0] <= scale * inputs[0]
    return (scale, lost[0]) if lost[0] == lost[1] > 0 and plausible else None


def _holds(
    session: Session, port: Port, multiple: int, sizes: list[int], law: tuple[int, int]
) -> bool:
    """Whether other sizes, where there are any, follow the same law."""
    scale, lost = law
    height = port.height_px or sizes[0] + 3 * multiple
    width = port.width_px or sizes[1] + 6 * multiple
    shapes = _shapes(session, port, height, width)
    return shapes is not None and shapes[1][1:] == (height * scale - lost, width * scale - lost)


def _probe_px(multiple: int) -> int:
    return round_up(_PROBE_PX, multiple)


def _find_batch(session: Session, port: Port, multiple: int) -> tuple[int | None, bool]:
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


def _stays_put(session: Session, port: Port, pair: Tensor, together: Tensor) -> bool:
    """Whether an entry of a fixed batch is the same in another place of the batch."""
    turned = port.run(session, np.ascontiguousarray(pair[::-1]))
    return turned is not None and bool(np.array_equal(turned[::-1], together))


def _find_least(session: Session, port: Port, multiple: int, scale: int) -> int:
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


def _find_radius(session: Session, port: Port, multiple: int, scale: int) -> int | None:
    """How far the left half of a tile reaches into the right half, input pixels."""
    told = _whole_from_0(session.metadata, "receptive_radius_px")
    if told is not None:
        return told
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
