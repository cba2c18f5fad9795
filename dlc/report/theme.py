"""Colours and type that the page and its charts share.

Charts are drawn in the light palette. Inside a page every colour of theirs becomes the CSS variable of the same name, so one
drawing serves light and dark; on its own it is a picture in light colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler

INK, MUTED, GRID, PAPER = "#1f2430", "#667085", "#dfe3ea", "#fefefe"
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2f6fed", "#d9680a", "#168a5e", "#8250df", "#cf3c4f", "#8a94a6"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)

# Colour of the light palette -> (CSS variable, colour of the dark palette).
PALETTE = {
    INK: ("ink", "#e8eaf0"),
    MUTED: ("muted", "#9aa4b5"),
    GRID: ("grid", "#323947"),
    PAPER: ("paper", "#161a22"),
    BLUE: ("blue", "#78a6ff"),
    ORANGE: ("orange", "#ffa657"),
    GREEN: ("green", "#4fd1a1"),
    PURPLE: ("purple", "#bc9cff"),
    RED: ("red", "#ff8087"),
    GREY: ("grey", "#7d8799"),
}

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=SERIES),
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "dlc",
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw a figure inside this; it leaves the user's own matplotlib settings alone."""
    with matplotlib.rc_context(_RC):
        yield


def css_variables(dark: bool) -> str:
    """The palette as CSS declarations."""
    return " ".join(f"--{name}: {night if dark else day};" for day, (name, night) in PALETTE.items())
