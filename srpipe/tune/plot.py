"""Draws what ``srpipe tune`` has measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from srpipe.errors import OutputError, SettingsError
from srpipe.tune.report import TuneReport

_FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: str) -> None:
    """Find out before anything is measured whether a plot can be drawn.

    Raises:
        SettingsError: matplotlib is missing, or the name's ending is no format of a plot.
        OutputError: the folder is not there.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: pip install 'srpipe[plot]'.")
    if Path(path).suffix.lower() not in _FORMATS:
        raise SettingsError(f"{path} cannot be plotted to: use a name in {', '.join(_FORMATS)}.")
    if not Path(path).absolute().parent.is_dir():
        raise OutputError(
            f"the folder {Path(path).absolute().parent} does not exist: make it first."
        )


def draw(report: TuneReport, path: str) -> None:
    """Write a picture of useful speed over tile size, a line for each batch and arrangement.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    speed, memory = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    series: dict[str, list[tuple[int, float, float]]] = {}
    for line in sorted(report.lines, key=lambda line: line.tile.width):
        name = f"{line.arrangement} on {line.arrangement.device}, batch {line.batch}"
        point = (line.tile.width, line.useful_mp_s, line.model_bytes / 1e6)
        series.setdefault(name, []).append(point)
    # The longest first, so that the most telling lines have the strongest colours.
    for name, points in sorted(series.items(), key=lambda item: -len(item[1])):
        sizes_px, speeds_mp_s, megabytes = zip(*points, strict=True)
        (drawn,) = speed.plot(sizes_px, speeds_mp_s, "o-", markersize=4, label=name)
        memory.plot(sizes_px, megabytes, "o-", markersize=4, color=drawn.get_color())
    chosen = report.chosen
    for axes, value in ((speed, chosen.useful_mp_s), (memory, chosen.model_bytes / 1e6)):
        axes.plot(chosen.tile.width, value, "o", markersize=13, fillstyle="none", color="black")
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    ticks_px = sorted({line.tile.width for line in report.lines})
    memory.set_xscale("log", base=2)
    memory.set_xticks(ticks_px, [str(px) for px in ticks_px], minor=False)
    memory.minorticks_off()
    memory.set_xlabel("tile, input pixels")
    speed.set_ylabel("useful input, MP/s")
    memory.set_ylabel("sessions, MB")
    speed.set_title(f"{report.model} on {report.cores} cores (runners x threads; ring: chosen)")
    speed.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name another.") from None
