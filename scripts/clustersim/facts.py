"""What is simulated: an image in tiles, what a node takes for them, and a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from srpipe.plan.grid import Grid, plan_axis

MEASURED = Path(__file__).parent / "measured.json"
Format = Literal["tiff", "zarr", "other"]
ZARR_CHUNK_PX = 256


@dataclass(frozen=True)
class Node:
    """What one node takes, measured (``--measure``) or assumed."""

    name: str
    tile_s: tuple[float, ...]
    """Seconds a tile, of many rows of tiles."""
    start_s: float
    """From the beginning of a slab to its first tile: processes, and the model."""
    tile_px: int
    overlap_px: int
    scale: int
    encode_mp_s: float
    """Output megapixels a second that one machine saves in a format that is not joined."""
    halve_mp_s: float
    """Of a level of a Zarr that the next one is made of."""
    input_bytes_px: float
    output_bytes_px: float
    decode_mp_s: float
    """Input that cannot be read from its middle is decoded up to there, so fast."""

    @property
    def mean_tile_s(self) -> float:
        """Seconds."""
        return sum(self.tile_s) / len(self.tile_s)


@dataclass(frozen=True)
class Cluster:
    """Nodes and the storage that they share."""

    nodes: int
    shared_bytes_s: float = 10e9
    """Of all nodes together."""
    client_bytes_s: float = 1e9
    """Of one node."""
    mtbf_s: float | None = None
    """Mean time between failures of one node; None: never."""
    repair_s: float = 300.0
    """Until a node that failed, or another in its place, is there."""
    detect_s: float = 90.0
    """Until its slab begins elsewhere: Ray notices, and its lock has been silent for a minute."""
    checkpoint_s: float = 5.0
    spread: float = 0.05
    """Standard deviation of the nodes' speeds."""


@dataclass(frozen=True)
class Image:
    """A square image in tiles."""

    grid: Grid
    node: Node

    @classmethod
    def of(cls, megapixels: float, node: Node) -> Image:
        """Lay its tiles, as srpipe does."""
        side_px = round((megapixels * 1e6) ** 0.5)
        axis = plan_axis(side_px, node.tile_px, node.overlap_px, 1, least_px=1)
        return cls(Grid(axis, axis), node)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return self.grid.y.n_tiles

    @property
    def input_px(self) -> int:
        """Pixels."""
        return self.grid.x.length_px * self.grid.y.length_px

    @property
    def output_px(self) -> int:
        """Pixels."""
        return self.input_px * self.node.scale**2

    @property
    def row_bytes(self) -> float:
        """Read and written for a row of tiles."""
        px = self.input_px / self.rows
        node = self.node
        return px * (node.input_bytes_px + node.scale**2 * node.output_bytes_px)


def read_nodes(path: Path = MEASURED) -> dict[str, Node]:
    """The kinds of nodes whose figures are known."""
    names = {field.name for field in fields(Node)}
    return {
        entry["name"]: Node(**{k: v for k, v in entry.items() if k in names})
        for entry in json.loads(path.read_text())["nodes"]
    }
