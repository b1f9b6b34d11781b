"""Command line of the simulation."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any, get_args

from srpipe.plan.slabs import default_slabs

from .facts import MEASURED, Cluster, Format, Image, Node, read_nodes
from .simulate import Outcome, simulate

_NODES = (1, 4, 16, 64, 256)
_SIZES_MP = (1e3, 20e3, 100e3, 1e6)
_ROUNDS = 3
_GOOD = 0.9
_NOTES = """\
Efficiency: seconds of one node in one piece and without failures, by the node-seconds of the job. \
Then what is lost to most, as a share of all node-seconds. Means of runs with other random numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and print; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.measure:
        from .measure import measure  # needs a model and a photograph

        print(json.dumps({"nodes": [asdict(measure(options.measure, options.model))]}, indent=1))
        return 0
    nodes = read_nodes(options.measured)
    if options.node not in nodes:
        print(f"simulate-cluster: {options.node} is none of {', '.join(nodes)}", file=sys.stderr)
        return 2
    node = _node(nodes[options.node], options)
    if options.slabs:
        print(slabs_table(node, options))
        return 0
    found = table(node, options)
    print(found.text)
    if options.json:
        options.json.write_text(json.dumps(found.rows, indent=1))
    if options.plot:
        _plot(found.rows, options.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulate-cluster",
        description="Replays measured seconds of tiles on 1 to 256 nodes that share a storage, and "
        "tells where efficiency falls below 90 percent, and why.",
    )
    add = parser.add_argument
    add("--node", default="2 cores, lite-x2", help="of measured.json; default %(default)s")
    add("--measured", type=Path, default=MEASURED, metavar="FILE", help="other measured figures")
    add("--faster", type=float, default=1.0, metavar="F", help="tiles take a Fth of the time")
    add("--nodes", type=int, nargs="+", default=list(_NODES), metavar="N")
    add("--megapixels", type=float, nargs="+", default=list(_SIZES_MP), metavar="MP")
    add(
        "--shared-gb-s",
        type=float,
        default=10.0,
        metavar="GB",
        help="storage of all nodes together",
    )
    add("--client-gb-s", type=float, default=1.0, metavar="GB", help="of one node")
    add("--mtbf-hours", type=float, metavar="H", help="between failures of one node; default never")
    add("--spread", type=float, default=0.05, help="of the nodes' speeds; default %(default)s")
    add("--format", choices=get_args(Format), default="tiff", help="of the output")
    add("--strips", action="store_true", help="the input must be decoded from its first row on")
    add("--slabs", action="store_true", help="vary the number of slabs instead")
    add("--seed", type=int, default=0)
    add("--json", type=Path, metavar="FILE", help="all that was found")
    add("--plot", type=Path, metavar="FILE", help="efficiency by nodes (needs matplotlib)")
    add(
        "--measure",
        metavar="NAME",
        help="measure this machine instead, and print it for measured.json",
    )
    add("--model", default="lite-x2", metavar="NAME|FILE", help="to measure; default %(default)s")
    return parser


def _node(node: Node, options: argparse.Namespace) -> Node:
    return replace(node, tile_s=tuple(seconds / options.faster for seconds in node.tile_s))


def _cluster(nodes: int, options: argparse.Namespace) -> Cluster:
    return Cluster(
        nodes,
        shared_bytes_s=options.shared_gb_s * 1e9,
        client_bytes_s=options.client_gb_s * 1e9,
        mtbf_s=options.mtbf_hours and options.mtbf_hours * 3600,
        spread=options.spread,
    )


def _runs(
    image: Image, nodes: int, options: argparse.Namespace, slabs: int | None = None
) -> list[Outcome]:
    cluster = _cluster(nodes, options)
    return [
        simulate(
            image, cluster, slabs=slabs, fmt=options.format, seekable=not options.strips,
            seed=options.seed + number,
        )
        for number in range(_ROUNDS)
    ]  # fmt: skip


class Table:
    """What was found, as text and as plain values."""

    def __init__(self, text: str, rows: list[dict[str, Any]]) -> None:
        self.text, self.rows = text, rows


def table(node: Node, options: argparse.Namespace) -> Table:
    """Efficiency by size of the image and number of nodes."""
    rows = []
    lines = [
        "| image | nodes | slabs | hours | efficiency | lost to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    verdicts = []
    for megapixels in options.megapixels:
        image, last_good, first_bad = Image.of(megapixels, node), 0, ""
        for nodes in options.nodes:
            if nodes > image.rows:
                break
            runs = _runs(image, nodes, options)
            efficiency = mean(run.efficiency for run in runs)
            wall_s = mean(run.wall_s for run in runs)
            shares = {
                name.removesuffix("_s"): mean(vars(run.losses)[name] for run in runs)
                / (nodes * wall_s)
                for name in vars(runs[0].losses)
            }
            lost = sorted(shares, key=lambda name: -shares[name])[:2]
            rows.append(
                {"megapixels": megapixels, "nodes": nodes, "slabs": runs[0].slabs,
                 "wall_s": wall_s, "efficiency": efficiency, "lost": shares}
            )  # fmt: skip
            said = ", ".join(f"{name} {shares[name]:.1%}" for name in lost if shares[name] >= 0.001)
            lines.append(
                f"| {megapixels / 1e3:g} GP | {nodes} | {runs[0].slabs} | {wall_s / 3600:.3g} | "
                f"{efficiency:.1%} | {said} |"
            )
            if efficiency >= _GOOD:
                last_good = nodes
            elif not first_bad:
                first_bad = f"below 90 % at {nodes} ({lost[0]})"
        verdicts.append(
            f"{megapixels / 1e3:g} GP ({image.rows} rows of {image.grid.x.n_tiles} tiles): at least "
            f"90 % up to {last_good} nodes{f', {first_bad}' if first_bad else ''}."
        )
    return Table("\n".join([*lines, "", *verdicts, "", _NOTES]), rows)


def slabs_table(node: Node, options: argparse.Namespace) -> str:
    """Efficiency by slabs for each node."""
    each = (1, 2, 3, 4, 6, 8)
    lines = [
        f"| image | nodes | rows a node | {' | '.join(f'{n} a node' for n in each)} | srpipe |",
        f"| --- | --- | --- |{' --- |' * (len(each) + 1)}",
    ]
    for megapixels in options.megapixels:
        image = Image.of(megapixels, node)
        for nodes in options.nodes:
            if nodes > image.rows:
                break
            cells = [
                f"{mean(r.efficiency for r in _runs(image, nodes, options, n * nodes)):.1%}"
                if n * nodes <= image.rows
                else "–"
                for n in each
            ]
            chosen = default_slabs(image.rows, nodes)
            lines.append(
                f"| {megapixels / 1e3:g} GP | {nodes} | {image.rows / nodes:.1f} | "
                f"{' | '.join(cells)} | {chosen / nodes:.2g} a node |"
            )
    return "\n".join(lines)


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for megapixels in dict.fromkeys(row["megapixels"] for row in rows):
        line = [row for row in rows if row["megapixels"] == megapixels]
        axes.plot(
            [row["nodes"] for row in line], [100 * row["efficiency"] for row in line], "o-",
            label=f"{megapixels / 1e3:g} GP",
        )  # fmt: skip
    axes.axhline(100 * _GOOD, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="nodes", ylabel="efficiency, %", ylim=(0, 105))
    axes.legend()
    figure.savefig(path)
