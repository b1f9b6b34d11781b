"""What computing repeated tiles once saves on a scan, and costs on a photograph."""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pyvips

import srpipe
from srpipe.api import prepare
from srpipe.plan.geometry import Rect
from srpipe.plan.grid import Grid
from srpipe.settings import Settings

from .mosaic import PictureSpec, make_picture
from .pictures import default_pictures, picture_of
from .report import machine_line, say
from .table import markdown_table
from .weights import model_file

# Tiles from one block of photograph to the next, at least.
_CELL_TILES = 5
_WHITE = 255


@dataclass(frozen=True)
class Run:
    """One run from file to file."""

    seconds: float
    cpu_s: float
    """Processor seconds of all its processes."""
    reused_tiles: int


@dataclass(frozen=True)
class Saving:
    """All rounds on one picture."""

    picture: str
    megapixels: float
    tiles: int
    repeated: int
    """Tiles that got the result of another."""
    with_reuse: tuple[Run, ...]
    without: tuple[Run, ...]

    @property
    def saved_share(self) -> float:
        """Of the time without, median of the rounds; negative: it cost time."""
        pairs = zip(self.with_reuse, self.without, strict=True)
        return median(1 - a.seconds / b.seconds for a, b in pairs)

    @property
    def saved_cpu_share(self) -> float:
        """The same of processor time, which other programs disturb less."""
        pairs = zip(self.with_reuse, self.without, strict=True)
        return median(1 - a.cpu_s / b.cpu_s for a, b in pairs)


def measure_reuse(
    name: str, source: Path, model: str, folder: Path, rounds: int, say: Callable[[str], None]
) -> Saving:
    """Enhance a picture with and without, in turn.

    Args:
        name: what the picture is called in the result.
        source: its file.
        model: a bundled model's name, or an .onnx file.
        folder: for outputs.
        rounds: how often.
        say: is told what was measured.

    Raises:
        RuntimeError: the two outputs differ.
    """
    runs: dict[bool, list[Run]] = {True: [], False: []}
    outputs = {reuse: folder / f"reuse-{reuse}.tif" for reuse in runs}
    for number in range(rounds):
        # Each goes first as often as the other.
        for reuse in (True, False) if number % 2 else (False, True):
            run, report = _run(source, outputs[reuse], model, reuse=reuse)
            runs[reuse].append(run)
            how = "with" if reuse else "without"
            say(f"{name}, {how} reuse: {run.seconds:.2f} s, {run.cpu_s:.1f} s of processor time")
        if outputs[True].read_bytes() != outputs[False].read_bytes():
            raise RuntimeError(f"{name}: the outputs differ")
    for path in outputs.values():
        path.unlink()
    return Saving(
        picture=name,
        megapixels=report.input_size.megapixels,
        tiles=report.tiles,
        repeated=runs[True][0].reused_tiles,
        with_reuse=tuple(runs[True]),
        without=tuple(runs[False]),
    )


def _run(source: Path, output: Path, model: str, *, reuse: bool) -> tuple[Run, srpipe.Report]:
    begin_s, begin_cpu_s = time.perf_counter(), _cpu_s()
    report = srpipe.enhance(source, output, model=model, reuse=reuse, overwrite=True)
    run = Run(time.perf_counter() - begin_s, _cpu_s() - begin_cpu_s, report.reused_tiles)
    return run, report


def _cpu_s() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make_scan(
    photographs: Sequence[Path], megapixels: float, background: float, model: str, folder: Path
) -> Path:
    """A white page with blocks of photographs, and so many tiles that are white alone.

    Args:
        photographs: what the blocks show.
        megapixels: of the page.
        background: share of the tiles that are to be white alone, 0 to 1.
        model: decides the tiles.
        folder: for the page.
    """
    side_px = round(megapixels**0.5 * 1000)
    page, photograph = folder / "scan.tif", folder / "scan-photograph.tif"
    make_picture(photographs, str(photograph), PictureSpec(side_px, side_px))
    settings = Settings(model=model, overwrite=True)
    grid = prepare(str(photograph), str(folder / "out.tif"), settings).grid
    cell_px = side_px // max(1, side_px // (_CELL_TILES * grid.tile.width))
    block_px = next(
        px
        for px in range(cell_px, 0, -1)
        if _white_share(grid, _blocks(side_px, cell_px, px)) >= background
    )
    source = pyvips.Image.new_from_file(os.fspath(photograph), access="random")
    scan: Any = source.new_from_image([_WHITE] * 3).copy_memory()
    for block in _blocks(side_px, cell_px, block_px):
        crop = source.crop(block.left, block.top, block.width, block.height)
        scan = scan.insert(crop, block.left, block.top)
    scan.write_to_file(os.fspath(page), compression="deflate")
    photograph.unlink()
    return page


def _blocks(side_px: int, cell_px: int, block_px: int) -> list[Rect]:
    """Squares in the middles of cells."""
    margin_px = (cell_px - block_px) // 2
    starts = [cell_px * i + margin_px for i in range(side_px // cell_px)]
    return [Rect(left, top, block_px, block_px) for top in starts for left in starts]


def _white_share(grid: Grid, blocks: Sequence[Rect]) -> float:
    white = sum(not any(_meet(tile.source, block) for block in blocks) for tile in grid.tiles())
    return white / grid.n_tiles


def _meet(a: Rect, b: Rect) -> bool:
    across = a.left < b.left + b.width and b.left < a.left + a.width
    down = a.top < b.top + b.height and b.top < a.top + a.height
    return across and down


def reuse_table(savings: Sequence[Saving]) -> str:
    """Savings as Markdown."""
    head = (
        "picture",
        "MP",
        "tiles",
        "repeated",
        "without, s",
        "with, s",
        "saved",
        "of processor time",
    )
    rows = [
        (
            s.picture,
            f"{s.megapixels:.1f}",
            str(s.tiles),
            f"{s.repeated} ({s.repeated / s.tiles:.1%})",
            f"{median(run.seconds for run in s.without):.2f}",
            f"{median(run.seconds for run in s.with_reuse):.2f}",
            f"{s.saved_share:.1%}",
            f"{s.saved_cpu_share:.1%}",
        )
        for s in savings
    ]
    return markdown_table(head, rows)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "reuse",
        help="what computing repeated tiles once saves on a scan, and costs on a photograph",
        description="Enhances a white page with blocks of photographs, and a photograph, in turn with "
        "and without --no-reuse, and compares the outputs.",
    )
    add = parser.add_argument
    add("--picture", type=Path, metavar="FILE", help="default: as for pipeline")
    add("--mp", type=float, default=16.0, metavar="MP", help="of both; default %(default)s")
    add("--background", type=float, default=0.6, metavar="SHARE", help="default %(default)s")
    add("--model", default="lite-x2", metavar="NAME|FILE", help="default %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--folder", type=Path, help="for pictures while measuring; default: the system's own")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    pictures = [options.picture] if options.picture else default_pictures()
    with TemporaryDirectory(prefix="srpipe-bench-", dir=options.folder) as name:
        folder = Path(name)
        model = str(model_file(options.model, folder))
        scan = make_scan(pictures, options.mp, options.background, model, folder)
        photograph = picture_of(pictures, options.mp, options.mp, folder)
        savings = [
            measure_reuse(title, source, model, folder, options.runs, say)
            for title, source in (("scan", scan), ("photograph", photograph))
        ]
    print(f"{machine_line()}\n\n{options.model}\n\n{reuse_table(savings)}")
