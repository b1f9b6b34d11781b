"""``srpipe status OUTPUT``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from srpipe.io.job_status import JobStatus, SlabStatus, read_job_status
from srpipe.io.space import format_bytes
from srpipe.progress import format_seconds
from srpipe.terminal import as_lines

if TYPE_CHECKING:
    from srpipe.cli.types import Commands

_WHAT_TO_DO = {
    "running": "is running",
    "interrupted": "was interrupted: repeat its command to go on",
    "finished": "is finished: repeat its command to tidy up",
    "damaged": "is damaged: repeat its command with --fresh to start over",
}


def add_parser(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "status",
        help="how far a job is",
        description="Tell what the job folder of OUTPUT holds.",
    )
    parser.add_argument("output", metavar="OUTPUT", help="as it was given to 'srpipe enhance'")
    parser.add_argument("--job-dir", metavar="DIR", help="default OUTPUT.srpipe")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out."""
    status = read_job_status(options.output, options.job_dir)
    print(json.dumps(status.as_dict()) if options.json else _describe(status))
    return 0


def _describe(status: JobStatus) -> str:
    owner = f" ({status.owner})" if status.owner else ""
    share = status.tiles_done / status.tiles_total if status.tiles_total else 0
    what = _WHAT_TO_DO[status.state]
    if status.state == "interrupted" and {slab.state for slab in status.slabs} == {"done"}:
        what = "is done in all its slabs: 'srpipe assemble', or its command, joins them"
    elif status.state == "interrupted" and status.slabs:
        missing = ", ".join(str(s.number) for s in status.slabs if s.state != "done")
        what = f"waits for slabs {missing}"
    lines = [
        f"{status.folder}: the job {what}{owner}",
        f"  tiles done: {status.tiles_done} of {status.tiles_total} ({share:.0%})",
        f"  disk space: {format_bytes(status.folder_bytes)}",
    ]
    if status.checkpoint_age_s is not None:
        lines.append(f"  last checkpoint: {format_seconds(status.checkpoint_age_s)} ago")
    lines += [_describe_slab(slab, len(status.slabs)) for slab in status.slabs]
    lines += [f"  {name}: {value}" for name, value in status.job.items()]
    return as_lines(lines)


def _describe_slab(slab: SlabStatus, count: int) -> str:
    owner = f" ({slab.owner})" if slab.owner else ""
    return (
        f"  slab {slab.number} of {count}, rows {slab.top} to {slab.top + slab.height - 1}: "
        f"{slab.state}{owner}, {slab.tiles_done} of {slab.tiles_total} tiles"
    )
