"""Kills processes of running jobs at random moments, lets the jobs go on, and compares bytes."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from srpipe.io.checkpoint import load_checkpoints
from srpipe.io.job_record import read_plan
from srpipe.io.output_place import remove_output
from srpipe.io.slabs_folder import tiles_done
from srpipe.plan.fingerprint import digest
from tests.processes import PATIENCE_S, named_memory, stages_of
from torturing.victims import KINDS as VICTIMS
from torturing.victims import Victim, make_victim

KINDS = ("anywhere", "first second", "during encode", "during checkpoint", "without progress")
PROCESSES = ("parent", "reader", "batcher", "worker", "accumulator", "writer")
# A moment that five jobs in a row do not have, such as a checkpoint of a short one, is done without.
_MISSES = 5


class FindingError(Exception):
    """Something that must not happen."""


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    """By what they are."""
    resumes: int = 0
    repeated_tiles: list[int] = field(default_factory=list)
    longest_end_s: float = 0.0


class Run:
    """One command under way, its progress followed in a thread."""

    def __init__(self, command: tuple[str, ...]) -> None:
        follow = ("--progress", "json") if command[0] == "enhance" else ("--quiet",)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "srpipe", *command, *follow], stderr=subprocess.PIPE, text=True
        )
        self.begin_s = self.heard_s = time.monotonic()
        self.first_tile: int | None = None
        self.tiles_done = 0
        self.tiles_total = 1
        self.lines: list[str] = []
        self.stages: dict[int, psutil.Process] = {}
        self._checkpoints_ns: dict[Path, int] = {}
        self._seen_s: dict[str, float] = {"parent": self.begin_s}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.heard_s = time.monotonic()
            self.lines.append(line.strip())
            event = json.loads(line) if line.startswith("{") else {"event": "text"}
            if event["event"] == "progress":
                self.tiles_done = event["tiles_done"]
                self.tiles_total = event["tiles_total"]
                if self.first_tile is None:
                    self.first_tile = event["tiles_done"]

    @property
    def ended(self) -> bool:
        """Whether the parent has exited."""
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        """All that it has said but progress."""
        return "\n".join(line for line in self.lines if '"event": "progress"' not in line)

    def find(self, name: str) -> list[psutil.Process]:
        """The processes of a stage, or the parent; all stages ever seen are remembered."""
        try:
            stages = stages_of(self.process.pid)
        except psutil.NoSuchProcess:
            return []
        self.stages |= {process.pid: process for process in stages.values()}
        found = [p for stage, p in stages.items() if stage.split()[0] == name]
        if found:
            self._seen_s.setdefault(name, time.monotonic())
        return [psutil.Process(self.process.pid)] if name == "parent" else found

    def age_s(self, name: str) -> float:
        """For how long a stage has been there; 0 before."""
        return time.monotonic() - self._seen_s.get(name, time.monotonic())

    def sees_checkpoint(self, folder: Path) -> bool:
        """Whether a checkpoint below a job folder has been written to since it was last looked at."""
        times = {}
        for path in folder.rglob("checkpoint-?.json"):
            with contextlib.suppress(FileNotFoundError):
                times[path] = path.stat().st_mtime_ns
        before, self._checkpoints_ns = self._checkpoints_ns, times
        return any(before.get(path, time_ns) != time_ns for path, time_ns in times.items())

    def close(self) -> None:
        """Wait for the last words of a parent that has exited."""
        self._thread.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


class Campaign:
    """Kills of the jobs of one campaign."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._turn = self._misses = 0
        self.tally = Tally()

    def torture(self, victim: Victim, kills: int) -> None:
        """Kill a job so often, and let it end.

        Raises:
            FindingError: with what went wrong.
        """
        for command in victim.commands:
            subprocess.run([sys.executable, "-m", "srpipe", *command, "--quiet"], check=True)
        expected = victim.content()
        if victim.is_folder_run:
            shutil.rmtree(victim.output)
        else:
            remove_output(victim.output)
        share = -(-kills // len(victim.commands))
        for number in range(len(victim.commands)):
            kills -= self._torture_command(victim, number, min(kills, share))
        if victim.content() != expected:
            raise FindingError("the result differs")
        if victim.job_dir.exists() or list(victim.output.parent.rglob("*.srpipe")):
            raise FindingError("the job folder is still there")

    def _torture_command(self, victim: Victim, number: int, kills: int) -> int:
        """Kill one command, and repeat it until it ends well; returns how often it was killed."""
        left, saved, before = kills, 0, 0
        while True:
            run, killed = Run(victim.commands[number]), ""
            while left and killed in ("", "worker"):
                name = self._kill(run, victim, number)
                if name is None:
                    break  # the run was over too soon
                killed = name
                left -= 1
            code = self._wait(run, timed=killed not in ("", "worker"))
            if run.first_tile is not None and not victim.is_folder_run:
                if run.first_tile < saved:
                    raise FindingError(f"went on at tile {run.first_tile}, with {saved} saved")
                self.tally.repeated_tiles.append(max(0, before - run.first_tile))
            if code == 0:
                return kills - left
            self._check_end(run, code, killed or "nothing")
            if _is_in_place(victim):
                return kills - left
            before, saved = run.tiles_done, _saved_tiles(victim, number)
            self.tally.resumes += 1

    def _next_kill(self, victim: Victim, number: int) -> tuple[str, str]:
        """Moment and process; all pairs in thirty turns."""
        kind = KINDS[self._turn % len(KINDS)]
        name = PROCESSES[self._turn % len(PROCESSES)]
        if not victim.can_be_killed_within[number]:
            return "without progress", "parent"
        return kind, name

    def _kill(self, run: Run, victim: Victim, number: int) -> str | None:
        """Kill at the right moment; returns which process, None if there was no such moment."""
        kind, name = self._next_kill(victim, number)
        processes = self._await_moment(run, victim, kind, name)
        named = named_memory(run.stages.values()) - _names_in(victim.job_dir)
        if named:
            raise FindingError(f"shared memory with names: {named}")
        try:
            if not processes:
                raise psutil.NoSuchProcess(run.process.pid)
            self._chance.choice(processes).kill()
        except psutil.NoSuchProcess:
            self._misses += 1
            if self._misses >= _MISSES:
                self.tally.missed[kind, name] += 1
                self._turn, self._misses = self._turn + 1, 0
            return None
        self.tally.kills[kind, name] += 1
        self._turn, self._misses = self._turn + 1, 0
        return name

    def _await_moment(self, run: Run, victim: Victim, kind: str, name: str) -> list[psutil.Process]:
        """The processes to choose from when the moment has come; none: the run has ended."""
        chance = self._chance.random()
        while not run.ended:
            processes = run.find(name)
            total, done, first = run.tiles_total, run.tiles_done, run.first_tile or 0
            is_far = done >= first + 1 + int(chance * 0.5 * (total - first))
            match kind:
                case _ if not processes:
                    is_now = False
                case "first second" | "without progress":
                    is_now = run.age_s(name) >= chance
                case "during checkpoint":
                    is_now = run.sees_checkpoint(victim.job_dir)
                case _ if victim.is_folder_run:  # which says nothing of tiles
                    is_now = run.age_s(name) >= 3 * chance
                case "during encode":
                    is_now = 1 < total == done
                case _:
                    is_now = is_far
            if is_now:
                return processes
            if time.monotonic() - run.heard_s > PATIENCE_S:
                raise FindingError("no word for minutes")
            if kind != "during checkpoint":
                time.sleep(0.005)
        return []

    def _wait(self, run: Run, *, timed: bool) -> int:
        begin_s = time.monotonic()
        while not run.ended:
            run.find("parent")
            now_s = time.monotonic()
            if now_s - max(run.heard_s, begin_s) > PATIENCE_S:
                raise FindingError("hangs")
            time.sleep(0.02)
        if timed:
            self.tally.longest_end_s = max(self.tally.longest_end_s, time.monotonic() - begin_s)
        run.close()
        return run.process.returncode

    def _check_end(self, run: Run, code: int, killed: str) -> None:
        _, alive = psutil.wait_procs(list(run.stages.values()), timeout=PATIENCE_S)
        if alive:
            for process in alive:
                process.kill()
            raise FindingError(f"processes left: {alive}")
        if code not in (-9, 1):
            raise FindingError(f"exit code {code} after a kill of the {killed}: {run.said}")
        if code == 1 and killed not in run.said and "workers were lost" not in run.said:
            raise FindingError(f"does not say that the {killed} was killed: {run.said}")


def _names_in(folder: Path) -> set[str]:
    """Files of a job folder that is on the disk of shared memory."""
    return {str(path).removeprefix("/dev/shm/") for path in folder.rglob("*")}


def _is_in_place(victim: Victim) -> bool:
    """Whether the output is there, and nothing that takes it for this job's any more.

    The kill came after the job was done; that the output is whole is still to be seen.
    """
    if victim.is_folder_run or not victim.output.exists():
        return False
    return (
        not (victim.job_dir / "plan.json").exists()
        and not (victim.job_dir / "finished.json").exists()
    )


def _saved_tiles(victim: Victim, number: int) -> int:
    try:
        job = digest(read_plan(victim.job_dir))
        if len(victim.commands) > 1:
            slabs = len(victim.commands) - 1
            return tiles_done(victim.job_dir, number, job) if number < slabs else 0
        found = load_checkpoints(victim.job_dir, job)
        return max((checkpoint.next_tile for checkpoint in found), default=0)
    except OSError:
        return 0


def run_campaign(
    kills: int, jobs: int, seed: int, folder: Path, elsewhere: Path | None,
    kinds: tuple[str | None, ...] = (None,),
) -> Tally:  # fmt: skip
    """Spread kills over jobs; a job that is over too soon leaves its kills to one more.

    Args:
        kills: and jobs, at least.
        jobs: see ``kills``.
        seed: chooses everything.
        folder: for the jobs.
        elsewhere: a folder on another disk.
        kinds: of jobs, in turn; None: by the seed.

    Raises:
        FindingError: with the job's seed and command; its folder stays.
    """
    campaign = Campaign(seed)
    tally = campaign.tally
    while tally.jobs.total() < jobs or tally.kills.total() + tally.missed.total() < kills:
        name = tempfile.mkdtemp(dir=folder)
        number = tally.jobs.total()
        kind = kinds[number % len(kinds)]
        victim = make_victim(Path(name), seed + number, elsewhere, kind)
        try:
            campaign.torture(victim, -(-kills // jobs))
        except FindingError as finding:
            raise FindingError(f"job {seed + number}, {victim.text}: {finding}") from None
        shutil.rmtree(name)
        tally.jobs[victim.kind] += 1
    return tally


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("kill", help="SIGKILL to random processes of running jobs")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default %(default)s")
    parser.add_argument("--jobs", type=int, default=32, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default %(default)s")
    parser.add_argument("--kind", choices=VICTIMS, help="of all jobs; default: each in turn")
    parser.add_argument("--folder", type=Path, help="for the jobs; default a temporary one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign."""
    begin_s = time.monotonic()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="srpipe-kill-"))
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as elsewhere:
        try:
            tally = run_campaign(
                options.kills, options.jobs, options.seed, folder, Path(elsewhere), (options.kind,)
            )
        except FindingError as finding:
            print(f"FINDING: {finding}")
            return 1
    print(f"{'':20}" + "".join(f"{name:>13}" for name in PROCESSES))
    for kind in KINDS:
        print(f"{kind:20}" + "".join(f"{tally.kills[kind, name]:13}" for name in PROCESSES))
    print("jobs:", ", ".join(f"{n} {kind}" for kind, n in tally.jobs.items()))
    print(
        f"{tally.kills.total()} kills ({tally.missed.total()} moments never came), "
        f"{tally.jobs.total()} jobs, {tally.resumes} resumes: "
        "0 differences, 0 hangs, 0 leaks; tiles computed again: median "
        f"{statistics.median(tally.repeated_tiles or [0]):g}, most "
        f"{max(tally.repeated_tiles or [0])}; longest end {tally.longest_end_s:.1f} s; "
        f"{time.monotonic() - begin_s:.0f} s in all"
    )
    return 0
