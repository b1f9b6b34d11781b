"""Memory that a tile takes in a model, measured: no formula is near it (between 15 and 150 times off).

Each measurement is a process of its own that loads the model and runs one batch. An arena never
gives memory back, so the second batch of one process would find what the first has left.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import OutOfMemoryError, SrpipeError, StageError
from srpipe.io.child import Child
from srpipe.io.session import Session
from srpipe.plan.geometry import Size
from srpipe.plan.job import DEFAULT_TILE_SIZE_PX
from srpipe.plan.model_info import ModelInfo

DEFAULT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TileMemory:
    """Memory a model takes while it runs, beyond its weights and the slots of input and result."""

    tile: Size
    """Input pixels."""
    batch_bytes: dict[int, int]
    """By batch size: one run's growth of the process at its peak."""
    per_tile_bytes: int
    """What one more tile in a batch takes."""
    model_bytes: int
    """What loading the model took: weights, and all that belongs to them."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def default_tile(info: ModelInfo) -> Size:
    """The tile that ``srpipe enhance`` uses on a large image unless told otherwise, input pixels."""
    multiple_px = info.multiple_px
    free_px = max((info.tile_px or DEFAULT_TILE_SIZE_PX) // multiple_px, 1) * multiple_px
    return Size(info.width_px or free_px, info.height_px or free_px)


def measure_tile_memory(
    info: ModelInfo, tile: Size, *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> TileMemory:
    """Run a model on one tile, and on two at once where it takes them, on the CPU.

    Args:
        info: the model, probed.
        tile: input pixels, of a size that the model takes.
        timeout_s: time for each of the runs.

    Raises:
        StageError: a run took too long, or failed.
        OutOfMemoryError: there is too little memory for it.
    """
    sizes = (1, 2) if info.batch is None else (info.batch,)
    grown = {}
    for batch_size in sizes:
        model_bytes, grown[batch_size] = _measure(info, tile, batch_size, timeout_s)
    most = sizes[-1]
    # The first tile also pays for what all share.
    per_tile = grown[2] - grown[1] if len(sizes) == 2 else grown[most] // most
    return TileMemory(
        tile=tile, batch_bytes=grown, per_tile_bytes=max(per_tile, 0), model_bytes=model_bytes
    )


def _measure(info: ModelInfo, tile: Size, batch_size: int, timeout_s: float) -> tuple[int, int]:
    planes = [batch_size, info.channels, tile.height, tile.width]
    if info.layout == "NHWC":
        planes = [planes[i] for i in (0, 2, 3, 1)]
    what = f"running {info.name} on {batch_size} tile{'s' * (batch_size > 1)} of {tile}"
    try:
        with Child() as child:
            child.start(_run_batch, info, planes)
            model_bytes, grown = child.result(timeout_s)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{what}: there is too little memory ({error}).") from None
    except SrpipeError as error:
        raise StageError(f"{what} failed: {error}") from None
    return model_bytes, grown


def _run_batch(info: ModelInfo, planes: list[int]) -> tuple[int, int]:
    """Run one batch in this process: the growth of loading and of running, bytes."""
    empty = status_bytes("VmRSS")
    session = Session(info.path, "cpu", 0)
    batch = np.random.default_rng(0).random(planes, np.float32).astype(info.dtype, copy=False)
    result = np.zeros(info.result_shape(planes), info.dtype)
    result.fill(1)  # touched, so that it counts before the run and not in it
    loaded = status_bytes("VmRSS")
    peak = reset_peak()
    session.run(info.input_name, info.output_name, batch, result)
    grown = max(status_bytes(peak) - loaded, 0)
    return max(loaded - empty - batch.nbytes - result.nbytes, 0), grown


def reset_peak() -> str:
    """Forget the peak so far; returns the field of the status that will tell the new one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return "VmHWM"
    # An arena keeps what it took, so what is there afterwards is near the peak.
    return "VmRSS"


def status_bytes(field: str) -> int:
    """A field of this process's status that tells memory, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
