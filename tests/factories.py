"""Plans and their parts for tests, without files or models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srpipe.plan.geometry import Size
from srpipe.plan.image_info import FileIdentity, ImageInfo, guess_content
from srpipe.plan.job import Plan, make_plan
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.output import parse_output
from srpipe.settings import Settings


def image_info(**changes: Any) -> ImageInfo:
    facts: dict[str, Any] = {
        "path": "in.tif", "size": Size(300, 200), "bands": 3, "dtype": "uint8",
        "interpretation": "srgb", "icc_bytes": 0, "loader": "tiffload_source", "pages": 1,
        "untrusted": False, "decoded_whole": False,
        "identity": FileIdentity(1000, 0, "0" * 64),
    }  # fmt: skip
    facts |= changes
    content, alpha = guess_content(facts["bands"], facts["interpretation"])
    return ImageInfo(**({"content": content, "alpha_band": alpha} | facts))


def model_info(**changes: Any) -> ModelInfo:
    facts: dict[str, Any] = {
        "path": "m.onnx", "name": "m", "sha256": "0" * 64, "file_bytes": 1, "input_name": "input",
        "output_name": "output", "outputs": (), "layout": "NCHW", "dtype": "float32",
        "channels": 3, "scale": 2, "lost_px": 0,
        "batch": None, "height_px": None, "width_px": None, "multiple_px": 1, "least_px": 1,
        "batch_exact": True, "radius_px": 2, "halo_px": None, "halo_from": None,
        "value_range": (0.0, 1.0), "white": None, "bgr": False, "tile_px": None, "metadata": {},
    }  # fmt: skip
    return ModelInfo(**(facts | changes))


def make_test_plan(
    tmp_path: Path,
    *,
    image: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    output: str = "out.tif",
    device: str = "cpu",
    cores: int = 2,
    **settings: Any,
) -> Plan:
    """A plan on the grid of the image alone, unless ``edges`` is given."""
    job_dir = tmp_path / "job"
    job_dir.mkdir(exist_ok=True)
    return make_plan(
        Settings(**({"edges": "none"} | settings)),
        image_info(**(image or {})),
        model_info(**(model or {})),
        parse_output(str(tmp_path / output)),
        device=device,
        cores=cores,
        job_dir=str(job_dir),
    )
