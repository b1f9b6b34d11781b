"""Sizes and rectangles in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of an image, pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        """Number of pixels, millions."""
        return self.pixels / 1e6

    def scaled(self, scale: int) -> Size:
        """The size ``scale`` times as large on each axis."""
        return Size(self.width * scale, self.height * scale)

    def resized(self, factor: float) -> Size:
        """The size ``factor`` times as large on each axis, rounded half up, at least one pixel."""
        return Size(*(max(1, int(side * factor + 0.5)) for side in (self.width, self.height)))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of pixels: left and top inclusive, width and height at least 1."""

    left: int
    top: int
    width: int
    height: int

    def within(self, size: Size) -> Rect:
        """The part of it that lies in an image of ``size``, which it must touch."""
        left, top = max(self.left, 0), max(self.top, 0)
        right = min(self.left + self.width, size.width)
        bottom = min(self.top + self.height, size.height)
        return Rect(left, top, right - left, bottom - top)

    def intersection(self, other: Rect) -> Rect:
        """The part that it shares with another, which it must touch."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Rect(left, top, right - left, bottom - top)

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at ({self.left}, {self.top})"


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple
