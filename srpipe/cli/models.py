"""``srpipe models``: the models in the box."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from srpipe.api import bundled_models, read_model_metadata
from srpipe.settings import DEFAULT_MODEL
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands

_COLUMNS = ("name", "scale", "kB", "licence", "seams", "what for")


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("models", help="list the models in the box")
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    """Carry the command out."""
    rows = [_COLUMNS]
    for name, path in bundled_models().items():
        metadata = read_model_metadata(path)
        rows.append(
            (
                f"{name} (default)" if name == DEFAULT_MODEL else name,
                f"x{metadata.get('scale', '?')}",
                str(round(path.stat().st_size / 1000)),
                metadata.get("licence", "?"),
                metadata.get("seam_class", "?"),
                metadata.get("purpose", ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS) - 1)]
    cells = ([f"{c:{w}}" for c, w in zip(row, widths, strict=False)] for row in rows)
    print(as_lines("  ".join([*some, row[-1]]) for some, row in zip(cells, rows, strict=True)))
    return 0
