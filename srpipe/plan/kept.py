"""What an earlier run of a job has fixed, for the next one to go on with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from srpipe.plan.geometry import Size
from srpipe.plan.grid import Grid
from srpipe.plan.job import Plan
from srpipe.plan.plain import rebuild
from srpipe.settings import Edges, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The part of a plan that settings may leave open."""

    model_sha256: str
    device: str
    tile_size: int | None
    """As it was asked for or chosen by measurement; None: the model's usual one."""
    overlap: int | None
    """As it was asked for; None: the model's usual one."""
    size: Size
    """Of the image."""
    grid: Grid
    """The tiles of the whole image."""
    edges: Edges
    batch_size: int
    workers: int
    threads: int
    runners: int
    serial: bool
    rewrites: tuple[str, ...]
    graph_sha256: str

    @classmethod
    def of(cls, plan: Plan) -> Kept:
        """Take it from a plan of this run."""
        return cls(
            model_sha256=plan.model.sha256,
            device=plan.device,
            tile_size=plan.tile_size,
            overlap=plan.overlap,
            size=plan.image.size,
            grid=plan.frame.whole,
            edges=plan.frame.edges,
            batch_size=plan.batch_size,
            workers=plan.workers,
            threads=plan.threads,
            runners=plan.runners,
            serial=plan.serial,
            rewrites=plan.rewrites,
            graph_sha256=plan.graph_sha256,
        )

    @classmethod
    def parse(cls, plan: dict[str, Any]) -> Kept:
        """Take it from a plan as JSON has it.

        Raises:
            KeyError, TypeError, ValueError: it is no plan of this version.
        """
        frame = plan["frame"]
        grid = rebuild(Grid, frame["whole"])
        if not (grid.x.covers and grid.y.covers):
            raise ValueError("the tiles do not cover the image")
        return cls(
            model_sha256=str(plan["model"]["sha256"]),
            device=str(plan["device"]),
            tile_size=rebuild(int | None, plan["tile_size"]),
            overlap=rebuild(int | None, plan["overlap"]),
            size=rebuild(Size, plan["image"]["size"]),
            grid=grid,
            edges=rebuild(Edges, frame["edges"]),
            **{
                key: rebuild(int, plan[key])
                for key in ("batch_size", "workers", "threads", "runners")
            },
            serial=plan["engine"] == "serial",
            rewrites=tuple(map(str, plan["rewrites"])),
            graph_sha256=str(plan["graph_sha256"]),
        )

    def complete(self, settings: Settings, cores: int) -> Settings:
        """Settings whose open values are those of the earlier run.

        How the cores are shared out is taken over too where there are as many, and not from a run in
        one process: the result does not depend on it.
        """
        settings = replace(
            settings,
            tile_size=settings.tile_size or self.tile_size,
            overlap=self.overlap if settings.overlap is None else settings.overlap,
            batch_size=settings.batch_size or self.batch_size,
        )
        free = (settings.workers, settings.threads, settings.runners) == (None, None, None)
        if self.serial or not free or self.workers * self.threads > cores:
            return settings
        return replace(settings, workers=self.workers, threads=self.threads, runners=self.runners)

    def grid_for(self, settings: Settings, size: Size) -> Grid | None:
        """The earlier run's tiles, if completed settings ask for the same on the same image."""
        asked = (settings.tile_size, settings.overlap, settings.edges, size)
        return self.grid if asked == (self.tile_size, self.overlap, self.edges, self.size) else None
