"""The tone curve of a colour profile, and tables from it to that of sRGB and back.

Models are trained on pictures whose numbers rise as sRGB's do. A linear image, or one of gamma 1.8, is
shown to them with sRGB's curve and its own primaries, and changed back afterwards: colours stay what
they were, and none is lost, as a conversion to the smaller sRGB would lose some.

Profiles: ICC.1:2022, 7.3 (tag table), 10.6 (curveType), 10.18 (parametricCurveType).
sRGB: IEC 61966-2-1.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Table = npt.NDArray[np.uint16]

_RGB_TAGS, _GREY_TAGS = (b"rTRC", b"gTRC", b"bTRC"), (b"kTRC",)
_N = 65536
# As numbers between 0 and 1, after sRGB's curve. Gamma 2.2 is within 0.03, gamma 1.8 beyond.
_MOST_LIKE = 0.04
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}


def read_curves(profile: bytes) -> list[Values] | None:
    """What 65536 equally spaced numbers from 0 to 1 mean in light, for each colour of a profile.

    Returns:
        One curve for grey, three for RGB, each rising from 0 to 1; None where the profile has none that
        can be used so: it is made of tables, or damaged.
    """
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        if count > 1000:
            return None
        entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count))
        tags = {name: profile[offset : offset + size] for name, offset, size in entries}
        for names in (_RGB_TAGS, _GREY_TAGS):
            if all(name in tags for name in names):
                curves = [_curve(tags[name]) for name in names]
                return curves if all(map(_is_usable, curves)) else None
    except (struct.error, ValueError, KeyError, ArithmeticError):
        return None
    return None


def _curve(tag: bytes) -> Values:
    x = np.linspace(0, 1, _N)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return np.asarray(x ** (struct.unpack_from(">H", tag, 12)[0] / 256))
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.interp(x, np.linspace(0, 1, count), table)
    if tag[:4] != b"para":
        raise ValueError
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)
    g, a, b, c, d, e, f = [n / 65536 for n in numbers] + [0.0] * (7 - len(numbers))
    if kind == 0:
        return np.asarray(x**g)
    if kind in (1, 2):
        # The third number lifts all of it, and the linear part is flat.
        d, e, f, c = -b / a, c, c, 0.0
    power = np.maximum(a * x + b, 0) ** g + e
    return np.asarray(np.where(x >= d, power, c * x + f), np.float64)


def _is_usable(curve: Values) -> bool:
    ends = abs(curve[0]) < 0.01 and abs(curve[-1] - 1) < 0.01
    return bool(ends and np.isfinite(curve).all() and (np.diff(curve) >= 0).all())


def srgb_number(light: Values) -> Values:
    """The number that sRGB has for light, both from 0 to 1."""
    root = 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, root)


def srgb_light(number: Values) -> Values:
    """The light that sRGB means by a number, both from 0 to 1."""
    power = np.maximum((number + 0.055) / 1.055, 0) ** 2.4
    return np.where(number <= 0.04045, number / 12.92, power)


def is_like_srgb(curves: list[Values]) -> bool:
    """Whether curves are so near sRGB's that models need not be helped."""
    number = np.linspace(0, 1, _N)
    return all(np.abs(srgb_number(curve) - number).max() < _MOST_LIKE for curve in curves)


def tables(curves: list[Values]) -> tuple[list[Table], list[Table]]:
    """For 16-bit numbers: from each curve to sRGB's, and back."""
    number = np.linspace(0, 1, _N)
    to_srgb = [_as_table(srgb_number(curve)) for curve in curves]
    back = [_as_table(np.interp(srgb_light(number), curve, number)) for curve in curves]
    return to_srgb, back


def _as_table(values: Values) -> Table:
    return np.clip(np.floor(values * 65535 + 0.5), 0, 65535).astype(np.uint16)
