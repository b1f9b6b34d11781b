"""A Ray cluster of several nodes on this machine, in a process of its own, told what to do by lines.

    add {"num_cpus": 1, …}   add a node; answers with its number
    hide FOLDER              add a node of one processor that sees nothing in a folder
    remove 1                 kill the node of that number, as a machine that is switched off
    quit

Run as a program it serves; :class:`LocalCluster` is what tests hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

_PATIENCE_S = 300.0


class LocalCluster:
    """A cluster with a head node that runs nothing; a context manager that leaves none behind."""

    def __init__(self) -> None:
        # Ray's own sessions are large, and a socket's name must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")
        self._log = open(os.path.join(self._folder.name, "log"), "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            cwd=self._folder.name,
        )  # fmt: skip
        self.address = str(self._answer())

    def add(self, **node: Any) -> int:
        """Add a node, with the arguments of Ray's add_node; returns its number."""
        self._say(f"add {json.dumps(node)}")
        return int(self._answer())

    def hide(self, folder: Path) -> None:
        """Add a node of one processor that sees nothing in ``folder``."""
        self._say(f"hide {folder}")
        self._answer()

    def remove(self, number: int) -> None:
        """Kill a node with all that runs there."""
        self._say(f"remove {number}")
        self._answer()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the cluster ended: {self._log.read()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        processes = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        self._say("quit")
        self._process.communicate(timeout=_PATIENCE_S)
        for process in processes[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._log.close()
        self._folder.cleanup()


def serve(folder: str) -> None:
    """Keep a cluster until the input ends."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray's own words are no answers

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    # Where Ray notes the address of the last cluster, wherever that has its files.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder},
    )
    nodes = []
    answer(cluster.address)
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "add":
            nodes.append(cluster.add_node(wait=True, **json.loads(rest)))
            answer(len(nodes) - 1)
        elif command == "hide":
            _add_without(rest, cluster.address)
            answer(None)
        elif command == "remove":
            cluster.remove_node(nodes[int(rest)], allow_graceful=False)
            answer(None)
        else:
            break
    cluster.shutdown()


def _add_without(folder: str, address: str) -> None:
    import ray

    start = f"{Path(sys.executable).parent / 'ray'} start --address={address} --num-cpus=1 --block"
    script = f"mount -t tmpfs none {folder} && exec {start}"
    subprocess.Popen(["unshare", "-m", "sh", "-ec", script], stdout=sys.stderr)
    ray.init(address=address, log_to_driver=False)
    end_s = time.monotonic() + _PATIENCE_S
    while not any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes()):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    ray.shutdown()


if __name__ == "__main__":
    serve(sys.argv[1])
