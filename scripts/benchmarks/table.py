"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .pipeline import Result
from .runs import db_cell

_SPEED_HEAD = (
    "model", "picture, MP", "tiles", "raw session, MP/s", "pipeline, MP/s", "pipeline / raw",
    "by processor time", "loop, s", "pipeline, s", "loop / pipeline", "by processor time",
    "loop, MB", "pipeline, MB",
    "PSNR, dB", "to the whole result, dB: pipeline, loop",
)  # fmt: skip
_NOTES = """\
MP/s count the model's input, padding and overlaps included; seconds are medians, ratios medians of \
the rounds' ratios. By processor time: the ratio before if no core ever waited. Memory: RssAnon + \
RssShmem of all processes at one moment; in brackets with shared memory counted once. PSNR: the \
pipeline's output against the loop's; of both against the model's result for a whole crop at once."""


def speed_table(results: Sequence[Result]) -> str:
    """Speed and memory of every model."""
    rows = [_speed_row(result) for result in results]
    return f"{markdown_table(_SPEED_HEAD, rows)}\n\n{_NOTES}"


def _speed_row(result: Result) -> list[str]:
    usage = result.typical("pipeline").usage
    loop = result.typical("loop") if result.loop else None
    return [
        result.model,
        f"{result.picture_mp:.1f}",
        f"{result.tile}, stride {result.stride}, batch {result.batch_size}",
        f"{result.raw_mp_per_s:.3f} ({result.arrangement})",
        f"{result.pipeline_mp_per_s:.3f}",
        f"{result.pipeline_per_raw:.3f}",
        f"{result.pipeline_per_raw_cpu:.3f}",
        f"{loop.seconds:.1f}" if loop else "–",
        f"{result.typical('pipeline').seconds:.1f}",
        *(
            f"{ratio:.2f}" if ratio else "–"
            for ratio in (result.loop_per_pipeline, result.loop_per_pipeline_cpu)
        ),
        f"{loop.usage.peak_bytes / 1e6:.0f}" if loop else "–",
        f"{usage.peak_bytes / 1e6:.0f} ({usage.peak_shared_once_bytes / 1e6:.0f})",
        db_cell(result.psnr_db),
        ", ".join(db_cell(result.whole_db.get(kind)) for kind in ("pipeline", "loop")),
    ]


def stage_table(results: Sequence[Result]) -> str:
    """What each stage of the pipeline did with the time of its typical run."""
    rows = []
    for result in results:
        run, cpu_s = result.typical("pipeline"), _cpu_s(result)
        for name, times in run.stages.items():
            shares = (f"{seconds / run.seconds:.0%}" for seconds in times.values())
            rows.append([result.model, name, *shares, f"{cpu_s.get(name, 0.0):.1f}"])
    head = ("model", "stage", "busy", "waiting for input", "waiting for room", "processor, s")
    return f"Where the time goes:\n\n{markdown_table(head, rows)}"


def _cpu_s(result: Result) -> dict[str, float]:
    """By stage; all workers are one stage."""
    cpu_s: dict[str, float] = {}
    for name, seconds in result.typical("pipeline").usage.stage_cpu_s.items():
        stage = name.split()[0]
        cpu_s[stage] = cpu_s.get(stage, 0.0) + seconds
    return cpu_s


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells under a head, all but the first column to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
