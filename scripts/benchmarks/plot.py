"""``bench plot``: the speed of srpipe and its peers as bars, an SVG drawn by hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from srpipe.errors import InputError

_WIDTH_PX = 760
_MARGIN_PX = 16
_NAMES_PX = 230
_FIGURES_PX = 150
_BAR_PX, _STEP_PX = 18, 24
_TITLE_PX, _HEAD_PX, _GAP_PX = 44, 28, 14
_FIRST, _OTHERS, _INK, _QUIET = "#2563a8", "#b6bec8", "#1f2328", "#59636e"


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "plot",
        help="draws what 'peers --json' measured",
        description="Draws megapixels a second of every program, by model, as an SVG.",
    )
    parser.add_argument("json", type=Path, nargs="+", help="from 'peers --json'")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read and draw."""
    results, told = [], {}
    for path in options.json:
        told = json.loads(path.read_text())
        if told.get("benchmark") != "peers":
            raise InputError(f"{path} does not come from 'bench peers --json'.")
        results += told["results"]
    facts = f"{told['machine']['processor']}, {told['machine']['cores']} cores"
    options.out.write_text(bars(results, f"from file to file, {facts}"))


def bars(results: Sequence[dict[str, Any]], where: str) -> str:
    """The SVG: a group of bars for every model, each group on a scale of its own.

    Args:
        results: as in the JSON of the benchmark: ``model``, ``picture_mp`` and ``entries`` with
            ``name`` and ``mp_per_s``, the first of which is srpipe's.
        where: on what it was measured.
    """
    shapes, y = [], _TITLE_PX + _GAP_PX
    for result in results:
        head = f"{result['model']}, {result['picture_mp']:.3g} MP"
        shapes.append(_text(_MARGIN_PX, y + 14, head, weight=600))
        y += _HEAD_PX
        fastest = max(entry["mp_per_s"] for entry in result["entries"])
        for i, entry in enumerate(result["entries"]):
            shapes += _bar(entry, y, fastest, result["entries"][0]["mp_per_s"], first=i == 0)
            y += _STEP_PX
        y += _GAP_PX
    title = _text(_MARGIN_PX, 26, "Megapixels of input a second", weight=600, size=16)
    subtitle = _text(_MARGIN_PX, 44, where, colour=_QUIET, size=12)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH_PX}" height="{y}" '
            f'viewBox="0 0 {_WIDTH_PX} {y}" font-family="sans-serif">',
            f'<rect width="{_WIDTH_PX}" height="{y}" fill="#ffffff"/>',
            title,
            subtitle,
            *shapes,
            "</svg>\n",
        ]
    )


def _bar(
    entry: dict[str, Any], y: int, fastest: float, first_speed: float, *, first: bool
) -> list[str]:
    left = _MARGIN_PX + _NAMES_PX
    most_px = _WIDTH_PX - left - _FIGURES_PX - _MARGIN_PX
    length_px = max(1.0, most_px * entry["mp_per_s"] / fastest)
    figure = f"{entry['mp_per_s']:.3g}"
    if not first:
        figure += f"  (srpipe: {first_speed / entry['mp_per_s']:.2f}×)"
    return [
        _text(left - 8, y + 14, entry["name"], anchor="end"),
        f'<rect x="{left}" y="{y}" width="{length_px:.1f}" height="{_BAR_PX}" rx="2" '
        f'fill="{_FIRST if first else _OTHERS}"/>',
        _text(left + length_px + 6, y + 14, figure, colour=_QUIET),
    ]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, weight: int = 400,
    size: int = 13,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
