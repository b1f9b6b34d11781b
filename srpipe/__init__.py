"""srpipe enhances images that do not fit in memory, tile by tile, with ONNX models."""

from srpipe.api import enhance
from srpipe.errors import (
    CoverageError,
    DeviceError,
    InferenceError,
    InputError,
    ModelError,
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
from srpipe.io.model_probe import probe_model
from srpipe.io.source import read_image_info
from srpipe.models.zoo import bundled_models
from srpipe.plan.geometry import Size
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.model_info import ModelInfo
from srpipe.runtime.events import ProgressEvent, Report

__version__ = "0.1.0"

__all__ = [
    "CoverageError",
    "DeviceError",
    "ImageInfo",
    "InferenceError",
    "InputError",
    "ModelError",
    "ModelInfo",
    "OutputError",
    "ProgressEvent",
    "ReadError",
    "Report",
    "RequestError",
    "RunError",
    "SettingsError",
    "Size",
    "SpaceError",
    "SrpipeError",
    "StageError",
    "WriteError",
    "bundled_models",
    "enhance",
    "probe_model",
    "read_image_info",
]
