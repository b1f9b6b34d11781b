"""Every error srpipe raises on purpose.

    SrpipeError
    ├── RequestError            the request cannot be carried out; known before any work (exit 2)
    │   ├── SettingsError       an argument is out of range, or two contradict each other
    │   ├── InputError          the input is missing, unreadable, or of a kind srpipe does not take
    │   ├── OutputError         the output place or format cannot hold the result
    │   ├── JobError            the job folder holds another job, is damaged, or is in use
    │   ├── ModelError          the model is unknown, corrupt, or no image-to-image model
    │   ├── DeviceError         the ONNX Runtime device is not there
    │   ├── ClusterError        the machines of a cluster cannot be reached, or do not fit together
    │   └── SpaceError          too little disk or memory
    ├── RunError                the run failed after it began; a checkpoint keeps its work (exit 1)
    │   ├── ReadError           the input broke while it was read
    │   ├── InferenceError      the model failed, or gave NaN or infinity
    │   │   └── OutOfMemoryError    it ran out of memory
    │   ├── WriteError          pixels or the output could not be written
    │   ├── CoverageError       a pixel was left without a tile
    │   └── StageError          a process of the run died or misbehaved
    └── Interrupted             the caller asked the run to stop (exit 130)

A message says what was wrong, with which file and value, and what to do.
"""


class SrpipeError(Exception):
    """Base of all errors srpipe raises on purpose; ``exit_code`` is the command line's."""

    exit_code = 1


class RequestError(SrpipeError):
    """The request cannot be carried out; nothing was begun."""

    exit_code = 2


class SettingsError(RequestError):
    """An argument is out of range, or two arguments contradict each other."""


class InputError(RequestError):
    """The input is missing, unreadable, or of a kind srpipe does not take."""


class OutputError(RequestError):
    """The output place or format cannot hold the result."""


class JobError(RequestError):
    """The job folder holds another job, is damaged, or is in use by another process."""


class ModelError(RequestError):
    """The model is unknown, corrupt, or no image-to-image model."""


class DeviceError(RequestError):
    """The ONNX Runtime device is not there."""


class ClusterError(RequestError):
    """The machines of a cluster cannot be reached, are too few, or do not fit together."""


class SpaceError(RequestError):
    """Too little disk or memory for the job."""


class RunError(SrpipeError):
    """The run failed after it began; what its last checkpoint holds is kept."""


class ReadError(RunError):
    """The input broke while it was read."""


class InferenceError(RunError):
    """The model failed on a batch, or gave NaN or infinity."""


class OutOfMemoryError(InferenceError):
    """The model ran out of memory on a batch."""


class WriteError(RunError):
    """Pixels or the output could not be written."""


class CoverageError(RunError):
    """A pixel of the output was left without a tile: a bug in srpipe, never a result."""


class StageError(RunError):
    """A process of the run died or misbehaved."""


class Interrupted(SrpipeError):  # noqa: N818 (an interruption is no error)
    """The caller asked the run to stop; the same request goes on from its last checkpoint."""

    exit_code = 130
