"""Frozen values from the plain ones that JSON keeps of them."""

from __future__ import annotations

import math
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def rebuild(kind: type[T], value: Any) -> T:
    """A dataclass from what ``asdict`` made of it, after JSON has turned its tuples into lists.

    Args:
        kind: of the value: a dataclass, whose fields are plain, dataclasses, tuples,
            lists, dicts or optional.
        value: by field.

    Raises:
        KeyError, TypeError, ValueError: it is no such thing.
    """
    made: T = _rebuild(kind, value)
    return made


def _rebuild(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (one for one in inner if one is not type(None))
        return _rebuild(kind, value)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_rebuild(one, part) for one, part in zip(kinds, value, strict=True))
    if origin is list:
        _check(value, list)
        return [_rebuild(inner[0], part) for part in value]
    if origin is dict:
        _check(value, dict)
        return {_rebuild(inner[0], k): _rebuild(inner[1], part) for k, part in value.items()}
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {inner}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _rebuild(hints[f.name], value[f.name]) for f in fields(kind)})
    if kind is float:
        _check(value, (int, float))
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no finite number")
        return float(value)
    _check(value, kind)
    return value


def _check(value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r:.80} is no {kind}")
