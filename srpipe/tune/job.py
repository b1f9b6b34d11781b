"""Chooses tile, batch and arrangement of a job: from what was measured, or by measuring now."""

from __future__ import annotations

import logging
from dataclasses import replace

from srpipe.errors import SpaceError
from srpipe.io.devices import processor_devices
from srpipe.io.space import format_bytes
from srpipe.models.speed import rough_speed
from srpipe.plan.job import Plan
from srpipe.plan.model_info import ModelInfo
from srpipe.settings import Settings
from srpipe.tune.budget import job_budget_bytes
from srpipe.tune.candidates import Candidate, Choices, list_choices
from srpipe.tune.choice import Choice, Planner, as_asked, choose, consider
from srpipe.tune.nominal import nominal_planner, usefulness
from srpipe.tune.search import DEFAULT_TIME_S, Row, Rows, Search, expected_bytes
from srpipe.tune.stopwatch import Stopwatch
from srpipe.tune.table import Table, load_table, save_table, table_name

logger = logging.getLogger(__name__)

# A job is measured for if it takes so many times longer than measuring does.
_WORTH = 10
_FIXED_S = 5.0
_MEASURED_MP = 3.0
# Pictures of a few megapixels give the same bytes everywhere.
_FEW_TILES = 8


def tune_plan(
    plan: Plan,
    graph: ModelInfo,
    settings: Settings,
    plan_for: Planner,
    cores: int,
    *,
    measure: bool = True,
) -> Plan:
    """Replace what settings leave open in a plan by what is fastest here, within the memory.

    What was measured before is used for every job of more than a few tiles. Else jobs
    that take long enough are measured for; others go on with the usual values, but keep to
    ``settings.memory_bytes``.

    Args:
        plan: the job as it is where nothing is measured.
        graph: its model, with the file that sessions on the plain processor load.
        settings: what is asked for.
        plan_for: plans the job with other settings.
        cores: processor cores there are.
        measure: whether to measure where nothing was measured before.

    Raises:
        SpaceError: even the smallest tile does not fit into the memory.
    """
    few = plan.grid.n_tiles <= _FEW_TILES
    if few and settings.memory_bytes is None:
        return plan
    if plan.serial:
        settings = replace(settings, workers=1, runners=1)
    devices = devices_to_try(settings, plan.device)
    task = Task(graph, settings, devices, cores, plan.model.path)
    if not task.is_open and settings.memory_bytes is None:
        return plan
    measured = not few and task.is_open
    if measured and not task.table.covers(task.asked, task.budget_bytes):
        speed = rough_speed(graph, plan.devices[0], cores) if measure else None
        rough_s = plan.grid.model_pixels / 1e6 / speed if speed else 0.0
        tuning_s = _tuning_s(plan, rough_s)
        measured = rough_s > _WORTH * tuning_s
        if measured:
            logger.warning(
                "measuring the best tile, batch and threads for %s (once; about %.0f s).",
                plan.model.name,
                tuning_s,
            )
            task.search()
    if not measured and settings.memory_bytes is None:
        return plan
    choice = task.choose(plan_for, measured=measured)
    return plan if choice is None else choice.plan


def devices_to_try(settings: Settings, device: str) -> tuple[str, ...]:
    """The device, and where none was asked for all that run on the processor."""
    if settings.device == "auto" and device == "cpu":
        return processor_devices()
    return (device,)


class Task:
    """What to choose for, and what is known of it."""

    def __init__(
        self,
        info: ModelInfo,
        settings: Settings,
        devices: tuple[str, ...],
        cores: int,
        original_path: str,
    ) -> None:
        """Look up what was measured before.

        Args:
            info: the model, with the file for the plain processor.
            settings: what is asked for.
            devices: each is tried.
            cores: processor cores there are.
            original_path: the file for other devices.
        """
        self.info = info
        self._original_path = original_path
        self.settings = settings
        self.cores = cores
        self.devices = devices
        self.choices: Choices = list_choices(info, settings, devices, cores)
        self.budget_bytes = job_budget_bytes(settings.memory_bytes)
        self.useful = usefulness(info, settings)
        self._name = table_name(info, devices, cores)
        self.table: Table = load_table(self._name)
        self.is_disturbed = False
        """Whether others kept the processor busy during the last search."""

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        choices = self.choices
        return max(len(choices.arrangements), len(choices.tiles), len(choices.batches)) > 1

    @property
    def asked(self) -> str:
        """What is fixed, as one line."""
        names = ("tile_size", "overlap", "batch_size", "workers", "threads", "runners")
        fixed = {name: getattr(self.settings, name) for name in names}
        return " ".join(f"{name}={value}" for name, value in fixed.items() if value is not None)

    def search(self, *, anew: bool = False) -> None:
        """Measure what is best for large images, and keep what was found.

        Args:
            anew: take no notice of what was measured before.
        """
        if anew:
            self.table = Table()
        with self._stopwatch() as timer:
            search = self._searcher(timer, nominal_planner(self.info, self.cores))
            search.run()
        self.is_disturbed = timer.is_disturbed
        if self.is_disturbed:
            logger.warning(
                "other processes kept the processor busy while %s was measured: what was found is "
                "not kept for other jobs.",
                self.info.name,
            )
            self.table = Table(search.rows)
        elif search.rows:
            limit = self.budget_bytes if search.short_of_memory else None
            self._keep(search.rows, {self.asked: limit})

    def sweep(self, chosen: Candidate, time_s: float) -> bool:
        """Measure all there is, and the chosen once more; kept for nobody.

        Args:
            chosen: what a search has found.
            time_s: when to stop.

        Returns:
            Whether there was time for all.
        """
        with self._stopwatch() as timer:
            search = self._searcher(timer, nominal_planner(self.info, self.cores), time_s)
            search.sweep(chosen)
        self.table = Table(search.rows)
        return not search.out_of_time

    def choose(self, plan_for: Planner, *, measured: bool = True) -> Choice | None:
        """What suits a job best; the largest tile that fits where nothing measured does.

        Args:
            plan_for: plans the job.
            measured: choose by speed; else the usual tile and arrangement, if they fit.

        Raises:
            SpaceError: even the smallest tile does not fit.
        """
        rows = [row for c, row in self.table.rows.items() if self._may_be(c)] if measured else []
        options = [option for row in rows if (option := consider(row, self.settings, plan_for))]
        choice = choose(options, self.budget_bytes)
        if choice is None:
            choice = self._shrink(plan_for)
        if choice is not None:
            self._say_if_smaller(choice, plan_for)
        return choice

    def _shrink(self, plan_for: Planner) -> Choice | None:
        with self._stopwatch() as timer:
            search = self._searcher(timer, plan_for)
            candidate = search.largest_that_fits()
        if not self.is_disturbed:
            self._keep(search.rows, {})
        if candidate is not None:
            return consider(search.rows[candidate], self.settings, plan_for)
        rows = [row for c, row in search.rows.items() if self._may_be(c)]
        options = [option for row in rows if (option := consider(row, self.settings, plan_for))]
        least = min(options, key=lambda option: option.job_bytes, default=None)
        if least is None and not search.failed:
            raise SpaceError(
                f"the job may take {format_bytes(self.budget_bytes or 0)} of memory, which is too "
                "little for what it needs beside its model: allow more with --memory."
            )
        if least is None:
            logger.warning("%s cannot be measured: the usual tile is taken.", self.info.name)
            return None
        raise SpaceError(
            f"the job may take {format_bytes(self.budget_bytes or 0)} of memory, and takes about "
            f"{format_bytes(least.job_bytes)} with tiles of {least.plan.grid.tile}: allow more with "
            "--memory, or use a smaller --tile-size, --batch-size or --threads if you fixed them."
        )

    def _say_if_smaller(self, choice: Choice, plan_for: Planner) -> None:
        base, tile = self.choices.base, choice.row.candidate.tile
        if tile.pixels >= base.pixels:
            return
        single = replace(choice.row.candidate.arrangement, workers=1, runners=1)
        candidate = Candidate(single, base, self.choices.batches[0])
        expected = Row(candidate, expected_bytes(self.table.rows, candidate), [1.0])
        option = consider(expected, self.settings, plan_for)
        if option is None or self.budget_bytes is None or option.job_bytes <= self.budget_bytes:
            return
        logger.warning(
            "%s of memory is too little for tiles of %s (about %s): tiles of %s are used (%s).",
            format_bytes(self.budget_bytes),
            base,
            format_bytes(option.job_bytes),
            tile,
            format_bytes(choice.job_bytes),
        )

    def _searcher(
        self, timer: Stopwatch, plan_for: Planner, time_s: float = DEFAULT_TIME_S
    ) -> Search:
        def fits(candidate: Candidate, worker_bytes: int) -> bool:
            option = consider(Row(candidate, worker_bytes, [1.0]), self.settings, plan_for)
            if option is None:
                return False
            return self.budget_bytes is None or option.job_bytes <= self.budget_bytes

        # Others would have their part in the races, and win some of them.
        rows = {c: row for c, row in self.table.rows.items() if self._may_be(c)}
        return Search(self.choices, timer, self.useful, fits, rows=rows, time_s=time_s)

    def _stopwatch(self) -> Stopwatch:
        budget_bytes = 2**62 if self.budget_bytes is None else self.budget_bytes
        return Stopwatch(self.info, budget_bytes, self._original_path)

    def _may_be(self, candidate: Candidate) -> bool:
        return as_asked(candidate, self.settings, self.devices)

    def _keep(self, rows: Rows, searches: dict[str, int | None]) -> None:
        self.table = Table(self.table.rows | rows, self.table.searches | searches)
        save_table(self._name, self.table)


def _tuning_s(plan: Plan, job_s: float) -> float:
    """About how long measuring takes for a model of that speed."""
    return min(DEFAULT_TIME_S, _FIXED_S + _MEASURED_MP * job_s / (plan.grid.model_pixels / 1e6))
