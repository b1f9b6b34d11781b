"""What there is to try: tile sizes, batches, and ways to share the cores among runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from srpipe.io.devices import runs_on_processor
from srpipe.models.tile_memory import default_tile
from srpipe.plan.geometry import Size, round_up
from srpipe.plan.model_info import ModelInfo
from srpipe.settings import Settings

TILES_PX = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8)
GPU_BATCHES = (1, 4, 8, 16)
# Where memory is too small for all of the above.
_LAST_TILES_PX = (48, 32)
_MAX_BATCH_PX = 2 * 512**2


@dataclass(frozen=True, slots=True, order=True)
class Arrangement:
    """How a device and its cores are shared out."""

    device: str
    workers: int
    """Sessions, each in a process of its own."""
    runners: int
    """Runs of one session at once."""
    threads: int
    """Cores of one run."""

    @property
    def runs(self) -> int:
        """Runs under way at once, of all sessions."""
        return self.workers * self.runners

    @property
    def session_threads(self) -> int:
        """Cores of one session."""
        return self.runners * self.threads

    def __str__(self) -> str:
        sessions = f"{self.workers} workers of " if self.workers > 1 else ""
        return f"{sessions}{self.runners} x {self.threads}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model."""

    arrangement: Arrangement
    tile: Size
    """Input pixels."""
    batch: int

    @property
    def run_pixels(self) -> int:
        """Input pixels of one run."""
        return self.batch * self.tile.pixels

    @property
    def session_pixels(self) -> int:
        """Input pixels of all runs of one session that are under way at once."""
        return self.run_pixels * self.arrangement.runners

    @property
    def pixels(self) -> int:
        """Input pixels of all runs that are under way at once."""
        return self.run_pixels * self.arrangement.runs


@dataclass(frozen=True, slots=True)
class Choices:
    """What a search may choose from; an explicit setting leaves one of its kind."""

    arrangements: tuple[Arrangement, ...]
    tiles: tuple[Size, ...]
    """Ascending."""
    base: Size
    """The tile that is used where nothing is measured."""
    batches: tuple[int, ...]
    """Ascending."""

    @property
    def smaller(self) -> tuple[Size, ...]:
        """The base and the tiles below, descending."""
        return tuple(tile for tile in reversed(self.tiles) if tile.pixels <= self.base.pixels)


def list_choices(
    info: ModelInfo, settings: Settings, devices: tuple[str, ...], cores: int
) -> Choices:
    """What may be tried for a model.

    Args:
        info: the model.
        settings: what is asked for; the rest is free.
        devices: each tried; on anything but the processor one run at a time.
        cores: processor cores there are.
    """
    on_gpu = not runs_on_processor(devices[0])
    batches: tuple[int, ...] = GPU_BATCHES if on_gpu else BATCHES
    if info.batch is not None or settings.batch_size is not None:
        batches = (info.batch or settings.batch_size or 1,)
    base = default_tile(info)
    if settings.tile_size is not None:
        base = Size(info.width_px or settings.tile_size, info.height_px or settings.tile_size)
    tiles: tuple[Size, ...] = (base,)
    if settings.tile_size is None and info.width_px is None and info.height_px is None:
        sizes = {base.width} if on_gpu else {base.width, *_aligned(info, base.width)}
        tiles = tuple(Size(px, px) for px in sorted(sizes))
    arrangements = []
    for device in devices:
        if device == "cpu":
            arrangements += list(_processor(settings, cores))
        else:
            workers = settings.workers or device.count(",") + 1
            threads = settings.threads or max(1, cores // workers)
            runners = settings.runners or 1
            arrangements.append(Arrangement(device, workers, runners, max(1, threads // runners)))
    # The usual one, then other devices: should time run out, much is known already.
    first, *others = dict.fromkeys(arrangements)
    others.sort(key=lambda arrangement: arrangement.device == first.device)
    return Choices((first, *others), tiles, base, batches)


def _aligned(info: ModelInfo, base_px: int) -> Iterator[int]:
    for px in (*_LAST_TILES_PX, *TILES_PX):
        px = round_up(px, info.multiple_px)
        if info.least_px <= px <= max(TILES_PX[-1], base_px):
            yield px


def _processor(settings: Settings, cores: int) -> Iterator[Arrangement]:
    """A run on every core, fewer runs on more cores each, one on all; and the cores in two sessions."""
    if settings.workers is not None:
        workers = [settings.workers]
    else:
        workers = [1, 2] if cores > 1 and settings.threads is None else [1]
    for count in workers:
        threads = settings.threads or max(1, cores // count)
        if settings.runners is not None:
            runs = [min(settings.runners, threads)]
        elif count == 1 or settings.workers is not None:
            runs = [max(1, threads // share) for share in (1, 2, 4, threads)]
        else:
            runs = [threads]
        for runners in runs:
            yield Arrangement("cpu", count, runners, max(1, threads // runners))


def batches_for(tile: Size, batches: tuple[int, ...]) -> list[int]:
    """Those batches of a tile that are not so large that another tile would be better."""
    fitting = [n for n in batches if n * tile.pixels <= _MAX_BATCH_PX]
    return fitting or [batches[0]]
