"""Several ways to enhance one picture, in turn: seconds, agreement, nearness to the whole result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srpipe.api import available_cores, probe_model

from .pixels import cut_middle
from .report import Say
from .runs import Run, db_json, measure, median_cpu_ratio, median_ratio, median_s, psnr
from .task import Kind, Request, run_task


@dataclass(frozen=True)
class Contender:
    """A way to enhance a picture."""

    name: str
    kind: Kind
    model: str
    """The file it runs."""


@dataclass(frozen=True)
class Entry:
    """What was measured of a contender."""

    name: str
    runs: tuple[Run, ...]
    psnr_db: float | None
    """Its output against the first contender's; None of the first itself."""
    whole_db: float | None
    """Against the model run on a crop at once; None where that was not asked for."""

    @property
    def typical(self) -> Run:
        """The run of median time; of an even number the slower of the two in the middle."""
        return sorted(self.runs, key=lambda run: run.seconds)[len(self.runs) // 2]

    def as_dict(self, first: Entry, picture_mp: float) -> dict[str, Any]:
        """All fields and what follows from them, for JSON."""
        return asdict(self) | {
            "seconds": median_s(self.runs),
            "mp_per_s": picture_mp / median_s(self.runs),
            "times_first": median_ratio(self.runs, first.runs),
            "times_first_cpu": median_cpu_ratio(self.runs, first.runs),
            "psnr_db": db_json(self.psnr_db),
            "whole_db": db_json(self.whole_db),
        }


def hold_contest(
    contenders: Sequence[Contender],
    source: Path,
    folder: Path,
    *,
    rounds: int,
    say: Say,
    cores: int = 0,
    whole_db: Mapping[str, float] | None = None,
) -> list[Entry]:
    """Run all contenders on a picture in turn, ``rounds`` times.

    Args:
        contenders: the first is what the others' outputs are compared with.
        source: the picture.
        folder: for outputs, which are removed.
        rounds: how often.
        say: called with progress.
        cores: that each may use; 0: all.
        whole_db: by contender's name, from :func:`nearness_to_whole`.

    Raises:
        TaskError: one of them failed.
    """
    limit = 0 if cores >= available_cores() else cores
    outputs = [folder / f"contender-{i}.tif" for i in range(len(contenders))]
    runs: list[list[Run]] = [[] for _ in contenders]
    for number in range(1, rounds + 1):
        for contender, output, own in zip(contenders, outputs, runs, strict=True):
            request = Request(
                contender.kind, str(source), str(output), contender.model, cores=limit
            )
            run = measure(request)
            own.append(run)
            say(
                f"round {number} of {rounds}, {contender.name}: {run.seconds:.2f} s, "
                f"{run.cpu_s:.1f} s of processor time (others: {run.usage.others_cpu_s:.1f} s)"
            )
    entries = [
        Entry(
            contender.name,
            tuple(own),
            psnr(outputs[0], output) if output != outputs[0] else None,
            (whole_db or {}).get(contender.name),
        )
        for contender, output, own in zip(contenders, outputs, runs, strict=True)
    ]
    for output in outputs:
        output.unlink()
    return entries


def nearness_to_whole(
    contenders: Sequence[Contender], model: Path, source: Path, crop_mp: float, folder: Path
) -> dict[str, float]:
    """PSNR of each contender to the model's result for a whole crop of the picture at once, dB.

    Args:
        contenders: each is run once on the crop.
        model: the .onnx file that gives the whole result.
        source: the picture, whose middle is taken.
        crop_mp: the crop's size; the whole result takes memory for all of it at once.
        folder: for files, which are removed.

    Returns:
        By contender's name; infinite where nothing differs; empty with a ``crop_mp`` of 0.

    Raises:
        TaskError: one of them failed.
    """
    if not crop_mp:
        return {}
    multiple_px = probe_model(model).multiple_px
    crop = cut_middle(source, crop_mp, multiple_px, folder / "crop.png")
    whole, output = folder / "whole.tif", folder / "tiled.tif"
    run_task(Request("whole", str(crop), str(whole), str(model)))
    found = {}
    for contender in contenders:
        run_task(Request(contender.kind, str(crop), str(output), contender.model))
        found[contender.name] = psnr(whole, output)
    for path in (crop, whole, output):
        path.unlink()
    return found
