"""The pipeline against the raw session and the plain loop, in turn, on one picture and model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyvips

from srpipe.api import find_model, prepare
from srpipe.io.source import read_image_info
from srpipe.plan.job import Plan
from srpipe.settings import Settings

from .compact import build_compact
from .mosaic import PictureSpec, make_picture
from .processes import Usage
from .raw_session import Arrangement
from .task import Kind, Request, run_task

COMPACT = "compact"
"""The name of the model that :mod:`benchmarks.compact` builds."""
DEFAULT_MODELS = ("lite-x2", COMPACT)
# Compact computes about a tenth of a megapixel a second on two cores.
COMPACT_MP = 4.0

_REPOSITORY = Path(__file__).resolve().parents[2]
# The largest photograph of Debian's package lomiri-wallpapers, 20 MP. Larger in it is a drawing only,
# whose plain areas make the output's compression cost nothing.
_WALLPAPER = Path("/usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg")
_TEST_PICTURES = _REPOSITORY / "tests" / "data"
_JPEG_OPTIONS = "[Q=95]"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One measurement."""

    seconds: float
    cpu_s: float
    """Processor seconds of all its processes."""
    stage_s: dict[str, float]
    """Busy seconds of the pipeline's stages, from its report."""
    usage: Usage


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

    @property
    def raw_mp_per_s(self) -> float:
        """Of model input, median."""
        return self.model_mp / _median_s(self.raw)

    @property
    def pipeline_mp_per_s(self) -> float:
        """Of model input, median."""
        return self.model_mp / _median_s(self.pipeline)

    @property
    def pipeline_per_raw(self) -> float:
        """Median of the rounds' ratios of speeds."""
        return _median_ratio(self.raw, self.pipeline)

    @property
    def pipeline_per_raw_cpu(self) -> float:
        """The same by processor time: what it would be if no core ever waited.

        Other programs on the machine disturb it little.
        """
        return median(a.cpu_s / b.cpu_s for a, b in zip(self.raw, self.pipeline, strict=True))

    @property
    def loop_per_pipeline(self) -> float | None:
        """Median of the rounds' ratios of seconds."""
        return _median_ratio(self.loop, self.pipeline) if self.loop else None

    def typical(self, kind: Kind) -> Run:
        """The run of median time; of an even number the slower of the two in the middle."""
        runs: tuple[Run, ...] = getattr(self, kind)
        return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]

    def as_dict(self) -> dict[str, Any]:
        """All fields and what follows from them, for JSON."""
        derived: dict[str, float | None] = {
            "raw_mp_per_s": self.raw_mp_per_s,
            "pipeline_mp_per_s": self.pipeline_mp_per_s,
            "pipeline_per_raw": self.pipeline_per_raw,
            "pipeline_per_raw_cpu": self.pipeline_per_raw_cpu,
            "loop_per_pipeline": self.loop_per_pipeline,
        }
        if self.psnr_db == math.inf:  # JSON knows no infinity
            derived["psnr_db"] = None
        return asdict(self) | derived


def _median_s(runs: Sequence[Run]) -> float:
    return median(run.seconds for run in runs)


def _median_ratio(above: Sequence[Run], below: Sequence[Run]) -> float:
    return median(a.seconds / b.seconds for a, b in zip(above, below, strict=True))


def measure_model(
    name: str, model: Path, source: Path, folder: Path, rounds: int, say: Say
) -> Result:
    """Measure raw session, pipeline and loop in turn, ``rounds`` times.

    Args:
        name: what the model is called in the result.
        model: its file.
        source: the picture.
        folder: for outputs.
        rounds: how often.
        say: called with progress.

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
    if _loop_can_call(plan):
        kinds.append("loop")
    runs: dict[Kind, list[Run]] = {"raw": [], "pipeline": [], "loop": []}
    for number in range(1, rounds + 1):
        for kind in kinds:
            output = outputs.get(kind, folder / "raw.tif")
            request = Request(kind, str(source), str(output), str(model), **asdict(arrangement))
            answer, usage = run_task(request)
            stage_s = answer.get("stage_s", {})
            runs[kind].append(Run(answer["seconds"], answer["cpu_s"], stage_s, usage))
            say(
                f"{name}: round {number} of {rounds}, {kind}: {answer['seconds']:.2f} s, "
                f"{answer['cpu_s']:.1f} s of processor time (others: {usage.others_cpu_s:.1f} s)"
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
    )


def _loop_can_call(plan: Plan) -> bool:
    model, image = plan.model, plan.image
    free = model.batch in (None, 1) and model.height_px is None and model.width_px is None
    usual = model.layout == "NCHW" and model.dtype == "float32" and model.value_range == (0, 1)
    # The loop's tiles at the border of a small picture are of any size.
    any_size = model.multiple_px == 1 or min(image.size.width, image.size.height) >= 256
    rgb = model.channels == 3 and not model.bgr and image.bands == 3 and image.dtype == "uint8"
    return free and usual and any_size and rgb


def psnr(a: Path, b: Path) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures, dB; streamed."""
    first, second = (pyvips.Image.new_from_file(str(path), access="sequential") for path in (a, b))
    error = ((first - second) ** 2).avg()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def model_file(name: str, folder: Path) -> Path:
    """The file of a model's name or path; Compact is built in ``folder``.

    Raises:
        ModelError: there is none.
    """
    return build_compact(folder / "compact.onnx") if name == COMPACT else find_model(name)


def default_pictures() -> list[Path]:
    """Debian's wallpaper, or else the pictures the tests use.

    Raises:
        FileNotFoundError: neither is there.
    """
    pictures = [_WALLPAPER] if _WALLPAPER.is_file() else sorted(_TEST_PICTURES.glob("*.jpg"))
    if not pictures:
        raise FileNotFoundError(
            f"there is neither {_WALLPAPER} nor a .jpg in {_TEST_PICTURES}: name a --picture"
        )
    return pictures


def picture_of(
    pictures: Sequence[Path], least_mp: float, most_mp: float | None, folder: Path
) -> Path:
    """A picture of the size wanted.

    Args:
        pictures: one picture, or several to build one of.
        least_mp: where one picture is smaller, a mosaic is made.
        most_mp: where the picture is larger, its middle is cut out; None: never.
        folder: for what has to be made.

    Returns:
        The only picture itself, if nothing had to be done.
    """
    sizes = [read_image_info(path).size for path in pictures]
    limit_mp = math.inf if most_mp is None else max(most_mp, least_mp)
    if len(pictures) == 1 and least_mp <= sizes[0].megapixels <= limit_mp:
        return pictures[0]
    megapixels = least_mp if sizes[0].megapixels < least_mp or len(pictures) > 1 else limit_mp
    side_px = math.ceil(math.sqrt(megapixels * 1e6))
    made = folder / f"picture-{side_px}.jpg"
    if len(pictures) == 1 and min(sizes[0].width, sizes[0].height) >= side_px:
        image = pyvips.Image.new_from_file(os.fspath(pictures[0]))
        left, top = (image.width - side_px) // 2, (image.height - side_px) // 2
        image.crop(left, top, side_px, side_px).write_to_file(f"{made}{_JPEG_OPTIONS}")
    else:
        make_picture(pictures, f"{made}{_JPEG_OPTIONS}", PictureSpec(side_px, side_px))
    return made
