"""pyvips, imported once and told to keep nothing between operations."""

from __future__ import annotations

import logging

import pyvips

__all__ = ["first_line", "pyvips"]

# A cached load would return the pixels of a file that has since been replaced.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.ERROR)


def first_line(error: pyvips.Error) -> str:
    """What libvips said, on one line."""
    detail = str(getattr(error, "detail", "") or error)
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "no reason given"
