"""Frozen values from the plain ones that JSON keeps of them."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def rebuild(kind: type[T], value: Any) -> T:
    """A dataclass from what ``asdict`` made of it, after JSON has turned its tuples into lists.

    Args:
        kind: of the value: a dataclass, whose fields are plain, dataclasses, tuples or optional.
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
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {inner}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _rebuild(hints[f.name], value[f.name]) for f in fields(kind)})
    if kind is float:
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value if origin is None else origin(value)
