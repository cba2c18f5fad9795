"""Charts of a search and of a model in training: best so far, loss and accuracy, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dlc.report.theme import BLUE, GREY, GRID, INK, MUTED, ORANGE, PAPER, SERIES, chart_style

_WIDTH = 8.6


@dataclass(frozen=True)
class Sample:
    """A picture with what it shows and what the model said; ``image`` is a matrix of ink from 0 to 1."""

    image: np.ndarray
    truth: str
    guess: str


def tuning_chart(times: Sequence[float], baselines: Mapping[str, float] | None = None, title: str = "") -> Figure:
    """The search: each trial's time, and the best so far.

    Args:
        times: seconds, in the order tried; NaN for a trial that failed, marked on the axis.
        baselines: name -> seconds, drawn across (the default schedule, the library).
        title: above the chart.
    """
    microseconds = np.asarray(times, dtype=float) * 1e6
    trials = np.arange(1, len(microseconds) + 1)
    ran = np.isfinite(microseconds)
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 3.6))
        axes = figure.add_subplot()
        axes.set_yscale("log")
        axes.scatter(trials[ran], microseconds[ran], s=16, color=GREY, alpha=0.7, label="trial", zorder=2)
        if ran.any():
            best = np.fmin.accumulate(np.where(ran, microseconds, np.inf))
            axes.step(trials, np.where(np.isfinite(best), best, np.nan), where="post", color=BLUE, label="best so far", zorder=3)
        if not ran.all():
            foot = np.full((~ran).sum(), 0.015)
            axes.plot(trials[~ran], foot, "x", markersize=4, color=ORANGE, label="failed", transform=axes.get_xaxis_transform())
        for n, (name, seconds) in enumerate((baselines or {}).items()):
            axes.axhline(seconds * 1e6, color=SERIES[(n + 1) % len(SERIES)], linewidth=1.2, linestyle=(0, (5, 3)), label=name)
        axes.yaxis.set_major_formatter(FuncFormatter(_time))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: _time(y) if f"{y:e}"[0] in "25" else ""))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_title(title)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3 + len(baselines or {}), borderaxespad=0.2)
    return figure


def _time(microseconds: float, _: object = None) -> str:
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:g} s"
    return f"{microseconds / 1e3:g} ms" if microseconds >= 1e3 else f"{microseconds:g} µs"


def training_chart(runs: Mapping[str, Mapping[str, Sequence[float]]], title: str = "", x: str = "epoch") -> Figure:
    """Loss and accuracy of one or more runs, side by side.

    Args:
        runs: run -> curve -> values. Curves named "accuracy..." go to the right, in shares of one; all others to the left.
            A curve whose name contains "test" or "validation" is dashed.
        title: above the chart.
        x: what is counted.
    """
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 3.5))
        loss, accuracy = figure.subplots(1, 2)
        for n, (run, curves) in enumerate(runs.items()):
            for name, values in curves.items():
                label = f"{run} {name}" if len(runs) > 1 else name
                _curve(accuracy if "accuracy" in name else loss, values, SERIES[n % len(SERIES)], label)
        loss.set_title(title or "Loss")
        accuracy.set_title("Accuracy")
        accuracy.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))
        for axes in (loss, accuracy):
            axes.set_xlabel(x)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
        loss.set_ylim(bottom=0)
        figure.subplots_adjust(wspace=0.22)
    return figure


def _curve(axes: Axes, values: Sequence[float], colour: str, label: str) -> None:
    held_out = "test" in label or "validation" in label
    axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=label, linestyle=(0, (4, 2)) if held_out else "-")


def confusion_chart(matrix: np.ndarray, labels: Sequence[str], samples: Sequence[Sample] = (), title: str = "") -> Figure:
    """Truth against guess, with sample pictures beside it.

    Args:
        matrix: counts, one row for each true class; shape (classes, classes).
        labels: the classes.
        samples: up to twelve pictures, such as those the model got wrong.
        title: above the chart.
    """
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 4.4))
        grid = figure.add_gridspec(1, 2, width_ratios=[1.25, 1], wspace=0.12) if samples else figure.add_gridspec(1, 1)
        _matrix(figure.add_subplot(grid[0, 0]), np.asarray(matrix), labels, title)
        if samples:
            inner = grid[0, 1].subgridspec(3, 4, hspace=0.45, wspace=0.15)
            for n, sample in enumerate(samples[:12]):
                _picture(figure.add_subplot(inner[n // 4, n % 4]), sample)
    return figure


def _matrix(axes: Axes, matrix: np.ndarray, labels: Sequence[str], title: str) -> None:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(matrix):
        colour = BLUE if row == column else ORANGE
        strength = 0.0 if count == 0 else 0.12 + 0.83 * share[row, column] if row == column else min(1.0, 0.3 + 3 * share[row, column])
        axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, alpha=strength, linewidth=0))
        if count:
            ink = PAPER if strength > 0.6 else INK
            axes.text(column, row, f"{count:d}", ha="center", va="center", fontsize=8.5, color=ink)
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), aspect="equal", xlabel="guess", ylabel="truth")
    axes.set_xticks(range(len(labels)), labels=list(labels))
    axes.set_yticks(range(len(labels)), labels=list(labels))
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GRID)
    axes.set_title(title)


def _picture(axes: Axes, sample: Sample) -> None:
    axes.imshow(sample.image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    right = sample.truth == sample.guess
    text = sample.truth if right else f"{sample.truth}, not {sample.guess}"
    axes.set_title(text, loc="center", fontsize=8.5, fontweight="normal", pad=3, color=MUTED if right else ORANGE)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GRID)
