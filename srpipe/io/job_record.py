"""What a job folder says of its job: the plan, and which file is its whole output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from srpipe.io import disk
from srpipe.io.output_place import identity
from srpipe.io.small_files import parse_json, read_json
from srpipe.plan.fingerprint import Fingerprint
from srpipe.plan.kept import Kept

PLAN_FILE = "plan.json"
FINISHED_FILE = "finished.json"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write down what the job in ``folder`` is: ``facts``, its fingerprint, ``plan``, and more.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(record, default=list)
    signed = {"plan": text, "sha256": _sha256(text)}
    disk.replace_file(folder / PLAN_FILE, json.dumps(signed).encode())


def read_plan(folder: Path) -> Fingerprint:
    """The fingerprint of the job in ``folder``.

    Raises:
        OSError: there is none.
        ValueError: its record is damaged.
    """
    facts: Fingerprint = read_record(folder)["facts"]
    return facts


def read_kept(folder: Path) -> Kept | None:
    """What the job in ``folder`` has fixed; None if there is none, or its record is damaged."""
    try:
        return Kept.parse(read_record(folder)["plan"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def read_record(folder: Path) -> dict[str, Any]:
    """All that is written down of the job in ``folder``.

    Raises:
        OSError: nothing is.
        ValueError: it is damaged.
    """
    damaged = ValueError(f"{folder / PLAN_FILE} is damaged")
    try:
        signed = read_json(folder / PLAN_FILE, follow=False)
        if signed["sha256"] != _sha256(signed["plan"]):
            raise damaged
        record: dict[str, Any] = parse_json(signed["plan"])
        texts = [*record["facts"], *record["facts"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    if not all(isinstance(text, str) for text in texts):
        raise damaged
    return record


def is_finished_output(folder: Path, path: str, job: str | None = None) -> bool:
    """Whether the file at ``path`` is the whole output of the job in ``folder``.

    Args:
        folder: a job's.
        path: any file, there or not.
        job: the job must have this digest; None: any.
    """
    try:
        record = read_json(folder / FINISHED_FILE, follow=False)
        return job in (None, record.pop("job")) and bool(record == identity(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
