"""Slabs dealt out to nodes that share their storage, fail, and are not equally fast.

A slab takes its node's seconds for its tiles, or as long as its share of the storage needs, whichever
is longer. A node that fails loses what it did since its slab's last checkpoint; the slab waits until
that is noticed, and any free node takes it. The file is joined when all parts are there, by one node.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field

from srpipe.plan.slabs import default_slabs

from .facts import ZARR_CHUNK_PX, Cluster, Format, Image

_EPSILON_S = 1e-9


@dataclass
class Losses:
    """Node-seconds that made no tile that had to be made."""

    redundant_s: float = 0.0
    """Rows of tiles computed twice."""
    start_s: float = 0.0
    skip_s: float = 0.0
    """Decoding what lies above a slab."""
    storage_s: float = 0.0
    """Waiting for it."""
    failures_s: float = 0.0
    """Work done again, and nodes that are down."""
    idle_s: float = 0.0
    """Waiting for the last slab, and slower nodes."""
    assembly_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """One job on one cluster."""

    slabs: int
    wall_s: float
    single_s: float
    """On one node, in one piece, without failures."""
    nodes: int
    losses: Losses

    @property
    def efficiency(self) -> float:
        """Work of one node in one piece, by the nodes' time."""
        return self.single_s / (self.nodes * self.wall_s)

    @property
    def worst(self) -> str:
        """What is lost to most."""
        named = {name.removesuffix("_s"): value for name, value in vars(self.losses).items()}
        return max(named, key=lambda name: named[name])


@dataclass
class _Slab:
    tiles: int
    rows: int
    extra_tiles: int
    skip_s: float
    ready_s: float = 0.0
    ended_s: float = 0.0
    done: float = 0.0
    """Share of its work that a checkpoint speaks of, or that is done."""


@dataclass
class _Worker:
    speed: float
    fails_s: float
    slab: _Slab | None = None
    free_s: float = 0.0
    """When it is there again, or has started."""
    compute_s: float = 0.0
    """Its slab's, as a whole."""
    rate: float = 0.0
    """Share of the slab a second."""
    down: bool = field(default=False)


def single_s(image: Image, cluster: Cluster) -> float:
    """Seconds of the whole image on one node, in one piece."""
    node = image.node
    compute_s = image.grid.n_tiles * node.mean_tile_s
    return node.start_s + max(compute_s, image.rows * image.row_bytes / cluster.client_bytes_s)


def simulate(
    image: Image, cluster: Cluster, *, slabs: int | None = None, fmt: Format = "tiff",
    seekable: bool = True, seed: int = 0,
) -> Outcome:  # fmt: skip
    """Run one job.

    Args:
        image: in tiles.
        cluster: of nodes.
        slabs: how many; None: as srpipe chooses.
        fmt: how the output is joined: of encoded tiles, by renaming, or by encoding it all.
        seekable: whether the input can be read from its middle, as a tiled TIFF can.
        seed: of the nodes' speeds and failures.
    """
    rng = random.Random(seed)
    count = slabs or default_slabs(image.rows, cluster.nodes)
    cut = _cut(image, count, seekable=seekable)
    queue = deque(cut)
    mean_fail_s = cluster.mtbf_s or math.inf
    workers = [_Worker(speed, _next_failure(rng, mean_fail_s)) for speed in _speeds(rng, cluster)]
    losses, left, now_s = Losses(), count, 0.0
    while left:
        _assign(queue, workers, image, now_s, losses, rng)
        _share(workers, image, cluster, now_s)
        step_s = max(_next_event(queue, workers, now_s) - now_s, _EPSILON_S)
        for worker in workers:
            slab = worker.slab
            if slab is not None and worker.rate:
                slab.done += worker.rate * step_s
                losses.storage_s += step_s * (1 - worker.rate * worker.compute_s)
        now_s += step_s
        for worker in workers:
            if worker.slab is not None and worker.slab.done >= 1 - 1e-9:
                worker.slab.ended_s = now_s
                worker.slab = None
                left -= 1
            if now_s >= worker.fails_s:
                _fail(worker, queue, cluster, now_s, losses)
                worker.fails_s = now_s + cluster.repair_s + _next_failure(rng, mean_fail_s)
    wall_s = now_s + assembly_s(image, cluster, count, fmt)
    if fmt == "tiff":
        wall_s = _copied_s(image, cluster, cut)
    losses.assembly_s = (wall_s - now_s) * cluster.nodes
    useful_s = image.grid.n_tiles * image.node.mean_tile_s
    losses.idle_s = max(0.0, cluster.nodes * wall_s - useful_s - sum(vars(losses).values()))
    return Outcome(count, wall_s, single_s(image, cluster), cluster.nodes, losses)


def _copied_s(image: Image, cluster: Cluster, cut: list[_Slab]) -> float:
    """When the last part has been copied; each is copied in its turn, while others are computed."""
    whole_s, at_s = assembly_s(image, cluster, len(cut), "tiff"), 0.0
    own_tiles = [slab.tiles - slab.extra_tiles for slab in cut]
    for slab, tiles in zip(cut, own_tiles, strict=True):
        at_s = max(at_s, slab.ended_s) + whole_s * tiles / sum(own_tiles)
    return at_s


def assembly_s(image: Image, cluster: Cluster, slabs: int, fmt: Format) -> float:
    """Seconds in which one node makes the file of all parts, if it begins when all are there."""
    node = image.node
    if fmt == "tiff":
        return 2 * image.output_px * node.output_bytes_px / cluster.client_bytes_s
    if fmt == "zarr":
        height_px = image.grid.y.length_px * node.scale
        levels = 1
        while ZARR_CHUNK_PX << levels <= height_px // slabs // 2:
            levels += 1
        return image.output_px / 4 ** (levels - 1) / 1e6 / node.halve_mp_s
    encoded_s = image.output_px / 1e6 / node.encode_mp_s
    return max(encoded_s, image.output_px * 3 / cluster.client_bytes_s)


def _cut(image: Image, count: int, *, seekable: bool) -> list[_Slab]:
    edges = [k * image.rows // count for k in range(count + 1)]
    columns, node = image.grid.x.n_tiles, image.node
    slabs = []
    for first, stop in itertools.pairwise(edges):
        above_px = image.input_px * first / image.rows
        skip_s = 0.0 if seekable else above_px / 1e6 / node.decode_mp_s
        extra = 1 if first else 0
        slabs.append(
            _Slab((stop - first + extra) * columns, stop - first + extra, extra * columns, skip_s)
        )
    return slabs


def _speeds(rng: random.Random, cluster: Cluster) -> list[float]:
    """Seconds of each node for a second's work of the usual one; together they are as fast."""
    drawn = [max(0.5, rng.gauss(1, cluster.spread)) for _ in range(cluster.nodes)]
    usual = len(drawn) / sum(1 / speed for speed in drawn)
    return [speed / usual for speed in drawn]


def _next_failure(rng: random.Random, mean_s: float) -> float:
    return math.inf if mean_s == math.inf else rng.expovariate(1 / mean_s)


def _assign(
    queue: deque[_Slab], workers: list[_Worker], image: Image, now_s: float, losses: Losses,
    rng: random.Random,
) -> None:  # fmt: skip
    node = image.node
    for worker in workers:
        if worker.slab is not None or (worker.down and now_s < worker.free_s):
            continue
        worker.down = False
        slab = next((s for s in queue if s.ready_s <= now_s), None)
        if slab is None:
            continue
        queue.remove(slab)
        worker.slab, worker.free_s = slab, now_s + node.start_s + slab.skip_s
        worker.compute_s = _tiles_s(slab.tiles, node.tile_s, rng) * worker.speed
        losses.start_s += node.start_s
        losses.skip_s += slab.skip_s
        if not slab.done:
            losses.redundant_s += slab.extra_tiles * node.mean_tile_s


def _tiles_s(count: int, measured_s: tuple[float, ...], rng: random.Random) -> float:
    """Seconds of so many tiles, each as one of those that were measured."""
    if count <= len(measured_s):
        return sum(rng.choices(measured_s, k=count))
    mean_s = sum(measured_s) / len(measured_s)
    variance = sum((s - mean_s) ** 2 for s in measured_s) / len(measured_s)
    return max(rng.gauss(count * mean_s, math.sqrt(count * variance)), count * min(measured_s))


def _share(workers: list[_Worker], image: Image, cluster: Cluster, now_s: float) -> None:
    running = [w for w in workers if w.slab is not None and w.free_s <= now_s]
    share = min(cluster.client_bytes_s, cluster.shared_bytes_s / max(len(running), 1))
    for worker in workers:
        worker.rate = 0.0
    for worker in running:
        assert worker.slab is not None
        needed_s = worker.slab.rows * image.row_bytes / share
        worker.rate = 1 / max(worker.compute_s, needed_s)


def _next_event(queue: deque[_Slab], workers: list[_Worker], now_s: float) -> float:
    times = [w.fails_s for w in workers]
    times += [slab.ready_s for slab in queue if slab.ready_s > now_s]
    for worker in workers:
        if worker.slab is None or worker.free_s > now_s:
            times += [worker.free_s] if worker.free_s > now_s else []
        else:
            times.append(now_s + (1 - worker.slab.done) / worker.rate)
    return min(times)


def _fail(
    worker: _Worker, queue: deque[_Slab], cluster: Cluster, now_s: float, losses: Losses
) -> None:
    slab = worker.slab
    worker.slab, worker.down, worker.free_s = None, True, now_s + cluster.repair_s
    losses.failures_s += cluster.repair_s
    if slab is None:
        return
    # Half an interval, on average, since the last checkpoint.
    lost = min(slab.done, cluster.checkpoint_s / 2 / worker.compute_s)
    slab.done -= lost
    slab.ready_s = now_s + cluster.detect_s
    losses.failures_s += lost * worker.compute_s
    queue.append(slab)
