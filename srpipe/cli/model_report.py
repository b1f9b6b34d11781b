"""All that ``srpipe inspect`` finds out about a model, as people and as programs read it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srpipe.api import probe_model
from srpipe.errors import OutputError, SpaceError, SrpipeError
from srpipe.io.child import most_bytes, try_out
from srpipe.io.space import available_memory_bytes, format_bytes
from srpipe.models.facts import GraphFacts, Port, read_facts
from srpipe.models.graph import write_metadata
from srpipe.models.sample import make_picture, read_middle
from srpipe.models.seams import GridDifference, SeamReport, crop_to_measure, measure_seams
from srpipe.models.tile_memory import TileMemory, default_tile, measure_tile_memory
from srpipe.plan.model_info import ModelInfo
from srpipe.settings import Settings

_MEANINGS = {
    "exact": "tiles make no difference",
    "blended": "tiles differ near seams only; a larger --overlap brings them nearer",
    "discouraged": "tiles differ everywhere; take the largest that fit, or the whole picture",
}


@dataclass(frozen=True, slots=True)
class ExaminedModel:
    """A model, and all that was found out about it."""

    info: ModelInfo
    graph: GraphFacts
    memory: TileMemory | str
    """Or why it could not be measured."""
    seams: SeamReport | None
    """None where it was not asked for."""

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        memory = self.memory
        return {
            "kind": "model",
            **self.info.as_dict(),
            "graph": self.graph.as_dict(),
            "tile_memory": memory.as_dict() if isinstance(memory, TileMemory) else None,
            "tile_memory_error": memory if isinstance(memory, str) else None,
            "seams": self.seams.as_dict() if self.seams else None,
        }

    def facts(self) -> dict[str, Any]:
        """All of it as people read it; a list has a line for each item."""
        info, graph = self.info, self.graph
        facts: dict[str, Any] = {
            "model": f"{info.name} ({info.path}, {info.file_bytes} bytes)",
            "input": [line for port in graph.inputs for line in _describe(port)],
            "output": [line for port in graph.outputs for line in _describe(port)],
            "layout": f"{info.layout} {info.dtype}",
            "channels": f"{info.channels} ({_colours(info)}, {_range(info)})",
            "scale": f"{info.scale}{_lost(info)}",
            "batch": "free" if info.batch is None else f"fixed at {info.batch}",
            "height": _free_or_fixed(info.height_px, info),
            "width": _free_or_fixed(info.width_px, info),
            "batch exact": "yes: the same bits as one by one" if info.batch_exact else "no",
            "radius": _radius(info),
            "halo": _halo(info),
            "operators": ", ".join(f"{name} {n}" for name, n in graph.operators.items()),
            "parameters": f"{graph.parameters:,}",
            "FLOPs": "not countable"
            if graph.flops_per_pixel is None
            else f"{graph.flops_per_pixel:,.0f} per input pixel",
            "memory": _memory(self.memory),
            "opset": f"{graph.opset} ({graph.producer or 'unknown producer'})",
            "sha256": info.sha256,
        }
        facts |= _seam_facts(self.seams, info)
        return facts | {f"metadata {key}": value for key, value in sorted(info.metadata.items())}


def examine_model(
    path: Path,
    *,
    seams: str | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    write: bool = False,
    allow_untrusted: bool = False,
) -> ExaminedModel:
    """Find out about a model.

    Args:
        path: an .onnx file.
        seams: an image to measure seams on, empty for srpipe's own picture, None not to.
        tile_size: for the seams, as for ``srpipe enhance``.
        overlap: for the seams, likewise.
        write: store the seam class in the model's file.
        allow_untrusted: for the image, as for ``srpipe enhance``.

    Raises:
        RequestError: the model or the image is none that srpipe can use, the settings are out of
            range, or the model's file cannot be written.
        RunError: the model failed.
    """
    if seams is not None:
        Settings(tile_size=tile_size, overlap=overlap)
    if write:
        _check_writable(path)
    info = probe_model(path)
    memory: TileMemory | str
    try:
        memory = measure_tile_memory(info, default_tile(info))
    except SrpipeError as error:
        memory = str(error)
    report = None
    if seams is not None:
        _check_memory(memory, tile_size)
        size = crop_to_measure(info, tile_size)
        if seams:
            pixels = read_middle(seams, size, allow_untrusted=allow_untrusted)
        else:
            pixels = make_picture(size, 3 if info.channels in (1, 3) else info.channels)
        measure = partial(measure_seams, info, pixels, tile_size=tile_size, overlap=overlap)
        report = try_out(info.path, measure, most_bytes())
    facts = try_out(info.path, partial(read_facts, info), most_bytes())
    examined = ExaminedModel(info, facts, memory, report)
    if report and write:
        write_metadata(path, report.metadata())
    return examined


def _check_writable(path: Path) -> None:
    """Refuse a file that could not be replaced in the end, or is not meant to be."""
    try:
        protected = not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): leave --write out, or copy the model to a "
            "folder of your own."
        ) from None
    if protected:
        raise OutputError(f"{path} is write-protected: leave --write out, or change its mode.")


def _check_memory(memory: TileMemory | str, tile_size: int | None) -> None:
    """Refuse a whole crop, up to four tiles large, that would take more memory than there is."""
    available = available_memory_bytes()
    if isinstance(memory, str) or available is None:
        return
    tile_px = tile_size**2 if tile_size else memory.tile.pixels
    needed = memory.model_bytes + 4 * memory.per_tile_bytes * tile_px / memory.tile.pixels
    if needed > available:
        raise SpaceError(
            f"the whole crop that tiles are compared with would take about {format_bytes(needed)} of "
            f"memory, and {format_bytes(available)} are free: measure smaller tiles with --tile-size."
        )


def _describe(port: Port) -> list[str]:
    lines = [f"{port.name}, {port.type}"]
    for i, dim in enumerate(port.dims):
        state = f"fixed ({dim})" if isinstance(dim, int) else f"dynamic ({dim or 'unnamed'})"
        lines.append(f"Dimension {i}: {state}")
    return lines


def _radius(info: ModelInfo) -> str:
    if info.radius_px is None:
        return "beyond what was measured"
    told = "from the metadata" if "receptive_radius_px" in info.metadata else "measured"
    return f"{info.radius_px} input pixels ({told})"


def _halo(info: ModelInfo) -> str:
    if info.halo_px is None:
        return "not known: the overlap follows from the radius"
    meanings = {
        "metadata": "from the metadata",
        "measured": "measured: beyond it tiles are like the whole",
        "balanced": "measured: tiles differ beyond it too, and are blended over twice as much",
    }
    return f"{info.halo_px} input pixels ({meanings[info.halo_from or 'metadata']})"


def _lost(info: ModelInfo) -> str:
    if not info.lost_px:
        return ""
    return f", {info.lost_px} output pixels less on each axis: it does not pad"


def _colours(info: ModelInfo) -> str:
    if info.channels not in (1, 3):
        return "bands as they are"
    return "luma" if info.channels == 1 else "BGR" if info.bgr else "RGB"


def _range(info: ModelInfo) -> str:
    low, high = info.value_range
    black = f", black at {info.black:g}" if info.black is not None else ""
    white = f", white at {info.white:g}" if info.white is not None else ""
    return f"{low:g} to {high:g}{black}{white}"


def _free_or_fixed(fixed_px: int | None, info: ModelInfo) -> str:
    if fixed_px is not None:
        return f"fixed at {fixed_px}"
    return f"free, multiples of {info.multiple_px} from {info.least_px}"


def _memory(memory: TileMemory | str) -> str:
    if isinstance(memory, str):
        return f"not measured: {memory}"
    batches = ", ".join(
        f"batch of {size}: {format_bytes(grown)}" for size, grown in memory.batch_bytes.items()
    )
    return (
        f"{format_bytes(memory.per_tile_bytes)} for each tile of {memory.tile} ({batches}; "
        f"the model itself: {format_bytes(memory.model_bytes)})"
    )


def _seam_facts(report: SeamReport | None, info: ModelInfo) -> dict[str, str]:
    if report is None:
        known = info.metadata.get("seam_class")
        return {"seam class": f"{known} (from the metadata)" if known else "not measured (--seams)"}
    return {
        "seam class": f"{report.seam_class}: {_MEANINGS[report.seam_class]}",
        "seams": f"tiles of {report.tile}, overlap {report.overlap_px}, against the whole crop of "
        f"{report.crop}; levels of 255",
        "  grid": _difference(report.grid),
        "  shifted": _difference(report.shifted),
    }


def _difference(grid: GridDifference) -> str:
    return "; ".join(
        f"{where} at most {d.largest_levels:.2f}, mean {d.mean_levels:.3f}"
        for where, d in (("at seams", grid.at_seams), ("away", grid.away))
    )
