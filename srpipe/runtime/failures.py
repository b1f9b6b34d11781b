"""What a stage says of an exception."""

from __future__ import annotations

import errno
import traceback

from srpipe.errors import OutOfMemoryError, SrpipeError, StageError
from srpipe.runtime.messages import Failed, Instruction


def failed(error: BaseException, stage: str, instruction: Instruction | None) -> Failed:
    """The message that an instruction, or with None the setting up of ``stage``, failed."""
    if isinstance(error, OutOfMemoryError):
        # A new one: the traceback of the old one holds on to the session and its memory.
        return Failed(OutOfMemoryError(str(error)), "", instruction)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return Failed(OutOfMemoryError(f"the {stage} ran out of memory."), "", instruction)
    if isinstance(error, SrpipeError):
        return Failed(error, "", instruction)
    said = " ".join(str(error).split())
    message = f"the {stage} failed unexpectedly ({type(error).__name__}: {said})."
    return Failed(StageError(message), "".join(traceback.format_exception(error)), instruction)
