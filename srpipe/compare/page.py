"""The HTML of the page that compares two deep-zoom pictures; it needs no server and no network.

A browser forbids a page from a disk to fetch files, so the tiles' description stands in the page
itself, and the viewer adds the tiles as images, which is allowed.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote

from srpipe.compare.pair import Pair
from srpipe.plan.geometry import Size

TILE_PX = 254
OVERLAP_PX = 1
"""With the overlaps, 256: what deep-zoom viewers are used to."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What the page calls the two pictures: any text."""

    before: str
    after: str


def page_html(pair: Pair, labels: Labels, folder: str, tile_suffix: str) -> str:
    """The page.

    Args:
        pair: the sizes.
        labels: of the pictures.
        folder: name of the folder beside the page that holds ``openseadragon.min.js`` and the tiles.
        tile_suffix: ending of the tiles' names, such as ``jpg``.
    """
    template = files("srpipe.compare").joinpath("page.html").read_text(encoding="utf-8")
    base = quote(folder)
    sources = {
        "before": _tile_source(pair.before, f"{base}/before_files/", tile_suffix),
        "after": _tile_source(pair.after, f"{base}/after_files/", tile_suffix),
    }
    values = {
        "TITLE": html.escape(f"{labels.before} / {labels.after}"),
        "BEFORE": html.escape(labels.before),
        "AFTER": html.escape(labels.after),
        "SIZES": html.escape(f"{pair.before} → {pair.after} (x{pair.scale:g})"),
        "SCRIPT": html.escape(f"{base}/openseadragon.min.js"),
        # A text in a script ends at </ whatever JSON says of it.
        "SOURCES": json.dumps(sources).replace("<", "\\u003c"),
    }
    for name, value in values.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def _tile_source(size: Size, url: str, suffix: str) -> dict[str, object]:
    """A Deep Zoom image as OpenSeadragon takes it inline."""
    return {
        "Image": {
            "xmlns": "http://schemas.microsoft.com/deepzoom/2008",
            "Url": url,
            "Format": suffix,
            "Overlap": str(OVERLAP_PX),
            "TileSize": str(TILE_PX),
            "Size": {"Width": str(size.width), "Height": str(size.height)},
        }
    }
