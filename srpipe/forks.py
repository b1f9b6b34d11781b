"""Refuse to work in a fork of a process that has worked: a fork lacks the threads of its parent.

libvips, ONNX Runtime and OpenCV go on waiting for their threads there. A process may fork at any time
before its first job, and its forks may then work.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from typing import Any, Protocol

from srpipe.errors import RequestError


class Closable(Protocol):
    """Has a descriptor of a file."""

    def close(self) -> None:
        """Close it."""


_worked = _forked = False
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_closed: weakref.WeakSet[Closable] = weakref.WeakSet()


def note_work() -> None:
    """Take note that this process works from now on.

    Raises:
        RequestError: it is a fork of one that did.
    """
    global _worked
    refuse_in_fork()
    if not _worked:
        _worked = True
        os.register_at_fork(after_in_child=_note_fork)


def refuse_in_fork() -> None:
    """Refuse what would never end.

    Raises:
        RequestError: this process is a fork of one that has worked.
    """
    if _forked:
        raise RequestError(
            "this process is a fork of one in which srpipe has worked, without the threads of its "
            'libraries: start processes afresh (multiprocessing.get_context("spawn")), or use srpipe '
            "for the first time after forking."
        )


def in_fork() -> bool:
    """Whether this process is a fork of one that has worked."""
    return _forked


def keep_in_forks(thing: Any) -> None:
    """Never destroy an object in a fork, as its destructor waits for threads."""
    _kept.add(thing)


def close_in_forks(thing: Closable) -> None:
    """Close a descriptor in forks, as others wait for the day when nobody has it open any more."""
    _closed.add(thing)


def _note_fork() -> None:
    global _forked
    _forked = True
    for kept in _kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    for closed in _closed:
        with contextlib.suppress(OSError):
            closed.close()
