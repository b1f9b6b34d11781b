"""The simulation against what can be told on paper."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from clustersim.command import main
from clustersim.facts import Cluster, Image, Node, read_nodes
from clustersim.simulate import assembly_s, simulate, single_s

NODE = Node("n", (0.01,), 2.0, 256, 16, 2, 100.0, 500.0, 2.0, 2.0, 260.0)
FAST = {"shared_bytes_s": 1e15, "client_bytes_s": 1e15, "spread": 0.0}


def image(megapixels: float = 1000, **changes: object) -> Image:
    return Image.of(megapixels, replace(NODE, **changes))


def test_one_node_takes_the_time_of_its_tiles() -> None:
    picture = image()
    outcome = simulate(picture, Cluster(1, **FAST), slabs=1)
    assert outcome.wall_s == pytest.approx(2.0 + picture.grid.n_tiles * 0.01)
    assert outcome.efficiency == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("nodes", [2, 4, 11])
def test_a_slab_a_node_costs_a_row_and_a_start(nodes: int) -> None:
    picture = image()
    columns, rows = picture.grid.x.n_tiles, picture.rows
    outcome = simulate(picture, Cluster(nodes, **FAST), slabs=nodes)
    longest = -(-rows // nodes) + 1
    assert outcome.wall_s == pytest.approx(2.0 + longest * columns * 0.01, rel=1e-6)
    assert outcome.losses.redundant_s == pytest.approx((nodes - 1) * columns * 0.01)
    assert outcome.losses.start_s == pytest.approx(2.0 * nodes)


def test_storage_that_is_too_slow_is_what_counts() -> None:
    picture = image()
    slow = Cluster(8, shared_bytes_s=1e8, client_bytes_s=1e15, spread=0.0)
    outcome = simulate(picture, slow, slabs=8)
    read_and_written = (picture.rows + 7) * picture.row_bytes
    assert outcome.wall_s == pytest.approx(2.0 + read_and_written / 1e8, rel=0.05)
    assert outcome.worst == "storage"


def test_input_without_a_middle_is_decoded_from_its_first_row() -> None:
    picture = image()
    outcome = simulate(picture, Cluster(4, **FAST), slabs=4, seekable=False)
    above = sum(k * picture.rows // 4 for k in range(4)) / picture.rows
    assert outcome.losses.skip_s == pytest.approx(above * picture.input_px / 1e6 / 260)


def test_failures_cost_what_they_cost_on_average() -> None:
    picture = image(100_000)
    calm = simulate(picture, Cluster(4, **FAST), slabs=40)
    mtbf_s = calm.wall_s  # four failures, about
    rough = [
        simulate(picture, Cluster(4, **FAST, mtbf_s=mtbf_s), slabs=40, seed=seed)
        for seed in range(40)
    ]
    down_s = mean(outcome.losses.failures_s for outcome in rough)
    wall_s = mean(outcome.wall_s for outcome in rough)
    # A node works for the mean time, and is then down for five minutes.
    expected_s = 4 * wall_s / (mtbf_s + 300) * 302.5
    assert down_s == pytest.approx(expected_s, rel=0.25)
    assert wall_s > calm.wall_s


def test_a_tiff_is_copied_while_slabs_are_computed() -> None:
    picture = image()
    cluster = Cluster(4, shared_bytes_s=1e15, client_bytes_s=1e9, spread=0.0)
    at_once, in_turn = (simulate(picture, cluster, slabs=slabs, fmt="tiff") for slabs in (4, 40))
    copied_s = assembly_s(picture, cluster, 4, "tiff")
    assert copied_s == pytest.approx(2 * picture.output_px * 2.0 / 1e9)
    assert at_once.losses.assembly_s == pytest.approx(4 * copied_s, rel=0.1)
    assert in_turn.losses.assembly_s < at_once.losses.assembly_s / 3
    other = simulate(picture, cluster, slabs=4, fmt="other")
    assert other.losses.assembly_s == pytest.approx(4 * picture.output_px / 1e6 / 100)


@given(
    megapixels=st.floats(100, 20_000), nodes=st.integers(1, 40), slabs=st.integers(1, 100),
    mtbf_s=st.none() | st.floats(300, 1e5), spread=st.floats(0, 0.2), seed=st.integers(0, 99),
    fmt=st.sampled_from(["tiff", "zarr", "other"]),
)  # fmt: skip
def test_nothing_is_faster_than_it_can_be(
    megapixels: float, nodes: int, slabs: int, mtbf_s: float | None, spread: float, seed: int,
    fmt: str,
) -> None:  # fmt: skip
    picture = image(megapixels)
    cluster = Cluster(nodes, mtbf_s=mtbf_s, spread=spread)
    outcome = simulate(picture, cluster, slabs=min(slabs, picture.rows), fmt=fmt, seed=seed)
    work_s = picture.grid.n_tiles * 0.01
    # Nodes that differ are together as fast as their number.
    assert outcome.wall_s >= work_s / nodes * 0.999
    assert single_s(picture, cluster) >= work_s
    assert min(vars(outcome.losses).values()) >= -1e-6
    total = work_s + sum(vars(outcome.losses).values())
    assert total >= nodes * outcome.wall_s - 1e-6


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "1", "4", "--megapixels", "1000", "--json", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "| 1 GP | 4 |" in said
    assert "at least 90 % up to" in said
    rows = json.loads((tmp_path / "a").read_text())
    assert [row["nodes"] for row in rows] == [1, 4]
    assert all(0 < row["efficiency"] <= 1 for row in rows)
    assert main(["--slabs", "--nodes", "4", "--megapixels", "1000"]) == 0
    assert "8 a node" in capsys.readouterr().out
    assert main(["--node", "nobody"]) == 2


def test_what_was_measured_is_what_a_machine_can_do() -> None:
    for node in read_nodes().values():
        assert 1e-4 < node.mean_tile_s < 10
        assert len(node.tile_s) > 10
        assert 0 < node.overlap_px < node.tile_px / 2
