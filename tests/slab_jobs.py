"""Jobs done slab by slab, and outputs compared to the last byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import srpipe
from srpipe.io.job_record import read_plan
from srpipe.io.slabs_folder import tiles_done
from srpipe.plan.fingerprint import digest


def enhance_in_slabs(
    src: Path, dst: str | Path, count: int, *, order: Iterable[int] | None = None, **options: Any
) -> srpipe.Report:
    """Compute each slab by itself, in any order, and join them."""
    for number in order or range(1, count + 1):
        srpipe.enhance(src, dst, slab=(number, count), **options)
    return srpipe.assemble(dst, job_dir=options.get("job_dir"))


def tiles_of(job_dir: Path, count: int) -> list[int]:
    """Tiles done of each slab; none where there is no plan yet."""
    try:
        job = digest(read_plan(job_dir))
    except OSError:
        return [0] * count
    return [tiles_done(job_dir, index, job) for index in range(count)]


def content(path: Path) -> dict[str, bytes]:
    """All files of an output, by their names in it."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {str(file.relative_to(path)): file.read_bytes() for file in files}
    beside = path.with_name(f"{path.stem}_files")
    return {"": path.read_bytes()} | (content(beside) if beside.is_dir() else {})
