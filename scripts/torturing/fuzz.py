"""Damaged images and models: each ends in the right pixels or in one clear error.

Long-lived child processes call the Python interface, all stages in the child itself; whatever kills
one would have killed a user's program. A share of the inputs goes through the command line. Another
process compares what comes out with independent decoders: of an image a model that changes nothing must
leave the pixels that they read, and of a model the runtime alone must make the same.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tests.onnx_models import elementwise_model
from torturing.judging import judge_image, judge_result
from torturing.seeds import damaged, kind_of, make_images, make_models

_TIMEOUT_S = 300.0
_COMMAND_SHARE = 40
_SUCCESS = "success"
_MAX_GROWTH_BYTES = 400_000_000
_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; import torturing.fuzz as fuzz; "
    "getattr(fuzz, sys.argv[1])(Connection(int(sys.argv[2])), sys.argv[3])"
)


@dataclass(frozen=True)
class Case:
    """One damaged input."""

    path: Path
    original: Path
    """What it was before it was damaged."""
    image: Path
    model: Path
    is_model: bool
    kind: str
    allow_untrusted: bool
    by_command: bool


@dataclass
class Findings:
    """What came out."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    longest_s: float = 0.0


def make_cases(folder: Path, n: int, seed: int) -> list[Case]:
    """Damaged inputs, the same for a seed: three images for every model."""
    (folder / "seeds").mkdir()
    images, models = make_images(folder / "seeds"), make_models(folder / "seeds")
    same = elementwise_model(folder / "seeds" / "same.onnx", "Identity")
    chance = random.Random(seed)
    cases = []
    for i in range(n):
        is_model = i % 4 == 3
        seeds = models if is_model else images
        original = seeds[(i // 4 if is_model else i - i // 4) % len(seeds)]
        other = chance.choice([p for p in seeds if p.suffix == original.suffix])
        path = folder / f"{i:05}{original.suffix}"
        path.write_bytes(damaged(original.read_bytes(), other.read_bytes(), chance))
        cases.append(
            Case(
                path=path,
                original=original,
                image=images[0] if is_model else path,
                model=path if is_model else same,
                is_model=is_model,
                kind=kind_of(original),
                allow_untrusted=chance.random() < 0.5,
                by_command=i % _COMMAND_SHARE == 5,
            )
        )
    return cases


def serve(connection: Connection, folder: str) -> None:
    """Enhance what comes, in a child, and say how it ended; results go beside its folder."""
    logging.disable()
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    import srpipe

    output = Path(folder, "out.tif")
    while True:
        try:
            case: Case = connection.recv()
        except EOFError:
            return
        try:
            srpipe.enhance(
                case.image, output, model=case.model, engine="serial", threads=1,
                allow_untrusted=case.allow_untrusted, tile_size=None, on_error="stop",
                color_management="off",
            )  # fmt: skip
            outcome = _SUCCESS
            output.replace(_result_of(Path(folder)))
        except srpipe.SrpipeError as error:
            outcome = type(error).__name__
            named = case.path.stem in str(error) or folder in str(error)
            if "\n" in str(error) or not named:
                outcome = f"BAD: unclear {outcome}: {error}"
        except BaseException as error:  # whatever else comes is a finding
            outcome = f"BAD: {type(error).__name__}: {error}"
        output.unlink(missing_ok=True)
        job = Path(f"{output}.srpipe")
        if job.exists():
            if outcome == _SUCCESS:
                outcome = "BAD: a job folder is left"
            shutil.rmtree(job)
        left = [p.name for p in Path(folder).iterdir()]
        if left:
            outcome = f"BAD: files left: {left}"
        gc.collect()
        connection.send((outcome, len(os.listdir("/proc/self/fd")), threading.active_count()))


def judge_all(connection: Connection, folder: str) -> None:
    """Compare results with what they should be, in a child: the decoders may crash, too."""
    while True:
        try:
            case, output = connection.recv()
        except EOFError:
            return
        try:
            if case.is_model:
                said = judge_result(case.image, case.model, output)
            else:
                said = judge_image(case.image, case.original, output)
        except Exception as error:  # a finding about this campaign
            said = f"cannot be judged ({type(error).__name__}: {error})"
        gc.collect()
        connection.send((said, len(os.listdir("/proc/self/fd")), threading.active_count()))


def _result_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-result.tif")


class Child:
    """A process that outlives its inputs, as long as they let it.

    Args:
        folder: for its files; it is made.
        function: of this module, that answers what it is sent.
    """

    def __init__(self, folder: Path, function: str) -> None:
        self._folder = folder
        self._function = function
        folder.mkdir()
        self._start()

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        command = [
            sys.executable, "-c", _BOOTSTRAP, self._function, str(theirs.fileno()),
            str(self._folder),
        ]  # fmt: skip
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._first: tuple[int, int, int] | None = None

    def run(self, question: object) -> str:
        """How one input ends; a finding begins with BAD."""
        try:
            self._connection.send(question)
            if not self._connection.poll(_TIMEOUT_S):
                self._process.kill()
                return self._again("BAD: hangs")
            outcome, descriptors, threads = self._connection.recv()
        except (EOFError, OSError):
            return self._again(f"BAD: died with exit code {self._process.wait()}")
        rss = psutil.Process(self._process.pid).memory_info().rss
        if self._first is None:
            self._first = (descriptors, threads, rss)
        # Libraries open some files of their own, once.
        if descriptors > self._first[0] + 8 or threads > self._first[1] + 2:
            return self._again(f"BAD: leak, {descriptors} files and {threads} threads")
        if rss > self._first[2] + _MAX_GROWTH_BYTES:
            return self._again(f"BAD: grew to {rss / 1e6:.0f} MB")
        return str(outcome)

    def _again(self, outcome: str) -> str:
        self.close()
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


def run_command(case: Case, folder: Path) -> str:
    """The same through the command line."""
    output = folder / "out.tif"
    command = [
        sys.executable, "-m", "srpipe", "enhance", str(case.image), str(output),
        "--model", str(case.model), "--fresh", "--overwrite",
        "--color-management", "off",
        *(["--allow-untrusted"] if case.allow_untrusted else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "BAD: hangs"
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("srpipe: ")]
    if done.returncode == 0:
        output.replace(_result_of(folder))
        return _SUCCESS
    if done.returncode not in (1, 2) or not errors or "Traceback" in done.stderr:
        return f"BAD: exit code {done.returncode}: {done.stderr[-300:]}"
    return "by command"


def run_cases(cases: list[Case], folder: Path, keep: Path | None) -> Findings:
    """Run all inputs in two processes."""
    findings = Findings()
    lock = threading.Lock()

    def work(k: int) -> None:
        child, judging = (
            Child(folder / f"child{k}", "serve"),
            Child(folder / f"judge{k}", "judge_all"),
        )
        commands = folder / f"commands{k}"
        commands.mkdir()
        for case in cases[k::2]:
            begin_s = time.monotonic()
            outcome = run_command(case, commands) if case.by_command else child.run(case)
            if outcome == _SUCCESS:
                result = _result_of(commands if case.by_command else folder / f"child{k}")
                outcome = judging.run((case, result))
                if outcome.startswith("BAD"):  # the decoder died, or took too much
                    outcome = "unjudged"
                elif outcome not in ("right", "unjudged"):
                    outcome = f"BAD: {outcome}"
            with lock:
                findings.longest_s = max(findings.longest_s, time.monotonic() - begin_s)
                if outcome.startswith("BAD"):
                    findings.bad.append(f"{case.path.name}: {outcome}")
                    if keep is not None:
                        shutil.copy(case.path, keep)
                    outcome = "BAD"
                findings.outcomes[case.kind, outcome] += 1
            case.path.unlink()
        child.close()
        judging.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    return findings


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("fuzz", help="damaged images and models")
    parser.add_argument("--inputs", type=int, default=2000, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default %(default)s")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for inputs that end badly")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign."""
    begin_s = time.monotonic()
    if options.keep:
        options.keep.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        cases = make_cases(Path(name), options.inputs, options.seed)
        findings = run_cases(cases, Path(name), options.keep)
    columns = sorted({outcome for _, outcome in findings.outcomes})
    print(f"{'':6}" + "".join(f"{column:>18}" for column in columns))
    for kind in sorted({kind for kind, _ in findings.outcomes}):
        counts = (findings.outcomes[kind, column] for column in columns)
        print(f"{kind:6}" + "".join(f"{n:18}" for n in counts))
    for line in findings.bad:
        print(f"FINDING: {line}")
    print(
        f"{options.inputs} inputs, {len(findings.bad)} findings; longest {findings.longest_s:.1f} s; "
        f"{time.monotonic() - begin_s:.0f} s in all"
    )
    return bool(findings.bad)
