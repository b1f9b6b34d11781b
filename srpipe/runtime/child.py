"""The main function of a stage's process.

The main thread only waits for instructions; the work is done in threads, so that the end of the
supervisor is noticed at once, even in the middle of a long run: its end of the connection closes,
and the process removes what it left unfinished and exits. Numba, libvips and ONNX Runtime let go of
the interpreter while they work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from srpipe.runtime.failures import failed
from srpipe.runtime.messages import Done, Failed, Instruction, Setup
from srpipe.runtime.slots import shared_slots
from srpipe.runtime.stages import Stage, make_stage


class _Replies:
    """The connection's sending side, shared by the runner threads."""

    def __init__(self, connection: Connection, stage: str) -> None:
        self._connection = connection
        self._stage = stage
        self._lock = threading.Lock()

    def send(self, message: Done | Failed) -> None:
        # A supervisor that is gone is the main thread's to notice.
        with self._lock, contextlib.suppress(OSError):
            self._connection.send(message)

    def fail(self, error: Exception, instruction: Instruction | None) -> None:
        self.send(failed(error, self._stage, instruction))


def main(connection: Connection) -> None:
    """Serve one stage until the supervisor closes the connection."""
    setup: Setup = connection.recv()
    replies = _Replies(connection, setup.stage)
    try:
        slots = shared_slots(setup.plan, setup.slots_descriptor)
        stage = make_stage(
            setup.stage, setup.plan, slots, setup.partial_output, setup.at, setup.worker
        )
    except Exception as error:  # whatever it is, the supervisor must hear of it
        replies.fail(error, None)
        os._exit(1)
    _serve(connection, stage, replies)


def _serve(connection: Connection, stage: Stage, replies: _Replies) -> None:
    def carry_out(instruction: Instruction) -> None:
        try:
            replies.send(stage.handle(instruction))
        except Exception as error:  # whatever it is, the supervisor must hear of it
            replies.fail(error, instruction)

    finished = False
    with ThreadPoolExecutor(stage.runners) as pool:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                break
            if message is None:
                finished = True
                break
            pool.submit(carry_out, message)
        if not finished:
            stage.abort()
        os._exit(0)
