"""Faults put into a copy of srpipe on purpose: the other campaigns must find each."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_POWER = ("power", "--cuts", "120")
_KILL = ("kill", "--kills", "8", "--jobs", "2", "--kind", "tif")
_FUZZ = ("fuzz", "--inputs", "200")
# What does not end by itself must be found out within this.
_PATIENCE_S = "90"


class MutationError(Exception):
    """A mutation that cannot be tried."""


@dataclass(frozen=True)
class Mutation:
    """One fault."""

    name: str
    file: str
    """In the package."""
    old: str
    """Stands there once."""
    new: str
    campaign: tuple[str, ...]
    """That must find it: arguments of ``torture``."""


MUTATIONS = (
    Mutation("no fsync", "io/disk.py", "os.fsync(descriptor)", "pass", _POWER),
    Mutation("no msync", "io/disk.py", "memory.flush()", "pass", _POWER),
    Mutation("content is not synced", "io/disk.py",
             "        return\n    _sync(path)", "        return\n    return", _POWER),
    Mutation("names are not synced", "io/disk.py",
             "cannot\n        _sync(path)", "cannot\n        pass", _POWER),
    Mutation("records are overwritten in place", "io/disk.py",
             "    write_file(new, data)\n    sync_file(new)\n    rename(new, path)",
             "    write_file(path, data)\n    sync_file(path)", _POWER),
    Mutation("the checkpoint before the pixels", "io/canvas.py",
             "            self._files.flush()\n"
             "            save_checkpoint(Path(self._plan.job_dir), checkpoint, self._slot)\n",
             "            save_checkpoint(Path(self._plan.job_dir), checkpoint, self._slot)\n"
             "            self._files.flush()\n", _POWER),
    Mutation("the checkpoint's checksum is not checked", "io/checkpoint.py",
             'if record["sha256"] != _sha256(body):', "if False:", _POWER),
    Mutation("the plan's checksum is not checked", "io/job_record.py",
             'if signed["sha256"] != _sha256(signed["plan"]):', "if False:", _POWER),
    Mutation("the seams' checksums are not checked", "io/canvas_files.py",
             "self._seams_agree(checkpoint) and self._pixels", "self._pixels", _POWER),
    Mutation("the pixels' checksums are not checked", "io/canvas_files.py",
             " and self._pixels_agree(checkpoint)", "", _POWER),
    Mutation("the output has its name before it is synced", "io/writer.py",
             "            sync_output(Path(self._path))", "            pass", _POWER),
    Mutation("nothing says which file is the whole output", "io/job_folder.py",
             "disk.replace_file(self.path / FINISHED_FILE, json.dumps(record).encode())", "pass",
             _POWER),
    Mutation("a checkpoint speaks of a tile too many", "io/canvas.py",
             "            next_tile=self._next_tile,", "            next_tile=self._next_tile + 1,",
             _POWER),
    Mutation("stages survive their parent", "runtime/child.py",
             "        os._exit(0)", "        threading.Event().wait()", _KILL),
    Mutation("a lost stage is not named", "runtime/supervisor.py",
             'return StageError(f"the {self.name} process {how}.{hint}")',
             'return StageError(f"a process is lost.{hint}")', _KILL),
    Mutation("pixels depend on when a checkpoint was made", "io/canvas.py",
             "        broken = blend_tile(\n            planes,",
             "        planes = planes.astype(np.float16).astype(np.float32) "
             "if index % 7 == 3 and self._slot else planes\n"
             "        broken = blend_tile(\n            planes,", _KILL),
    Mutation("what cannot be decoded is filled", "io/source.py",
             'fail_on=fail_on if strict else "none"', 'fail_on="none"', _FUZZ),
    Mutation("red is taken for blue", "io/tile_reader.py",
             "out[: rect.height, : rect.width] = pixels",
             "out[: rect.height, : rect.width] = pixels[..., ::-1]", _FUZZ),
    Mutation("results are cut off instead of rounded", "plan/kernels.py",
             "np.float32(0.5), np.float32(0)", "np.float32(0), np.float32(0)", _FUZZ),
)  # fmt: skip


def mutated(mutation: Mutation, folder: Path) -> Path:
    """A copy of srpipe with a mutation, beside links to what it needs; returns ``folder``.

    Raises:
        MutationError: the package does not hold what is to be replaced.
    """
    shutil.copytree(
        _ROOT / "srpipe", folder / "srpipe", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("models", "scripts", "tests"):
        (folder / name).symlink_to(_ROOT / name)
    path = folder / "srpipe" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise MutationError(
            f"{mutation.name}: {mutation.file} holds {text.count(mutation.old)} times what is to be "
            "replaced: write the mutation anew."
        )
    path.write_text(text.replace(mutation.old, mutation.new))
    return folder


def finding(package: Path, campaign: tuple[str, ...]) -> str | None:
    """Run a campaign on the srpipe in a folder; returns its first finding.

    Raises:
        MutationError: it ends in another way than with findings or without.
    """
    path = os.pathsep.join(map(str, (package, package / "scripts")))
    done = subprocess.run(
        [sys.executable, "-m", "torturing", *campaign],
        cwd=package,
        env=os.environ | {"PYTHONPATH": path, "SRPIPE_TEST_PATIENCE_S": _PATIENCE_S},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("FINDING: ")]
    if done.returncode not in (0, 1) or bool(done.returncode) != bool(found):
        raise MutationError(
            f"{' '.join(campaign)} ended with {done.returncode}: {done.stderr[-900:]}"
        )
    return found[0] if found else None


def try_mutation(mutation: Mutation) -> str | None:
    """What the campaign says of a mutation; None: it goes unnoticed.

    Raises:
        MutationError: it cannot be tried.
    """
    with tempfile.TemporaryDirectory() as folder:
        return finding(mutated(mutation, Path(folder)), mutation.campaign)


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("mutate", help="faults on purpose, which the others must find")
    parser.add_argument(
        "--only", metavar="WORDS", default="", help="mutations whose name holds the words"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaigns on srpipe as it is, and on every mutation."""
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    unnoticed = 0
    for campaign in dict.fromkeys(mutation.campaign for mutation in chosen):
        found = finding(_ROOT, campaign)
        print(f"srpipe as it is, {' '.join(campaign)}: {found or 'nothing is found'}", flush=True)
        unnoticed += found is not None
    for mutation in chosen:
        begin_s = time.monotonic()
        found = try_mutation(mutation)
        unnoticed += found is None
        said = "UNNOTICED" if found is None else found.removeprefix("FINDING: ")[:150]
        print(f"{mutation.name}, {time.monotonic() - begin_s:.0f} s: {said}", flush=True)
    print(f"{len(chosen)} mutations, {unnoticed} unnoticed or found without reason")
    return bool(unnoticed)
