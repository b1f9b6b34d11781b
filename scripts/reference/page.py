"""Writes the reference of everything in ``srpipe.__all__``."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import srpipe

_HEAD = """\
# Python reference

Made by `scripts/make-reference` from the docstrings of everything that `import srpipe` offers. Sizes
are input pixels unless they say otherwise.
"""
_SECTIONS = ("Args", "Returns", "Yields", "Raises")


def reference() -> str:
    """The whole page."""
    things = [(name, getattr(srpipe, name)) for name in srpipe.__all__]
    functions = [(name, thing) for name, thing in things if inspect.isfunction(thing)]
    errors = [(n, t) for n, t in things if inspect.isclass(t) and issubclass(t, BaseException)]
    classes = [(n, t) for n, t in things if inspect.isclass(t) and (n, t) not in errors]
    lines = [_HEAD, "## Functions", ""]
    for name, function in functions:
        lines += _callable(f"srpipe.{name}", name, function, 3)
    lines += ["## Classes", ""]
    for name, kind in classes:
        lines += _class(name, kind)
    lines += ["## Errors", "", "In brackets what each is a kind of.", ""]
    for name, error in errors:
        base = error.__bases__[0].__name__
        lines.append(f"- **{name}** ({base}): {_prose(inspect.getdoc(error) or '')}")
    return "\n".join(lines).rstrip() + "\n"


def _class(name: str, kind: type) -> Iterator[str]:
    yield from (f"### srpipe.{name}", "", _prose(inspect.getdoc(kind) or ""), "")
    if dataclasses.is_dataclass(kind):
        told = _attribute_docs(kind)
        for field in dataclasses.fields(kind):
            text = f": {told[field.name]}" if field.name in told else ""
            yield f"- `{field.name}` ({_type(field.type)}){text}"
        yield ""
    elif "__init__" in vars(kind):
        yield from _callable(f"srpipe.{name}", name, kind.__init__, 4)
    for key, member in vars(kind).items():
        if key.startswith("_") or not (doc := inspect.getdoc(member)):
            continue
        if isinstance(member, property):
            yield from (f"- `{key}` ({_result(member.fget)}): {_prose(doc)}", "")
        elif inspect.isfunction(member):
            yield from _callable(f"{name}.{key}", key, member, 4)


def _callable(title: str, name: str, function: Any, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {title}", "", "```text", *_signature(name, function), "```", "")
    yield from _docstring(inspect.getdoc(function) or "")


def _signature(name: str, function: Any) -> list[str]:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    texts = []
    for i, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and (
            i == 0 or parameters[i - 1].kind is not parameter.KEYWORD_ONLY
        ):
            texts.append("*")
        texts.append(re.sub(r"^(\S+: )'(.+?)'", r"\1\2", str(parameter)))
    returns = signature.return_annotation
    end = "" if returns in (signature.empty, "None", None) else f" -> {_type(returns)}"
    line = f"{name}({', '.join(texts)}){end}"
    if len(line) <= 96:
        return [line]
    return [f"{name}(", *(f"    {text}," for text in texts), f"){end}"]


def _docstring(doc: str) -> Iterator[str]:
    head, *rest = re.split(rf"(?m)^({'|'.join(_SECTIONS)}):\n", doc)
    yield from (_prose(head), "")
    for title, text in zip(rest[::2], rest[1::2], strict=True):
        entries = re.split(r"\n(?=\S)", textwrap.dedent(text).strip())
        if title == "Args":
            for entry in entries:
                name, _, told = entry.partition(":")
                yield f"- `{name.strip()}`: {_prose(told)}"
        elif title == "Raises":
            yield from (f"Raises {_prose(entry)}" for entry in [" ".join(entries)])
        else:
            yield f"{title}: {_prose(text)}"
        yield ""


def _attribute_docs(kind: type) -> dict[str, str]:
    """Strings that stand below the fields of a dataclass."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except OSError:
        return {}
    found = re.finditer(r'(?m)^    (\w+): [^\n]*\n    """((?:[^"]|"(?!""))*)"""', source)
    return {match[1]: _prose(match[2]) for match in found}


def _prose(text: str) -> str:
    """Paragraphs of a docstring as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.strip()).replace("``", "`")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(paragraphs)


def _result(function: Any) -> str:
    return _type(inspect.signature(function).return_annotation)


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.strip("'")
