"""What decides the bytes of a result: a job goes on only where all of it is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from srpipe.plan.job import Plan

Fingerprint = dict[str, str]
"""Facts by name, both as people read them."""


INPUT_TIME = "input changed at"


def fingerprint(plan: Plan, versions: Mapping[str, str]) -> Fingerprint:
    """All facts that change the result of a job.

    Workers, threads and, on a CPU, for a model whose arithmetic does not depend on it, the batch size
    do not. A GPU's libraries choose their algorithms by it.

    Args:
        plan: the job.
        versions: of the software whose arithmetic the result depends on, by name.
    """
    image, model, grid = plan.image, plan.model, plan.grid
    (low, high), order = model.value_range, "bgr" if model.bgr else "rgb"
    facts = {
        "input size": f"{image.identity.size_bytes} bytes",
        "input content": image.identity.sha256[:16],
        "image": f"{image.size}, {image.bands} bands, {image.dtype}, {image.kind}",
        "model": f"{Path(model.path).stem} {model.sha256[:16]}",
        "values": f"{plan.black:.17g} to {plan.white:.17g} are {low} to {high}, {order}",
        "scale": str(plan.scale),
        "tile size": str(grid.tile),
        "overlap": f"{grid.x.overlap_px}x{grid.y.overlap_px}",
        "tiles": f"{grid.x.n_tiles}x{grid.y.n_tiles}",
        "blend": f"{plan.blend}, trim {plan.trim_px[0]}x{plan.trim_px[1]}",
        "output options": plan.output.vips_format,
        "on error": plan.on_error,
        "device": plan.device.partition(":")[0],
    }
    if model.outputs:
        facts["model's output"] = model.output_name
    if plan.written.dtype != image.dtype:
        facts["depth"] = plan.written.dtype
    if plan.outscale is not None:
        facts["resized to"] = str(plan.output_size)
    if plan.turned:
        facts["turned"] = f"by orientation {plan.image.orientation}"
    if plan.rewrites:
        facts["graph"] = f"with {', '.join(plan.rewrites)} rewritten, {plan.graph_sha256[:16]}"
    crop, frame = plan.frame.crop, plan.frame
    if image.nodata is not None:
        facts["no data"] = f"{image.nodata:.17g}"
    if image.shown != "as it is":
        facts["colour management"] = image.shown
    if not image.identity.hashed_whole:
        facts[INPUT_TIME] = _utc(image.identity.modified_ns)
    if plan.input_size != image.size:
        facts["region"] = str(frame.in_image(crop))
    if frame.edges != "none":
        facts["edges"] = f"{frame.edges}, margin {frame.margin}"
    if plan.part is not None:
        facts["part"] = plan.part
    if plan.mask is not None:
        facts["mask"] = plan.mask.sha256[:16]
    if plan.background_levels is not None:
        facts["background"] = f"tiles within {plan.background_levels} levels"
    if plan.on_gpu or not model.batch_exact:
        facts["batch size"] = str(plan.batch_size)
    return facts | {f"{name} version": version for name, version in versions.items()}


def digest(facts: Fingerprint) -> str:
    """One hash of a fingerprint."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """``tile size: 256x256, now 512x512`` for every fact that differs."""
    names = dict.fromkeys([*old, *new])
    return [
        f"{name}: {old.get(name, 'not recorded')}, now {new.get(name, 'not recorded')}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _utc(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds:09} UTC"
