"""srpipe enhances images that do not fit in memory, tile by tile, with ONNX models.

Names are imported when they are first used: the processes of a job load only what they need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srpipe.api import enhance
    from srpipe.arrays import enhance_array
    from srpipe.enhancer import Enhancer
    from srpipe.errors import (
        ClusterError,
        CoverageError,
        DeviceError,
        InferenceError,
        InputError,
        Interrupted,
        JobError,
        ModelError,
        OutOfMemoryError,
        OutputError,
        ReadError,
        RequestError,
        RunError,
        SettingsError,
        SpaceError,
        SrpipeError,
        StageError,
        WriteError,
    )
    from srpipe.folders import enhance_folder
    from srpipe.forecast.estimate import estimate
    from srpipe.forecast.report import PlanReport
    from srpipe.io.job_status import JobStatus, read_job_status
    from srpipe.io.model_probe import probe_model
    from srpipe.io.source import read_image_info
    from srpipe.jobs import Job, start
    from srpipe.manifest import FileOutcome
    from srpipe.models.convert import Conversion, convert_model
    from srpipe.models.quantize import QuantizeReport, quantize_model
    from srpipe.models.zoo import bundled_models
    from srpipe.plan.geometry import Size
    from srpipe.plan.image_info import ImageInfo
    from srpipe.plan.model_info import ModelInfo
    from srpipe.runtime.events import ProgressEvent, Report
    from srpipe.slabs.whole import assemble
    from srpipe.stop import StopRequest

__version__ = "0.1.0"

__all__ = [
    "ClusterError",
    "Conversion",
    "CoverageError",
    "DeviceError",
    "Enhancer",
    "FileOutcome",
    "ImageInfo",
    "InferenceError",
    "InputError",
    "Interrupted",
    "Job",
    "JobError",
    "JobStatus",
    "ModelError",
    "ModelInfo",
    "OutOfMemoryError",
    "OutputError",
    "PlanReport",
    "ProgressEvent",
    "QuantizeReport",
    "ReadError",
    "Report",
    "RequestError",
    "RunError",
    "SettingsError",
    "Size",
    "SpaceError",
    "SrpipeError",
    "StageError",
    "StopRequest",
    "WriteError",
    "assemble",
    "bundled_models",
    "convert_model",
    "enhance",
    "enhance_array",
    "enhance_folder",
    "estimate",
    "probe_model",
    "quantize_model",
    "read_image_info",
    "read_job_status",
    "start",
]

_HOMES = {
    "ClusterError": "srpipe.errors",
    "Conversion": "srpipe.models.convert",
    "CoverageError": "srpipe.errors",
    "DeviceError": "srpipe.errors",
    "Enhancer": "srpipe.enhancer",
    "FileOutcome": "srpipe.manifest",
    "ImageInfo": "srpipe.plan.image_info",
    "InferenceError": "srpipe.errors",
    "InputError": "srpipe.errors",
    "Interrupted": "srpipe.errors",
    "Job": "srpipe.jobs",
    "JobError": "srpipe.errors",
    "JobStatus": "srpipe.io.job_status",
    "ModelError": "srpipe.errors",
    "ModelInfo": "srpipe.plan.model_info",
    "OutOfMemoryError": "srpipe.errors",
    "OutputError": "srpipe.errors",
    "PlanReport": "srpipe.forecast.report",
    "ProgressEvent": "srpipe.runtime.events",
    "QuantizeReport": "srpipe.models.quantize",
    "ReadError": "srpipe.errors",
    "Report": "srpipe.runtime.events",
    "RequestError": "srpipe.errors",
    "RunError": "srpipe.errors",
    "SettingsError": "srpipe.errors",
    "Size": "srpipe.plan.geometry",
    "SpaceError": "srpipe.errors",
    "SrpipeError": "srpipe.errors",
    "StageError": "srpipe.errors",
    "StopRequest": "srpipe.stop",
    "WriteError": "srpipe.errors",
    "assemble": "srpipe.slabs.whole",
    "bundled_models": "srpipe.models.zoo",
    "convert_model": "srpipe.models.convert",
    "enhance": "srpipe.api",
    "enhance_array": "srpipe.arrays",
    "enhance_folder": "srpipe.folders",
    "estimate": "srpipe.forecast.estimate",
    "probe_model": "srpipe.io.model_probe",
    "quantize_model": "srpipe.models.quantize",
    "read_image_info": "srpipe.io.source",
    "read_job_status": "srpipe.io.job_status",
    "start": "srpipe.jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'srpipe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
