"""The pipeline against the raw session and the plain loop, in turn, on one picture and model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srpipe.api import prepare
from srpipe.plan.job import Plan
from srpipe.settings import Settings

from .contest import Contender, nearness_to_whole
from .raw_session import Arrangement
from .report import Say
from .runs import Run, db_json, measure, median_cpu_ratio, median_ratio, median_s, psnr
from .task import Kind, Request, run_task
from .weights import COMPACT

DEFAULT_MODELS = ("lite-x2", COMPACT)
# Compact computes about a tenth of a megapixel a second on two cores.
COMPACT_MP = 4.0


@dataclass(frozen=True)
class Result:
    """All rounds of one model on one picture."""

    model: str
    picture_mp: float
    model_mp: float
    """Pixels of input that the model computes in the pipeline, padding and overlaps included."""
    tile: str
    stride: str
    batch_size: int
    arrangement: Arrangement
    """Of the raw session."""
    raw: tuple[Run, ...]
    pipeline: tuple[Run, ...]
    loop: tuple[Run, ...]
    """Empty where the loop does not know how to call the model."""
    psnr_db: float | None
    """The pipeline's output against the loop's; infinite where they are the same."""
    whole_db: dict[str, float]
    """Of pipeline and loop on a crop, against the model's result for it at once; empty: not tried."""

    @property
    def raw_mp_per_s(self) -> float:
        """Of model input, median."""
        return self.model_mp / median_s(self.raw)

    @property
    def pipeline_mp_per_s(self) -> float:
        """Of model input, median."""
        return self.model_mp / median_s(self.pipeline)

    @property
    def pipeline_per_raw(self) -> float:
        """Median of the rounds' ratios of speeds."""
        return median_ratio(self.raw, self.pipeline)

    @property
    def pipeline_per_raw_cpu(self) -> float:
        """The same by processor time: what it would be if no core ever waited.

        Other programs on the machine disturb it little.
        """
        return median_cpu_ratio(self.raw, self.pipeline)

    @property
    def loop_per_pipeline(self) -> float | None:
        """Median of the rounds' ratios of seconds."""
        return median_ratio(self.loop, self.pipeline) if self.loop else None

    @property
    def loop_per_pipeline_cpu(self) -> float | None:
        """The same by processor time."""
        return median_cpu_ratio(self.loop, self.pipeline) if self.loop else None

    def typical(self, kind: Kind) -> Run:
        """The run of median time; of an even number the slower of the two in the middle."""
        runs: tuple[Run, ...] = getattr(self, kind)
        return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]

    def as_dict(self) -> dict[str, Any]:
        """All fields and what follows from them, for JSON."""
        derived: dict[str, Any] = {
            "raw_mp_per_s": self.raw_mp_per_s,
            "pipeline_mp_per_s": self.pipeline_mp_per_s,
            "pipeline_per_raw": self.pipeline_per_raw,
            "pipeline_per_raw_cpu": self.pipeline_per_raw_cpu,
            "loop_per_pipeline": self.loop_per_pipeline,
            "loop_per_pipeline_cpu": self.loop_per_pipeline_cpu,
            "psnr_db": db_json(self.psnr_db),
            "whole_db": {kind: db_json(db) for kind, db in self.whole_db.items()},
        }
        return asdict(self) | derived


def measure_model(
    name: str, model: Path, source: Path, folder: Path, rounds: int, say: Say, whole_mp: float = 0
) -> Result:
    """Measure raw session, pipeline and loop in turn, ``rounds`` times.

    Args:
        name: what the model is called in the result.
        model: its file.
        source: the picture.
        folder: for outputs.
        rounds: how often.
        say: called with progress.
        whole_mp: size of the crop that the model is run on at once; 0: not tried.

    Raises:
        TaskError: a measurement failed.
        SrpipeError: the picture or the model is of no use.
    """
    outputs: dict[Kind, Path] = {kind: folder / f"{kind}.tif" for kind in ("pipeline", "loop")}
    plan = prepare(
        str(source), str(outputs["pipeline"]), Settings(model=str(model), overwrite=True)
    )
    fastest, _ = run_task(Request("calibrate", str(source), str(folder / "raw.tif"), str(model)))
    arrangement = Arrangement(**fastest)
    say(f"{name}: {plan.image.size}, {plan.grid.n_tiles} tiles; raw session: {arrangement}")
    kinds: list[Kind] = ["raw", "pipeline"]
    if loop_can_call(plan):
        kinds.append("loop")
    tilings = [Contender(kind, kind, str(model)) for kind in kinds if kind != "raw"]
    whole_db = nearness_to_whole(tilings, model, source, whole_mp, folder)
    runs: dict[Kind, list[Run]] = {"raw": [], "pipeline": [], "loop": []}
    for number in range(1, rounds + 1):
        for kind in kinds:
            output = outputs.get(kind, folder / "raw.tif")
            request = Request(kind, str(source), str(output), str(model), **asdict(arrangement))
            run = measure(request)
            runs[kind].append(run)
            say(
                f"{name}: round {number} of {rounds}, {kind}: {run.seconds:.2f} s, "
                f"{run.cpu_s:.1f} s of processor time (others: {run.usage.others_cpu_s:.1f} s)"
            )
    psnr_db = psnr(outputs["pipeline"], outputs["loop"]) if "loop" in kinds else None
    for path in outputs.values():
        path.unlink(missing_ok=True)
    return Result(
        model=name,
        picture_mp=plan.image.size.megapixels,
        model_mp=plan.grid.model_pixels / 1e6,
        tile=str(plan.grid.tile),
        stride=f"{plan.grid.x.stride_px}x{plan.grid.y.stride_px}",
        batch_size=plan.batch_size,
        arrangement=arrangement,
        raw=tuple(runs["raw"]),
        pipeline=tuple(runs["pipeline"]),
        loop=tuple(runs["loop"]),
        psnr_db=psnr_db,
        whole_db=whole_db,
    )


def loop_can_call(plan: Plan) -> bool:
    """Whether the plain loop can do the same job."""
    model, image = plan.model, plan.image
    free = model.batch in (None, 1) and model.height_px is None and model.width_px is None
    usual = model.layout == "NCHW" and model.dtype == "float32" and model.value_range == (0, 1)
    # The loop's tiles at the border of a small picture are of any size.
    any_size = model.multiple_px == 1 or min(image.size.width, image.size.height) >= 256
    rgb = model.channels == 3 and not model.bgr and image.bands == 3 and image.dtype == "uint8"
    return free and usual and any_size and rgb
