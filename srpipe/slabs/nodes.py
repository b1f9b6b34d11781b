"""Nodes of a cluster: what a slab or an image holds of one, and whether they are all alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srpipe.engines.ray import Cluster, Node, Slot
from srpipe.errors import ClusterError, InputError, ModelError
from srpipe.io.devices import is_numbered
from srpipe.io.external_data import hash_model
from srpipe.models.zoo import find_model
from srpipe.run import software_versions
from srpipe.settings import Settings
from srpipe.stop import StopRequest


def slot_for(cluster: Cluster, settings: Settings) -> Slot:
    """What a slab holds of a node: what was asked for, or a whole node, and a GPU if there are any."""
    devices = settings.device.split(",")
    gpus = len(devices) if is_numbered(devices[0]) else 0
    if settings.device == "auto" and any(node.gpus for node in cluster.nodes):
        gpus = 1
    if settings.threads is not None:
        return Slot(settings.threads * (settings.workers or max(gpus, 1)), gpus)
    able = [node for node in cluster.nodes if node.cpus and node.gpus >= gpus]
    shares = [node.cpus // (max(node.gpus // gpus, 1) if gpus else 1) for node in able]
    return Slot(max(min(shares, default=1), settings.workers or 1), gpus)


def anywhere(settings: Settings) -> Settings:
    """Settings that mean the same in every folder: a model's file, and a mask, by absolute paths."""
    model, mask = settings.model, settings.mask
    return replace(
        settings,
        model=os.path.abspath(model) if os.path.isfile(model) else model,
        mask=None if mask is None else os.path.abspath(mask),
    )


def for_slot(settings: Settings, slot: Slot) -> Settings:
    """Settings for what runs in a slot, whose devices Ray numbers from 0 on."""
    workers = settings.workers or max(slot.gpus, 1)
    kind = settings.device.partition(":")[0]
    device = settings.device
    if slot.gpus and kind != "auto":
        device = ",".join(f"{kind}:{number}" for number in range(slot.gpus))
    return replace(
        settings,
        engine="auto",
        address=None,
        slabs=None,
        device=device,
        workers=settings.workers if slot.gpus else workers,
        threads=settings.threads or max(1, slot.cpus // workers),
    )


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a machine has, and sees of the job."""

    versions: dict[str, str]
    model_sha256: str
    src: tuple[int, int] | None
    """Bytes and time of change, nanoseconds, of the input."""
    mark: bytes | None
    """What is in a file that the driver has made where nodes are to write."""
    writable: bool


def look_around(src: str, mark: str, model: str) -> _Sight:
    """What this machine has, and sees of the job."""
    try:
        sha256 = hash_model(os.path.abspath(find_model(model)))
    except (ModelError, OSError):
        sha256 = ""
    try:
        stat = os.stat(src)
        size = (stat.st_size, stat.st_mtime_ns) if os.access(src, os.R_OK) else None
    except OSError:
        size = None
    try:
        content = Path(mark).read_bytes()
    except OSError:
        content = None
    writable = os.access(os.path.dirname(mark), os.W_OK | os.X_OK)
    return _Sight(software_versions(), sha256, size, content, writable)


def check_nodes(
    cluster: Cluster, nodes: Sequence[Node], src: str, mark: Path, model: str, stop: StopRequest
) -> None:
    """See that nodes and driver have the same software, model and files.

    Args:
        cluster: whose nodes.
        nodes: that will work.
        src: an input.
        mark: a file that the driver has made in the folder that nodes are to write to.
        model: as settings name it.
        stop: ends the waiting for a node.

    Raises:
        InputError: the driver does not see the input.
        ModelError: it does not know the model.
        ClusterError: a node differs; says which, and what to do.
    """
    arguments = (src, os.fspath(mark), model)
    here = look_around(*arguments)
    find_model(model)
    if here.src is None:
        raise InputError(f"{src} cannot be read: check the path, and its permissions.")
    for node, there in cluster.ask(nodes, look_around, *arguments, stop=stop):
        problem = _difference(here, there, src, mark.parent, model)
        if problem:
            raise ClusterError(f"node {node.name} {problem}")


def _difference(here: _Sight, there: _Sight, src: str, folder: Path, model: str) -> str | None:
    for name, version in here.versions.items():
        found = there.versions.get(name)
        if found != version:
            return (
                f"has {name} {found or 'not at all'}, and the driver {version}: install the same "
                "version on every node."
            )
    if there.model_sha256 != here.model_sha256:
        found = "another file" if there.model_sha256 else "nothing"
        return f"has {found} as the model {model}: put the same file there, under the same name."
    if there.src != here.src:
        how = "does not see the input" if there.src is None else "sees another file as the input"
        return f"{how} {src}: put it on a file system that all nodes share, under the same path."
    if there.mark != here.mark or not there.writable:
        how = "cannot write to" if there.mark == here.mark else "does not see"
        return (
            f"{how} the folder {folder}: write to a file system that all nodes share, or name "
            "a folder there with --job-dir."
        )
    return None
