"""Fixed pieces of shared memory: tiles, batches and results in flight.

Who may touch a slot, and when, is the scheduler's to say (:mod:`srpipe.runtime.scheduler` states
the table); here is only where the slots lie.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from srpipe.io.space import private_memory
from srpipe.plan.colour import Pixels
from srpipe.plan.geometry import round_up
from srpipe.plan.job import Plan
from srpipe.plan.memory import Shape, count

_ALIGNMENT_BYTES = 64


class Slots:
    """Numpy views of all slots of a job over one piece of memory."""

    def __init__(self, plan: Plan, memory: mmap.mmap) -> None:
        """Lay the slots out over ``memory``, which must hold :func:`slots_bytes`."""
        shapes, counts = plan.slot_shapes, plan.slot_counts
        self._memory = memory
        self._offset = 0
        pixel, value = np.dtype(plan.image.numpy_dtype), np.dtype(plan.model.dtype)
        self.tiles: list[Pixels] = [self._take(shapes.tile, pixel) for _ in range(counts.tile)]
        batch = np.dtype(plan.batch_dtype)
        self.batches = [self._take(shapes.batch, batch) for _ in range(counts.batch)]
        self.results = [self._take(shapes.result, value) for _ in range(counts.result)]

    def _take(self, shape: Shape, dtype: np.dtype) -> npt.NDArray:  # type: ignore[type-arg]
        flat = np.frombuffer(self._memory, dtype, count(shape), self._offset)
        self._offset += round_up(flat.nbytes, _ALIGNMENT_BYTES)
        return flat.reshape(shape)


def slots_bytes(plan: Plan) -> int:
    """Bytes that the slots of a plan take, alignment included."""
    counts = plan.slot_counts
    return plan.slot_bytes + _ALIGNMENT_BYTES * (counts.tile + counts.batch + counts.result)


class LocalSlotMemory:
    """Memory of this process alone for the slots of jobs; what one gives back the next one takes.

    Fresh memory is zeroed by the kernel, which costs a small job a tenth of its time. Safe to use from
    several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []

    @contextlib.contextmanager
    def slots(self, plan: Plan) -> Iterator[Slots]:
        """Slots for one job, which nobody may touch after the ``with`` block.

        Raises:
            SpaceError: too little memory.
        """
        memory = self._take(slots_bytes(plan))
        yield Slots(plan, memory)
        # Not after an exception: threads that did not end in time may still write there.
        with self._lock:
            self._free.append(memory)

    def _take(self, n_bytes: int) -> mmap.mmap:
        with self._lock:
            self._free.sort(key=len)
            for i, memory in enumerate(self._free):
                if len(memory) >= n_bytes:
                    return self._free.pop(i)
            self._free.clear()  # too small, and in the way of a larger one
        return private_memory(n_bytes)


def shared_slots(plan: Plan, descriptor: int) -> Slots:
    """Slots in memory that other processes map too."""
    return Slots(plan, mmap.mmap(descriptor, slots_bytes(plan)))
