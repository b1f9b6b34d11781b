"""Jobs done slab by slab, and outputs compared to the last byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import srpipe


def enhance_in_slabs(
    src: Path, dst: str | Path, count: int, *, order: Iterable[int] | None = None, **options: Any
) -> srpipe.Report:
    """Compute each slab by itself, in any order, and join them."""
    for number in order or range(1, count + 1):
        srpipe.enhance(src, dst, slab=(number, count), **options)
    return srpipe.assemble(dst, job_dir=options.get("job_dir"))


def content(path: Path) -> dict[str, bytes]:
    """All files of an output, by their names in it."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {str(file.relative_to(path)): file.read_bytes() for file in files}
    beside = path.with_name(f"{path.stem}_files")
    return {"": path.read_bytes()} | (content(beside) if beside.is_dir() else {})
