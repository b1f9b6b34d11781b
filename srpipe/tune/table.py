"""What was measured of a model on this machine, kept in the user's cache."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from srpipe.io.cache import read_cached_json, write_cached_json
from srpipe.io.onnx_runtime import onnx_runtime_version
from srpipe.io.processor import processor_name
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.plain import rebuild
from srpipe.tune.search import Row, Rows

_KIND = "tuned"
# What is measured, and how: another version measures anew.
_VERSION = 1


@dataclass(slots=True)
class Table:
    """All rows of a model on this machine, and the searches they are from."""

    rows: Rows = field(default_factory=dict)
    searches: dict[str, int | None] = field(default_factory=dict)
    """By what was asked for: the budget in bytes where it kept something out, else None."""

    def covers(self, asked: str, budget_bytes: int | None) -> bool:
        """Whether a search for what is asked for need not be repeated."""
        if asked not in self.searches:
            return False
        limit = self.searches[asked]
        # A little more memory than then would hardly change anything.
        return limit is None or (budget_bytes is not None and budget_bytes <= 1.25 * limit)


def table_name(info: ModelInfo, devices: tuple[str, ...], cores: int) -> str:
    """Under which name a model's table is kept: anything that changes its speed has a part in it."""
    facts = [
        str(_VERSION), info.sha256, *devices, processor_name(), str(cores), onnx_runtime_version()
    ]  # fmt: skip
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def load_table(name: str) -> Table:
    """The table that was kept; an empty one if there is none, or it is damaged."""
    return read_cached_json(_KIND, name, _parse) or Table()


def save_table(name: str, table: Table) -> None:
    """Keep a table, if that is possible."""
    rows = [asdict(row) for row in table.rows.values()]
    write_cached_json(_KIND, name, {"rows": rows, "searches": table.searches})


def _parse(record: Any) -> Table:
    table = Table()
    for asked, limit in record["searches"].items():
        table.searches[str(asked)] = None if limit is None else int(limit)
    for told in record["rows"]:
        row = rebuild(Row, told)
        candidate, arrangement = row.candidate, row.candidate.arrangement
        numbers = (candidate.tile.width, candidate.tile.height, candidate.batch, arrangement.workers,
                   arrangement.runners, arrangement.threads, *row.speeds_mp_s)  # fmt: skip
        good = all(0 < number < math.inf for number in numbers)
        if not row.speeds_mp_s or not good or row.worker_bytes < 0:
            raise ValueError("no measurement gives that")
        table.rows[candidate] = row
    return table
