"""Many images through one model: it is loaded and probed once, and its sessions stay."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy.typing as npt

from srpipe.api import PathLike, carry_out, start_model
from srpipe.arrays import through_files
from srpipe.at_once import run_at_once
from srpipe.errors import SettingsError, SrpipeError
from srpipe.forks import in_fork, refuse_in_fork
from srpipe.io.processor import available_cores
from srpipe.jobs import Job, start_job
from srpipe.plan.model_info import ModelInfo
from srpipe.runtime.events import ProgressCallback, Report
from srpipe.runtime.warm import Warm
from srpipe.settings import DEFAULT_MODEL, Settings
from srpipe.stop import StopRequest

# What decides which model runs, and how.
_FIXED = ("model", "device", "output_name", "value_range", "rewrite")
_WAIT_S = 0.5
_CORES_PER_IMAGE = 8

Outcome = tuple[PathLike, PathLike, Report | SrpipeError]


def images_at_once(wanted: int | None) -> int:
    """How many images are under way; None: two, and one more for every eight cores.

    Raises:
        SettingsError: less than one.
    """
    if wanted is None:
        return 2 + available_cores() // _CORES_PER_IMAGE
    if wanted < 1:
        raise SettingsError(f"at_once is {wanted}: it must be 1 image or more.")
    return wanted


class Enhancer:
    """Enhances images one after the other, or several at once, with a model that stays loaded.

    ``settings`` are what every image starts from; it can be pickled, and travels as them. Safe to call
    from several threads: images then run side by side and share the cores; ``memory_bytes`` is what
    each may take. One that fails leaves it usable. What ``srpipe tune`` found is used; nothing else is
    measured.
    A model file that changes meanwhile is an error, once a session has to be loaded again. Images of
    many tiles are carried out by processes of their own, as :func:`srpipe.enhance` does, which load the
    model themselves; one such image at a time has the machine.
    """

    def __init__(self, model: PathLike = DEFAULT_MODEL, **settings: Any) -> None:
        """Find the model and find out what it does.

        Args:
            model: a bundled model's name, or the path of an .onnx file.
            settings: as :func:`srpipe.enhance` takes them.

        Raises:
            SettingsError: a setting is out of range.
            ModelError, DeviceError: the model cannot be used.
        """
        self._set_up(Settings(model=os.fspath(model), **settings))
        _ = self._started

    def _set_up(self, settings: Settings) -> None:
        self.settings = settings
        self._warm = Warm()
        self._under_way: list[tuple[int, StopRequest]] = []
        """Images, by the thread that enhances them."""
        self._changed = threading.Condition()
        self._closed = False

    @functools.cached_property
    def _started(self) -> tuple[str, ModelInfo]:
        return start_model(self.settings)

    @property
    def device(self) -> str:
        """Where the model runs."""
        return self._started[0]

    @property
    def model(self) -> ModelInfo:
        """What the model is and does."""
        return self._started[1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its settings: what arrives is another Enhancer, which finds the model when it is
        first used. An error while unpickling would be lost in a pool of processes.
        """
        return _from_settings, (self.settings,)

    def enhance(
        self,
        src: PathLike,
        dst: PathLike,
        *,
        progress: ProgressCallback | None = None,
        stop: StopRequest | None = None,
        **changes: Any,
    ) -> Report:
        """Enhance one image file; see :func:`srpipe.enhance`.

        Args:
            src: the input.
            dst: the output.
            progress: called with a :class:`ProgressEvent` from the calling thread.
            stop: lets a signal handler or another thread ask the run to stop.
            changes: settings that are others for this image; not the model's.

        Raises:
            RequestError: the request cannot be carried out; nothing was begun.
            RunError: the run failed after it began; nothing is at ``dst``.
            Interrupted: ``stop`` asked for it, or the ``with`` block was left by an exception.
        """
        begin_s = time.monotonic()
        refuse_in_fork()  # where locks may be held by threads that are not there
        if fixed := sorted(changes.keys() & set(_FIXED)):
            raise SettingsError(f"{fixed[0]} is the same for all images: make another Enhancer.")
        settings = replace(self.settings, **changes)
        stop = stop or StopRequest()
        with self._taking_part(stop):
            return carry_out(
                os.fspath(src),
                os.fspath(dst),
                settings,
                progress,
                begin_s,
                stop,
                self._started,
                self._warm,
            )

    def enhance_array(self, array: npt.ArrayLike, **changes: Any) -> npt.NDArray[Any]:
        """Enhance an array of pixels; see :func:`srpipe.enhance_array`."""
        return through_files(array, self.enhance, changes)

    def start(self, src: PathLike, dst: PathLike, **changes: Any) -> Job:
        """Enhance one image file in a thread of its own; see :class:`srpipe.Job`.

        Args:
            src: the input.
            dst: the output.
            changes: as for :meth:`enhance`.
        """
        return start_job(self.enhance, src, dst, changes)

    def map(
        self,
        pairs: Iterable[tuple[PathLike, PathLike]],
        *,
        at_once: int | None = None,
        **changes: Any,
    ) -> Iterator[Outcome]:
        """Enhance many image files, a few at once: one is read or encoded while others are computed.

        Args:
            pairs: inputs and outputs; taken from as images are finished.
            at_once: how many images are under way; None: two, and one more for every eight cores.
            changes: as for :meth:`enhance`.

        Yields:
            ``(src, dst, report)`` as they are done, with an error in the report's place where an
            image failed. Where the iterator is given up, images under way stop.
        """
        return self._map(iter(pairs), images_at_once(at_once), changes)

    def _map(
        self, pairs: Iterator[tuple[PathLike, PathLike]], at_once: int, changes: dict[str, Any]
    ) -> Iterator[Outcome]:
        stop = StopRequest()

        def run(src: PathLike, dst: PathLike) -> Outcome:
            try:
                return src, dst, self.enhance(src, dst, stop=stop, **changes)
            except SrpipeError as error:
                return src, dst, error

        yield from run_at_once((partial(run, *pair) for pair in pairs), at_once, stop)

    def close(self) -> None:
        """Take no more images, wait for those of other threads, and let go of the model."""
        if in_fork():  # without those threads
            return
        me = threading.get_ident()
        with self._changed:
            self._closed = True
            while any(thread != me for thread, _ in self._under_way):
                self._changed.wait(_WAIT_S)
        self._warm = Warm()

    @contextlib.contextmanager
    def _taking_part(self, stop: StopRequest) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise SettingsError("this Enhancer is closed: make another one.")
            image = threading.get_ident(), stop
            self._under_way.append(image)
        try:
            yield
        finally:
            with self._changed:
                self._under_way.remove(image)
                self._changed.notify_all()

    def __enter__(self) -> Enhancer:
        """The Enhancer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; after an exception, images that other threads have under way stop."""
        if kind is not None and not in_fork():
            with self._changed:
                self._closed = True
                # Once each: a second request means at once, and several images may share one.
                for stop in {id(stop): stop for _, stop in self._under_way}.values():
                    if not stop.times:
                        stop.request()
        self.close()


def _from_settings(settings: Settings) -> Enhancer:
    enhancer = Enhancer.__new__(Enhancer)
    enhancer._set_up(settings)
    return enhancer
