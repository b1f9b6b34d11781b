"""One session at several batch sizes, beside what the original design says of them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from srpipe.api import available_cores
from srpipe.errors import OutOfMemoryError
from srpipe.io.devices import resolve_device
from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session
from srpipe.models.integer_input import take_integers
from srpipe.plan.colour import ColourPath
from srpipe.plan.model_info import ModelInfo

from .table import markdown_table

BATCH_SIZES = (1, 4, 8, 16)
# Speed-up over batch 1 in the design that srpipe started from, by kind of device.
_DESIGN = {
    "cpu": {1: 1.0, 2: 1.25, 4: 1.46, 8: 1.6},
    "gpu": {1: 1.0, 4: 2.4, 8: 3.0, 16: 3.4},
}
_ROUND_S = 1.0


@dataclass(frozen=True)
class Measured:
    """Seconds that one batch takes, by batch size; None where memory ran out."""

    device: str
    title: str
    batch_s: dict[int, float | None]

    def tiles_per_s(self, batch_size: int) -> float | None:
        """Tiles a second at a batch size."""
        seconds = self.batch_s.get(batch_size)
        return None if seconds is None else batch_size / seconds

    def speed_up(self, batch_size: int) -> float | None:
        """How many times as many tiles a second as one by one."""
        together, alone = self.tiles_per_s(batch_size), self.tiles_per_s(1)
        return None if together is None or alone is None else together / alone


class _Batches:
    """A session with a batch of noise, as a worker would hold it."""

    def __init__(
        self, model: ModelInfo, device: str, batch_size: int, tile_px: int, integer: bool
    ) -> None:
        """Load the model and run it once: on a GPU the first run chooses algorithms."""
        colour = ColourPath(
            bands=model.channels, colours=model.channels, channels=model.channels, bgr=False,
            value_range=model.value_range, white=255, highest=255, layout=model.layout,
            scale=model.scale,
        )  # fmt: skip
        content = take_integers(model, colour.table("uint8", model.dtype)) if integer else None
        self._session = Session(model.path, device, available_cores(), content)
        self._names = (self._session.inputs[0].name, model.output_name)
        shape = [batch_size, model.channels, tile_px, tile_px]
        larger = [*shape[:2], tile_px * model.scale, tile_px * model.scale]
        if model.layout == "NHWC":
            shape, larger = ([s[0], *s[2:], s[1]] for s in (shape, larger))
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self._batch = noise if integer else colour.table("uint8", model.dtype)[noise]
        self._result = np.zeros(larger, model.dtype)
        self.time_s(1)

    def time_s(self, count: int) -> float:
        """Seconds that a batch takes, on average of ``count``."""
        begin_s = time.perf_counter()
        for _ in range(count):
            self._session.run(*self._names, self._batch, self._result)
        return (time.perf_counter() - begin_s) / count


def measure_batches(
    path: Path,
    *,
    device: str,
    batch_sizes: Sequence[int],
    tile_px: int,
    rounds: int,
    integer: bool,
) -> Measured:
    """Time every batch size in turn, ``rounds`` times for about a second each; medians.

    Args:
        path: the model, free in batch, height and width.
        device: one of srpipe's names of devices.
        batch_sizes: tiles in a batch.
        tile_px: side of a tile, input pixels.
        rounds: how often.
        integer: batches hold 8-bit integers that the session converts.

    Raises:
        SrpipeError: the device or the model cannot be used.
    """
    device = resolve_device(device)
    model = probe_model(path, device)
    sessions: dict[int, _Batches] = {}
    for size in batch_sizes:
        with contextlib.suppress(OutOfMemoryError):
            sessions[size] = _Batches(model, device, size, tile_px, integer)
    counts = {size: max(1, round(_ROUND_S / sessions[size].time_s(1))) for size in sessions}
    times: dict[int, list[float]] = {size: [] for size in sessions}
    for _, size in itertools.product(range(rounds), sessions):
        times[size].append(sessions[size].time_s(counts[size]))
    medians = {size: median(times[size]) if size in times else None for size in batch_sizes}
    kind = "integers" if integer else model.dtype
    return Measured(device, f"{device}, tiles of {tile_px}, batches of {kind}", medians)


def batch_table(measured: Measured) -> str:
    """One row for every batch size."""
    design = _DESIGN["cpu" if measured.device == "cpu" else "gpu"]
    head = ("batch", "a batch, s", "tiles/s", "speed-up", "speed-up in the original design")
    rows = []
    for size, seconds in measured.batch_s.items():
        speed_up, expected = measured.speed_up(size), design.get(size)
        rows.append(
            [
                str(size),
                "out of memory" if seconds is None else f"{seconds:.4f}",
                "–" if seconds is None else f"{size / seconds:.2f}",
                "–" if speed_up is None else f"{speed_up:.2f}",
                "–" if expected is None else f"{expected:.2f}",
            ]
        )
    return markdown_table(head, rows)
