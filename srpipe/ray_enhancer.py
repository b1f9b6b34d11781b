"""Many images on the nodes of a Ray cluster: an image is a call, made again where its node is lost."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from srpipe.engines.ray import connected, stop_on_interrupt
from srpipe.enhancer import Enhancer
from srpipe.errors import Interrupted, OutputError, SrpipeError
from srpipe.prepare import start_model
from srpipe.run import software_versions
from srpipe.runtime.events import Report
from srpipe.settings import Settings
from srpipe.slabs.nodes import check_nodes, for_slot, slot_for
from srpipe.slabs.task import check_software
from srpipe.slabs.whole import anywhere
from srpipe.stop import StopRequest


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
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._cluster = stack.enter_context(connected(settings.address))
            self._slot = slot_for(self._cluster, settings)
            able = self._cluster.check_room(self._slot)
            self.at_once = sum(node.slots(self._slot) for node in able)
            """Images that there is room for at the same time."""
            try:
                mark = tempfile.NamedTemporaryFile(prefix=".srpipe-", dir=folder)  # noqa: SIM115
            except OSError as error:
                raise OutputError(
                    f"the folder {folder} cannot be written to ({error.strerror})."
                ) from None
            with mark:
                mark.write(os.urandom(16))
                mark.flush()
                check_nodes(self._cluster, able, src, Path(mark.name), settings.model)
            self._on_node = for_slot(settings, self._slot)
            self.device, self.model = self._call(start_model, (self._on_node,), StopRequest(), "")
            self._stack = stack.pop_all()

    def enhance(
        self, src: str, dst: str, *, stop: StopRequest, overwrite: bool, fresh: bool
    ) -> Report:
        """Enhance one image on a node; see :func:`srpipe.enhance`."""
        changes = {"overwrite": overwrite, "fresh": fresh}
        call = (src, dst, self._on_node, changes, software_versions())
        report = self._call(enhance_on_node, call, stop, os.path.basename(src))
        assert isinstance(report, Report)
        return report

    def _call(
        self, function: Callable[..., Any], call: Sequence[Any], stop: StopRequest, name: str
    ) -> Any:
        calls = self._cluster.call_all(function, [tuple(call)], self._slot, stop, names=[name])
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
    src: str, dst: str, settings: Settings, changes: Mapping[str, Any], versions: Mapping[str, str]
) -> Report:
    """Enhance an image in a call that Ray may cancel; the model stays loaded for the next one."""
    check_software(versions)
    with stop_on_interrupt() as stop:
        return _enhancer(settings).enhance(src, dst, stop=stop, **changes)


@functools.lru_cache(maxsize=1)
def _enhancer(settings: Settings) -> Enhancer:
    return Enhancer(**{field.name: getattr(settings, field.name) for field in fields(settings)})
