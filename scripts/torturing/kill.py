"""Kills processes of running jobs at random moments, lets the jobs go on, and compares bytes."""

from __future__ import annotations

import argparse
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
from srpipe.plan.fingerprint import digest
from tests.conftest import shared_memory_names
from tests.processes import stages_of
from torturing.victims import Victim, make_victim

KINDS = ("anywhere", "first second", "during encode", "during checkpoint", "without progress")
PROCESSES = ("parent", "reader", "batcher", "worker", "accumulator", "writer")
_HANG_S = 60.0
_END_S = 5.0


class FindingError(Exception):
    """Something that must not happen."""


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    jobs: int = 0
    resumes: int = 0
    repeated_tiles: list[int] = field(default_factory=list)
    longest_end_s: float = 0.0


class Run:
    """One ``srpipe enhance`` under way, its progress followed in a thread."""

    def __init__(self, victim: Victim) -> None:
        command = [sys.executable, "-m", "srpipe", *victim.arguments, "--progress", "json"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.first_tile: int | None = None
        self.tiles_done = 0
        self.tiles_total = 1
        self.last_line = ""
        self.stages: dict[int, psutil.Process] = {}
        self.heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.heard_s = time.monotonic()
            self.last_line = line.strip()
            event = json.loads(line)
            if event["event"] == "progress":
                self.tiles_done = event["tiles_done"]
                self.tiles_total = event["tiles_total"]
                if self.first_tile is None:
                    self.first_tile = event["tiles_done"]

    @property
    def ended(self) -> bool:
        """Whether the parent has exited."""
        return self.process.poll() is not None

    def note_stages(self) -> dict[str, psutil.Process]:
        """The stage processes there are, all ever seen being remembered."""
        try:
            stages = stages_of(self.process.pid)
        except psutil.NoSuchProcess:
            return {}
        self.stages |= {process.pid: process for process in stages.values()}
        return stages

    def close(self) -> None:
        """Wait for the last words of a parent that has exited."""
        self._thread.join(_END_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


class Campaign:
    """Kills of the jobs of one campaign."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._n_kills = 0
        self.tally = Tally()

    def torture(self, victim: Victim, kills: int) -> None:
        """Kill a job so often, and let it end.

        Raises:
            FindingError: with what went wrong.
        """
        command = [sys.executable, "-m", "srpipe", *victim.arguments, "--quiet"]
        subprocess.run(command, check=True)
        expected = victim.output.read_bytes()
        victim.output.unlink()
        saved, left, before = 0, kills, 0
        while True:
            run = Run(victim)
            ended = False
            while left and not ended:
                kind, process = self._next_kind()
                killed = self._kill(run, victim, kind, process)
                if killed is None:
                    break  # the run was over too soon
                self.tally.kills[kind, killed] += 1
                self._n_kills += 1
                left -= 1
                ended = killed != "worker"
            code = self._wait(run, _END_S if ended else None)
            if run.first_tile is not None and run.first_tile < saved:
                raise FindingError(f"went on at tile {run.first_tile}, with {saved} saved")
            if run.first_tile is not None:
                self.tally.repeated_tiles.append(max(0, before - run.first_tile))
            if code == 0 or _is_in_place(victim):
                break
            self._check_end(run, victim, code, killed or "nothing")
            before, saved = run.tiles_done, _saved_tiles(victim.job_dir)
            self.tally.resumes += 1
        if victim.output.read_bytes() != expected:
            raise FindingError("the result differs")
        if code == 0 and victim.job_dir.exists():
            raise FindingError("the job folder is still there")

    def _next_kind(self) -> tuple[str, str]:
        n = self._n_kills
        kind = KINDS[n % len(KINDS)]
        return kind, PROCESSES[n // len(KINDS) % len(PROCESSES)]

    def _kill(self, run: Run, victim: Victim, kind: str, name: str) -> str | None:
        """Kill at the right moment; returns which process, None if there was no such moment."""
        if not self._await_moment(run, victim, kind):
            return None
        stages = run.note_stages()
        wanted = [p for stage, p in stages.items() if stage.split()[0] == name]
        try:
            if wanted:
                self._chance.choice(wanted).kill()
                return name
            run.process.kill()
            return "parent"
        except psutil.NoSuchProcess:
            return None

    def _await_moment(self, run: Run, victim: Victim, kind: str) -> bool:
        chance = self._chance.random()
        begin_s = time.monotonic()
        while not run.ended:
            now_s = time.monotonic() - begin_s
            total, done, first = run.tiles_total, run.tiles_done, run.first_tile or 0
            target = first + 1 + int(chance * 0.5 * (total - first))
            run.note_stages()
            match kind:
                case "anywhere" if done >= target:
                    return True
                case "first second" | "without progress" if now_s >= chance:
                    return True
                case "during encode" if 1 < total == done:
                    return True
                case "during checkpoint" if done >= target and any(
                    victim.job_dir.glob("checkpoint-?.json.new")
                ):
                    return True
            if time.monotonic() - run.heard_s > _HANG_S:
                raise FindingError("no word for a minute")
            if kind != "during checkpoint":
                time.sleep(0.005)
        return False

    def _wait(self, run: Run, limit_s: float | None) -> int:
        begin_s = time.monotonic()
        while not run.ended:
            run.note_stages()
            now_s = time.monotonic()
            if (limit_s and now_s - begin_s > limit_s) or now_s - run.heard_s > _HANG_S:
                raise FindingError("hangs")
            time.sleep(0.02)
        if limit_s:
            self.tally.longest_end_s = max(self.tally.longest_end_s, time.monotonic() - begin_s)
        run.close()
        return run.process.returncode

    def _check_end(self, run: Run, victim: Victim, code: int, killed: str) -> None:
        _, alive = psutil.wait_procs(list(run.stages.values()), timeout=_END_S)
        if alive:
            raise FindingError(f"processes left: {alive}")
        if any("srpipe" in name for name in shared_memory_names()):
            raise FindingError("shared memory left")
        if code not in (-9, 1):
            raise FindingError(f"exit code {code} after a kill of the {killed}: {run.last_line}")
        if code == 1 and killed not in run.last_line and "workers were lost" not in run.last_line:
            raise FindingError(f"does not say that the {killed} was killed: {run.last_line}")


def _is_in_place(victim: Victim) -> bool:
    """Whether the output is there, and nothing that takes it for this job's any more.

    The kill came after the job was done; that the output is whole is still to be seen.
    """
    return victim.output.exists() and not (victim.job_dir / "finished.json").exists()


def _saved_tiles(job_dir: Path) -> int:
    try:
        found = load_checkpoints(job_dir, digest(read_plan(job_dir)))
    except OSError:
        return 0
    return max((checkpoint.next_tile for checkpoint in found), default=0)


def run_campaign(kills: int, jobs: int, seed: int, folder: Path, elsewhere: Path | None) -> Tally:
    """Spread kills over jobs; a job that is over too soon leaves its kills to one more.

    Raises:
        FindingError: with the job's seed and command; its folder stays.
    """
    campaign = Campaign(seed)
    while campaign.tally.jobs < jobs or sum(campaign.tally.kills.values()) < kills:
        name = tempfile.mkdtemp(dir=folder)
        job_seed = seed + campaign.tally.jobs
        victim = make_victim(Path(name), job_seed, elsewhere)
        try:
            campaign.torture(victim, -(-kills // jobs))
        except FindingError as finding:
            raise FindingError(f"job {job_seed}, {victim.text}: {finding}") from None
        shutil.rmtree(name)
        campaign.tally.jobs += 1
    return campaign.tally


def add_parser(campaigns: Any) -> None:
    """Add the campaign's arguments."""
    parser = campaigns.add_parser("kill", help="SIGKILL to random processes of running jobs")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default %(default)s")
    parser.add_argument("--jobs", type=int, default=20, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default %(default)s")
    parser.add_argument("--folder", type=Path, help="for the jobs; default a temporary one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the campaign."""
    begin_s = time.monotonic()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="srpipe-kill-"))
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as elsewhere:
        try:
            tally = run_campaign(options.kills, options.jobs, options.seed, folder, Path(elsewhere))
        except FindingError as finding:
            print(f"FINDING: {finding}")
            return 1
    print(f"{'':20}" + "".join(f"{name:>13}" for name in PROCESSES))
    for kind in KINDS:
        print(f"{kind:20}" + "".join(f"{tally.kills[kind, name]:13}" for name in PROCESSES))
    print(
        f"{sum(tally.kills.values())} kills, {tally.jobs} jobs, {tally.resumes} resumes: "
        "0 differences, 0 hangs, 0 leaks; tiles computed again: median "
        f"{statistics.median(tally.repeated_tiles or [0]):g}, most "
        f"{max(tally.repeated_tiles or [0])}; longest end {tally.longest_end_s:.1f} s; "
        f"{time.monotonic() - begin_s:.0f} s in all"
    )
    return 0
