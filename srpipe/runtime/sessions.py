"""Loads the sessions of workers, and shares them between the workers that want the same."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator

import numpy as np

from srpipe.errors import InferenceError
from srpipe.io.binding import Batch, Tensor
from srpipe.io.external_data import hash_model
from srpipe.io.session import Session, Terminator
from srpipe.models.rewrite.verdict import Rewritten, read_graph
from srpipe.plan.job import Plan
from srpipe.plan.model_info import put_inside

_WAIT_S = 0.5
# Small images of one to as many tiles as there are cores share the cores in different ways.
_MOST_SESSIONS = 4


class SharedSession:
    """A session, and how many runs of it may be under way at once, whosever they are."""

    def __init__(self, plan: Plan, number: int) -> None:
        """Load the model of ``plan`` for the worker of that number."""
        self._model = plan.model
        if hash_model(plan.model.path) != plan.model.sha256:
            raise InferenceError(
                f"{plan.model.path} changed while the job was running: put the old model back, or "
                "start over with --fresh."
            )
        device = plan.devices[number % len(plan.devices)]
        self._session = Session(plan.model.path, device, plan.run_threads, session_content(plan))
        self._input_name = self._session.inputs[0].name
        self._turns = threading.BoundedSemaphore(
            max(plan.runners, plan.threads // plan.run_threads)
        )
        self.spent = False
        """Whether it ran out of memory: nothing more may be begun with it."""

    @contextlib.contextmanager
    def turn(self, terminator: Terminator) -> Iterator[None]:
        """Wait until one more run may begin, and let another begin after it.

        Raises:
            InferenceError: the runs of ``terminator`` are ended.
        """
        while not self._turns.acquire(timeout=_WAIT_S):
            if terminator.terminated:
                raise InferenceError("the run was given up.")
        try:
            yield
        finally:
            self._turns.release()

    def run(self, batch: Batch, result: Tensor, terminator: Terminator) -> None:
        """Run the model; see :meth:`Session.run`."""
        names = self._input_name, self._model.output_name
        lost_px, layout = self._model.lost_px, self._model.layout
        if not lost_px:
            self._session.run(*names, batch, result, terminator)
            return
        smaller = np.empty(self._model.result_shape(batch.shape), result.dtype)
        self._session.run(*names, batch, smaller, terminator)
        result[...] = put_inside(smaller, lost_px, layout)


class Sessions:
    """Sessions by what makes them different; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[Hashable, SharedSession] = OrderedDict()

    def get(self, plan: Plan, number: int = 0) -> SharedSession:
        """The session of a plan for the worker of that number; loaded where it is not yet.

        Raises:
            InferenceError: the model's file has changed since it was probed.
            ModelError, DeviceError, OutOfMemoryError: as :class:`srpipe.io.session.Session`.
        """
        key = _key(plan, number)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = SharedSession(plan, number)
                if len(self._sessions) > max(_MOST_SESSIONS, plan.workers):
                    self._sessions.popitem(last=False)  # gone when the last that runs it is done
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def forget(self, session: SharedSession) -> None:
        """Take note that a session must not be used again, by anybody."""
        session.spent = True
        with self._lock:
            for key in [k for k, s in self._sessions.items() if s is session]:
                del self._sessions[key]


def _key(plan: Plan, number: int) -> Hashable:
    integers = (plan.image.dtype, plan.colour) if plan.integer_input else None
    model = plan.model
    return (model.path, model.sha256, model.output_name, plan.graph_sha256, number, plan.device,
            plan.run_threads, integers)  # fmt: skip


def session_content(plan: Plan) -> bytes | None:
    """The rewritten graph, or with the conversion of integers in it; None: the file as it is."""
    content = None
    if plan.rewrites:
        content = read_graph(plan.model.path, Rewritten(plan.rewrites, plan.graph_sha256))
    if not plan.integer_input:
        return content
    from srpipe.models.integer_input import take_integers  # imports onnx

    table = plan.colour.table(plan.image.dtype, plan.model.dtype)
    return take_integers(plan.model, table, content, signed=plan.image.dtype == "int16")
