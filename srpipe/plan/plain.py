"""Frozen values from the plain ones that JSON keeps of them."""

from __future__ import annotations

import contextlib
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def rebuild(kind: Any, value: Any) -> Any:
    """A value from what ``asdict`` and JSON made of it, such as lists of its tuples.

    Args:
        kind: of the value: a dataclass, whose fields are plain, dataclasses, tuples or optional; or any
            type that such a field may have.
        value: as JSON has it.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: it is no such thing.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        for one in inner:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                return rebuild(one, value)
        raise ValueError(f"{value!r} is none of {inner}")
    if origin is list:
        _check(value, list)
        return [rebuild(inner[0], part) for part in value]
    if origin is dict:
        _check(value, dict)
        return {rebuild(inner[0], k): rebuild(inner[1], v) for k, v in value.items()}
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(rebuild(one, part) for one, part in zip(kinds, value, strict=True))
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {inner}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: rebuild(hints[f.name], value[f.name]) for f in fields(kind)})
    if kind is float:
        _check(value, (int, float))
        return float(value)
    _check(value, kind)
    return value


def _check(value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r:.80} is no {kind}")
