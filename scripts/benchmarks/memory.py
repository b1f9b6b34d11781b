"""``scripts/memory INPUT [-- ARGUMENTS]``: the memory of one ``srpipe enhance``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .processes import MAIN, TreeSampler, Usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, sample, print; returns the exit code of ``srpipe enhance``."""
    options = _parser().parse_args(arguments)
    with TemporaryDirectory(prefix=".memory-", dir=options.input.resolve().parent) as folder:
        output = str(Path(folder, "out")) + options.format
        command = [sys.executable, "-m", "srpipe", "enhance", str(options.input), output]
        begin_s = time.monotonic()
        with subprocess.Popen([*command, *options.arguments]) as process:
            with TreeSampler(process.pid) as sampler:
                code = process.wait()
            seconds = time.monotonic() - begin_s
    print(memory_table(sampler.usage))
    print(f"\n{seconds:.1f} s, exit code {code}")
    return code


def memory_table(usage: Usage) -> str:
    """Peak memory and processor time by stage, as a Markdown table."""
    lines = ["| process | peak memory, MB | processor, s |", "| --- | ---: | ---: |"]
    for name in sorted(usage.stage_peak_bytes, key=lambda name: (name != MAIN, name)):
        megabytes = usage.stage_peak_bytes[name] / 1e6
        lines.append(f"| {name} | {megabytes:.0f} | {usage.stage_cpu_s.get(name, 0):.1f} |")
    total_s = sum(usage.stage_cpu_s.values())
    lines += [
        f"| all, at one moment | {usage.peak_bytes / 1e6:.0f} | {total_s:.1f} |",
        f"| all, shared memory counted once | {usage.peak_shared_once_bytes / 1e6:.0f} | |",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memory",
        description="Runs 'srpipe enhance' on INPUT and prints how much memory each of its "
        "processes took: RssAnon + RssShmem, every 0.1 s. The output goes to a folder beside INPUT, "
        "which is removed.",
    )
    parser.add_argument("input", metavar="INPUT", type=Path)
    parser.add_argument(
        "arguments", metavar="ARGUMENTS", nargs="*", help="for 'srpipe enhance', after --"
    )
    parser.add_argument(
        "--format", default=".tif", help="ending and options of the output; default %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
