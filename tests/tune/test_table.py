from __future__ import annotations

import json
from pathlib import Path

import pytest

from srpipe.plan.geometry import Size
from srpipe.tune.candidates import Arrangement, Candidate
from srpipe.tune.search import Row
from srpipe.tune.table import Table, load_table, save_table, table_name
from tests.factories import model_info


def table() -> Table:
    candidate = Candidate(Arrangement("cpu", 1, 2, 1), Size(192, 192), 4)
    return Table({candidate: Row(candidate, 12345, [1.5, 1.25], False)}, {"": None, "x": 7})


def test_a_table_is_kept(cache: Path) -> None:
    save_table("kept", table())
    assert load_table("kept") == table()
    assert load_table("other") == Table()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"rows": [{}]},
        {"searches": None},
        {"searches": {"": "much"}},
        {"rows": [{"candidate": {"arrangement": {}, "tile": {}, "batch": 1}}]},
    ],
)
def test_damage_is_no_table(cache: Path, change: dict[str, object]) -> None:
    save_table("damaged", table())
    file = cache / "tuned" / "damaged.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert load_table("damaged") == Table()
    save_table("damaged", table())
    file.write_bytes(file.read_bytes()[:-9])
    assert load_table("damaged") == Table()
    save_table("damaged", table())
    file.write_text(file.read_text().replace("1.25", "NaN"))
    assert load_table("damaged") == Table()


def test_speed_depends_on_model_devices_and_cores() -> None:
    names = {
        table_name(model_info(sha256=sha256), devices, cores)
        for sha256 in ("0" * 64, "1" * 64)
        for devices in (("cpu",), ("cpu", "openvino"))
        for cores in (1, 2)
    }
    assert len(names) == 8
    assert table_name(model_info(), ("cpu",), 1) in names


def test_a_search_is_repeated_where_memory_kept_something_out() -> None:
    kept = Table({}, {"": None, "tile_size=64": 1000})
    assert kept.covers("", None)
    assert kept.covers("", 10)
    assert not kept.covers("batch_size=2", 10)
    assert kept.covers("tile_size=64", 1100)
    assert not kept.covers("tile_size=64", 2000)
    assert not kept.covers("tile_size=64", None)
