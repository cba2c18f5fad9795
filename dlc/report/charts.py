"""Charts of kernels: times against peers, the roofline, and the error against float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from dlc.report.theme import BLUE, GRID, INK, MUTED, ORANGE, PAPER, SERIES, chart_style

_WIDTH, _ROW = 8.6, 0.34
_ONE_SIDED_LOG = 6.0  # above this largest ratio a linear axis hides the small ones


@dataclass(frozen=True)
class RooflinePoint:
    """One kernel: operations for each byte, and 10^9 operations a second."""

    name: str
    intensity: float
    gflops: float
    series: str = "dlc"


def ratio_chart(ratios: Mapping[str, Mapping[str, tuple[float, float, float]]], ours: str = "dlc", title: str = "") -> Figure:
    """Bars of a peer's time over ours: right of 1 we are faster.

    Args:
        ratios: case -> peer -> (median, 25th percentile, 75th percentile). A case without peers is not drawn.
        ours: the name of the side below the fraction's line.
        title: above the chart.
    """
    ratios = {case: row for case, row in ratios.items() if row}
    peers = list(dict.fromkeys(peer for row in ratios.values() for peer in row))
    height = len(ratios) * _ROW * max(1.0, 0.62 * len(peers)) + 1.2
    with chart_style():
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_subplot()
        largest = max((high for row in ratios.values() for _, _, high in row.values()), default=1.0)
        _ratio_bars(axes, ratios, peers, logarithmic=largest > _ONE_SIDED_LOG)
        axes.axvline(1.0, color=INK, linewidth=1.2)
        _rows(axes, list(ratios))
        axes.set_xlabel(f"time of the peer / time of {ours}   (right of 1: {ours} is faster)")
        axes.set_title(title)
    return figure


def _ratio_bars(
    axes: Axes, ratios: Mapping[str, Mapping[str, tuple[float, float, float]]], peers: Sequence[str], logarithmic: bool
) -> None:
    thickness = 0.74 / max(len(peers), 1)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    for n, peer in enumerate(peers):
        for y, row in enumerate(ratios.values()):
            if peer not in row or math.isnan(row[peer][0]):
                continue
            median, low, high = row[peer]
            at = y + (n - (len(peers) - 1) / 2) * thickness
            colour = (BLUE if median >= 1 else ORANGE) if len(peers) == 1 else SERIES[n % len(SERIES)]
            axes.barh(at, median - 1, left=1, height=0.86 * thickness, color=colour, alpha=0.85)
            axes.plot([low, high], [at, at], color=INK, linewidth=1.1, solid_capstyle="butt")
            _value(axes, max(high, 1.0), at, f"{median:.2f}x")
    if len(peers) > 1:
        for n, peer in enumerate(peers):
            axes.barh([0], [0], left=1, height=0, color=SERIES[n % len(SERIES)], alpha=0.85, label=peer)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(peers), borderaxespad=0.2)
    _widen(axes, ratios, logarithmic)


def _widen(axes: Axes, ratios: Mapping[str, Mapping[str, tuple[float, float, float]]], logarithmic: bool) -> None:
    """Room for the figures beside the bars, and 1 always in sight."""
    ends = [end for row in ratios.values() for _, low, high in row.values() for end in (low, high) if not math.isnan(end)]
    lowest, highest = min([1.0, *ends]), max([1.0, *ends])
    if logarithmic:
        axes.set_xlim(lowest / 1.3, highest * (highest / lowest) ** 0.14)
        return
    span = max(highest - lowest, 0.5)
    axes.set_xlim(max(0.0, lowest - 0.12 * span), highest + 0.16 * span)


def _value(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, the first on top, no lines across."""
    axes.set_yticks(range(len(names)), labels=list(names), color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def roofline_chart(
    points: Sequence[RooflinePoint], gflops: Mapping[str, float], bandwidth_gbs: Mapping[str, float], title: str = ""
) -> Figure:
    """Where kernels stand under the machine's limits: what they reach against operations for each byte.

    Args:
        points: the kernels; those of one series share a colour.
        gflops: the flat roofs: name (a dtype) -> 10^9 operations a second.
        bandwidth_gbs: the slanted roofs: memory level -> 10^9 bytes a second.
        title: above the chart.
    """
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 5.0))
        axes = figure.add_subplot()
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=10)
        left, right = _intensity_range(points, gflops, bandwidth_gbs)
        top = max(gflops.values())
        lowest = min([p.gflops for p in points] + [left * min(bandwidth_gbs.values())])
        axes.set_xlim(left, right)
        axes.set_ylim(lowest / 1.8, top * 2.4)
        _roofs(axes, gflops, bandwidth_gbs, left, right)
        _roofline_points(axes, points)
        axes.set_xlabel("operations for each byte of memory traffic")
        axes.set_ylabel("GFLOP/s")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title)
    return figure


def _intensity_range(points: Sequence[RooflinePoint], gflops: Mapping[str, float], bandwidth: Mapping[str, float]) -> tuple[float, float]:
    ridges = [peak / rate for peak in gflops.values() for rate in bandwidth.values()]
    values = [p.intensity for p in points] + ridges
    return min(values) / 2.5, max(values) * 4


def _roofs(axes: Axes, gflops: Mapping[str, float], bandwidth: Mapping[str, float], left: float, right: float) -> None:
    top, fastest = max(gflops.values()), max(bandwidth.values())
    for name, rate in bandwidth.items():
        axes.plot([left, top / rate], [left * rate, top], color=MUTED, linewidth=1.2, zorder=1)
        # Lines of slope one on log axes of unequal scale: the text follows the line as drawn.
        axes.annotate(
            f"{name} {rate:.0f} GB/s", (left * 1.12, left * 1.12 * rate), xytext=(0, 4), textcoords="offset points", fontsize=8.5,
            color=MUTED, rotation=_slope(axes), rotation_mode="anchor",
        )  # fmt: skip
    for name, peak in gflops.items():
        axes.plot([peak / fastest, right], [peak, peak], color=MUTED, linewidth=1.2, zorder=1)
        axes.annotate(
            f"{name} {peak:.0f} GFLOP/s", (right, peak), xytext=(-2, 4), textcoords="offset points", ha="right", fontsize=8.5, color=MUTED
        )


def _slope(axes: Axes) -> float:
    """The angle of y = x as drawn, in degrees."""
    origin, end = axes.transData.transform([(1.0, 1.0), (2.0, 2.0)])
    return math.degrees(math.atan2(end[1] - origin[1], end[0] - origin[0]))


def _roofline_points(axes: Axes, points: Sequence[RooflinePoint]) -> None:
    series = list(dict.fromkeys(p.series for p in points))
    for n, name in enumerate(series):
        mine = [p for p in points if p.series == name]
        _dots(axes, [p.intensity for p in mine], [p.gflops for p in mine], n, name)
    for p in points:
        if p.series == series[0]:
            axes.annotate(p.name, (p.intensity, p.gflops), xytext=(7, -3), textcoords="offset points", fontsize=8.5, color=INK)
    if len(series) > 1:
        axes.legend(loc="lower right")


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float], n: int, name: str) -> None:
    """The n-th series, by colour and by shape; the first lies on top."""
    colour, marker = SERIES[n % len(SERIES)], "osD^v"[n % 5]
    axes.scatter(x, y, s=46, label=name, color=colour, marker=marker, edgecolors=PAPER, linewidths=0.8, zorder=4 - 0.1 * n)


def error_chart(errors: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """The largest relative error against float64, ours beside the library's.

    Args:
        errors: case -> library -> relative error. An exact result stands at the left edge.
        title: above the chart.
    """
    libraries = list(dict.fromkeys(name for row in errors.values() for name in row))
    positive = [e for row in errors.values() for e in row.values() if e > 0 and math.isfinite(e)]
    floor = min(positive, default=1e-16) / 4
    with chart_style():
        figure = Figure(figsize=(_WIDTH, len(errors) * _ROW + 1.3))
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for y, row in enumerate(errors.values()):
            shown = [max(e, floor) for e in row.values() if math.isfinite(e)]
            axes.plot([min(shown, default=floor), max(shown, default=floor)], [y, y], color=GRID, linewidth=3, zorder=1)
        for n, name in enumerate(libraries):
            found = [(max(row[name], floor), y) for y, row in enumerate(errors.values()) if name in row and math.isfinite(row[name])]
            _dots(axes, [x for x, _ in found], [y for _, y in found], n, name)
        _rows(axes, list(errors))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("relative error against float64   (left is better)")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=max(len(libraries), 1), borderaxespad=0.2)
        axes.set_title(title)
    return figure
