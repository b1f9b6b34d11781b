"""Third stage: runs the model."""

from __future__ import annotations

import time

from srpipe.errors import InferenceError
from srpipe.io.external_data import hash_model
from srpipe.io.session import Session
from srpipe.models.rewrite.verdict import Rewritten, read_graph
from srpipe.plan.job import Plan
from srpipe.runtime.messages import Done, Instruction, Run
from srpipe.runtime.slots import Slots


class Worker:
    """Runs the model from batch slots into result slots, on several threads of one session."""

    def __init__(self, plan: Plan, slots: Slots, number: int) -> None:
        """Load the model.

        Args:
            plan: the job.
            slots: mapped in this process.
            number: the worker's, which says whose turn it is among the devices.
        """
        self.runners = plan.runners
        self._output_name = plan.model.output_name
        self._slots = slots
        if hash_model(plan.model.path) != plan.model.sha256:
            raise InferenceError(
                f"{plan.model.path} changed while the job was running: put the old model back, or "
                "start over with --fresh."
            )
        device = plan.devices[number % len(plan.devices)]
        self._session = Session(plan.model.path, device, plan.run_threads, _content(plan))
        self._input_name = self._session.inputs[0].name

    def handle(self, instruction: Instruction) -> Done:
        """Run one batch."""
        assert isinstance(instruction, Run)
        begin = time.perf_counter()
        batch = self._slots.batches[instruction.batch_slot]
        result = self._slots.results[instruction.result_slot]
        n = instruction.tiles_at_once
        for stop in range(n, len(batch) + n, n):
            # One shape for every run: where the last would be smaller, it repeats some tiles.
            tiles = slice(min(stop, len(batch)) - n, min(stop, len(batch)))
            self._session.run(self._input_name, self._output_name, batch[tiles], result[tiles])
        return Done(instruction, time.perf_counter() - begin)

    def abort(self) -> None:
        """Nothing to undo."""


def _content(plan: Plan) -> bytes | None:
    """The rewritten graph, or with the conversion of integers in it; None: the file as it is."""
    content = None
    if plan.rewrites:
        content = read_graph(plan.model.path, Rewritten(plan.rewrites, plan.graph_sha256))
    if not plan.integer_input:
        return content
    from srpipe.models.integer_input import take_integers  # imports onnx

    table = plan.colour.table(plan.image.dtype, plan.model.dtype)
    return take_integers(plan.model, table, content)
