"""What is foretold of a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from srpipe.plan.geometry import Size
from srpipe.plan.job import ResolvedEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a job would be and take; as plain values with :meth:`as_dict`."""

    input: str
    output: str
    job_dir: str
    model: str
    input_kind: str
    """What its bands are: RGB, grey + alpha and so on."""
    input_dtype: str
    pages: int
    """Pages of the input; only the first is enhanced."""
    icc_bytes: int
    """Length of the input's colour profile, 0 without one."""
    input_size: Size
    output_size: Size
    output_format: str
    output_options: str
    tiles: int
    columns: int
    rows: int
    tile: Size
    """Input pixels, as the model sees it."""
    stride: Size
    overlap: Size
    """Input pixels that two neighbours share at least."""
    redundancy: float
    """Share of the model's work beyond one computation per input pixel."""
    blend: str
    batch_size: int
    workers: int
    threads: int
    """Cores of one session."""
    runners: int
    device: str
    engine: ResolvedEngine
    rewrites: tuple[str, ...]
    seconds: float
    """The whole job, from its start to the file in place."""
    start_s: float
    """Of it, until the first tile is done."""
    decode_s: float
    """Processor time that decoding the input takes beside the other stages."""
    tile_s: float
    """Seconds from one tile done to the next: model, blending and encoding together."""
    end_s: float
    """From the last tile to the file in place."""
    sample_tiles: int
    """Tiles that were timed."""
    memory_bytes: int
    """Of all processes together, at the peak."""
    model_memory_bytes: int
    """Of it, what the sessions take."""
    job_disk_bytes: int
    """Pixels and seams in the job folder, until the job is done."""
    output_bytes: int
    """The output file, as well as the sample's was compressed."""
    free_disk_bytes: int
    """Where the output goes."""
    warnings: tuple[str, ...]
    """What to think of before the job is begun."""

    @property
    def output_mp_per_s(self) -> float:
        """Megapixels of output per second."""
        return self.output_size.megapixels / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """All fields and the rate as plain values, for JSON."""
        return asdict(self) | {"output_mp_per_s": self.output_mp_per_s}
