"""Figures of measurements and searches, drawn from their reports."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from dlc.bench import BenchReport
from dlc.report.charts import ratio_chart
from dlc.report.theme import BLUE, GREY, INK, chart_style
from dlc.report.training import tuning_chart
from dlc.tune.outcome import TuneReport
from dsl.errors import ArgumentError

_FORMATS = ("svg", "png", "pdf")


def tuning_figure(report: TuneReport) -> Figure:
    """The search as it went: each candidate's time, the best so far, the default and the peers."""
    times = [float("nan") if t.failure is not None or t.seconds is None else t.seconds for t in report.history]
    lines: dict[str, float] = {name: report.times[name].median
                               for name in report.times if name != "tuned" and report.times[name].samples}
    return tuning_chart(times, lines, report.name)


def bench_figure(report: BenchReport) -> Figure:
    """The samples of each side as they were taken; with a peer, the ratios too when there are several."""
    rows = [(f"{name}, {state}", m, BLUE if name == "dlc" else GREY) for state, times in (("warm", report.warm), ("cold", report.cold))
            for name, m in times.items() if m.samples]
    with chart_style():
        figure = Figure(figsize=(8.6, 0.5 * len(rows) + 1.2))
        axes = figure.add_subplot()
        for y, (_, m, colour) in enumerate(rows):
            axes.scatter([s * 1e6 for s in m.samples], [y] * len(m.samples), s=10, color=colour, alpha=0.35, linewidths=0)
            axes.plot([m.median * 1e6] * 2, [y - 0.3, y + 0.3], color=INK, linewidth=1.6)
        axes.set_yticks(range(len(rows)), labels=[name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlabel("microseconds a call; the bar is the median")
        axes.set_title(report.name)
    return figure


def bench_ratios(reports: dict[str, BenchReport]) -> Figure:
    """Time of the peer over time of dlc for several measurements, warm and cold."""
    return ratio_chart({name: {state: (r.median, r.p25, r.p75) for state, r in report.ratios.items()} for name, report in reports.items()})


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure; the ending says the format.

    Raises:
        ArgumentError: the ending is not one of svg, png, pdf, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix[1:].lower() not in _FORMATS:
        raise ArgumentError(f"cannot draw {target}", f"its name ends in {target.suffix!r}", f"end it in .{', .'.join(_FORMATS)}")
    try:
        figure.savefig(target, bbox_inches="tight")
    except OSError as e:
        raise ArgumentError(f"cannot write {target}", str(e)) from e
