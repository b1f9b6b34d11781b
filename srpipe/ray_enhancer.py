"""Many images on the nodes of a Ray cluster: an image is a call, made again where its node is lost."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from srpipe.engines.ray import connected, stop_with_file
from srpipe.enhancer import Enhancer
from srpipe.errors import Interrupted, OutputError, SrpipeError
from srpipe.prepare import start_model
from srpipe.run import software_versions
from srpipe.runtime.events import Report
from srpipe.settings import Settings
from srpipe.slabs.nodes import anywhere, check_nodes, for_slot, slot_for
from srpipe.slabs.task import check_software
from srpipe.stop import StopRequest
from srpipe.tune.budget import job_budget_bytes


class RayEnhancer:
    """What an :class:`srpipe.Enhancer` is for images here, for images on nodes; connected until it is
    closed.
    """

    def __init__(self, settings: Settings, src: str, folder: str) -> None:
        """Connect, and find out what the model does on a node.

        Args:
            settings: of all images.
            src: one of the images.
            folder: where outputs go; nodes must see it too.

        Raises:
            ClusterError: the cluster cannot be reached, is too small, or its nodes are not alike.
            ModelError, DeviceError: the model cannot be used there.
        """
        self.settings = settings = anywhere(settings)
        self._folder = folder
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._cluster = stack.enter_context(connected(settings.address))
            self._slot = slot_for(self._cluster, settings)
            able = self._cluster.check_room(self._slot)
            self.at_once = sum(node.slots(self._slot) for node in able)
            """Images that there is room for at the same time."""
            self._shares = max(node.slots(self._slot) for node in able)
            try:
                mark = tempfile.NamedTemporaryFile(prefix=".srpipe-", dir=folder)  # noqa: SIM115
            except OSError as error:
                raise OutputError(
                    f"the folder {folder} cannot be written to ({error.strerror})."
                ) from None
            with mark:
                mark.write(os.urandom(16))
                mark.flush()
                os.fsync(mark.fileno())
                check_nodes(
                    self._cluster, able, src, Path(mark.name), settings.model, StopRequest()
                )
            self._on_node = for_slot(settings, self._slot)
            self.device, self.model = self._call(start_model, (self._on_node,), StopRequest(), "")
            self._stack = stack.pop_all()

    def enhance(
        self, src: str, dst: str, *, stop: StopRequest, overwrite: bool, fresh: bool
    ) -> Report:
        """Enhance one image on a node; see :func:`srpipe.enhance`."""
        changes = {"overwrite": overwrite, "fresh": fresh}
        stops = Path(self._folder, f".srpipe-stop-{os.urandom(8).hex()}")
        call = (src, dst, self._on_node, self._shares, changes, software_versions(), str(stops))
        report = self._call(enhance_on_node, call, stop, os.path.basename(src), stops)
        assert isinstance(report, Report)
        return report

    def _call(
        self, function: Callable[..., Any], call: Sequence[Any], stop: StopRequest, name: str,
        stop_file: Path | None = None,
    ) -> Any:  # fmt: skip
        calls = self._cluster.call_all(
            function, [tuple(call)], self._slot, stop, names=[name], stop_file=stop_file
        )
        with closing(calls) as answers:
            for _, answer in answers:
                if isinstance(answer, SrpipeError):
                    raise answer
                return answer
        raise Interrupted("interrupted.")

    def __enter__(self) -> RayEnhancer:
        """The same."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the cluster."""
        self._stack.close()


def enhance_on_node(
    src: str, dst: str, settings: Settings, shares: int, changes: Mapping[str, Any],
    versions: Mapping[str, str], stop_path: str,
) -> Report:  # fmt: skip
    """Enhance an image in a call that the driver may stop; the model stays loaded for the next one."""
    check_software(versions)
    with stop_with_file(stop_path) as stop:
        return _enhancer(settings, shares).enhance(src, dst, stop=stop, **changes)


@functools.lru_cache(maxsize=1)
def _enhancer(settings: Settings, shares: int) -> Enhancer:
    """One of so many on this machine."""
    if shares > 1:
        budget = job_budget_bytes(settings.memory_bytes)
        settings = replace(settings, memory_bytes=budget and budget // shares)
    return Enhancer(**{field.name: getattr(settings, field.name) for field in fields(settings)})
