"""Tuning the kernels of a whole step: whose turn it is and for how long, and what came of it.

The time is given to the kernels by the share of the step that each takes, the largest first. A kernel whose gain could not be told from
the noise of the step's times is left alone. The search for each is that of :mod:`dlc.tune.tuner`; what it finds is held against the
schedule before it once more, in the step itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dlc.compiler import Request
from dlc.lazy import lazy
from dlc.records import Record
from dlc.tune.exactness import shown
from dlc.tune.measure import Measurement, Ratio, ratio
from dlc.tune.outcome import TuneReport
from dsl.errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

rich_table = lazy("rich.table")

LEAST = 3.0  # seconds below which a search comes to nothing
_HOPE = 1.5  # times as fast as it is that a kernel may become
_NOISE = 0.003  # of the step's time, below which no gain is looked for however steady the times are


@dataclass(frozen=True)
class Wish:
    """How to tune a step.

    Attributes:
        budget: seconds for everything.
        reproducible: as for a kernel, see :meth:`dlc.kernel.Kernel.tune`.
        candidates: try no more than so many for a kernel; None for as many as its time allows.
        again: search anew for the kernels that have a record.
        progress: whether to show a progress bar; None where standard error is a terminal.
        seed: of the searches.

    Raises:
        ArgumentError: the budget is no positive number.
    """

    budget: float = 60.0
    reproducible: bool = True
    candidates: int | None = None
    again: bool = False
    progress: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.budget, (int, float)) or not self.budget > 0:
            raise ArgumentError(f"the budget of a search is {self.budget!r} seconds", remedy="a positive number")


@dataclass
class Part:
    """One kernel of a step.

    Attributes:
        name: of the kernel.
        request: what it is compiled from.
        launches: how often the step launches it.
        seconds: of all its launches in one step, before tuning.
        share: of the step's time.
        reason: what became of it, in words.
        report: of its search; None where there was none.
        times: ``before`` and ``after`` of all its launches within the step, sampled in turn; empty where nothing else came to be used.
    """

    name: str
    request: Request
    launches: int
    seconds: float
    share: float
    reason: str = ""
    report: TuneReport | None = None
    times: dict[str, Measurement] = field(default_factory=dict)
    kept: bool = False

    @property
    def ratio(self) -> Ratio | None:
        """Time before over time after, in the step; None where nothing else was tried there."""
        return ratio(self.times["before"], self.times["after"]) if self.times else None

    @property
    def after(self) -> float:
        """Seconds of all its launches in one step, by what is used from now on."""
        found = self.ratio
        return self.seconds / found.median if self.kept and found is not None else self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        return {"name": self.name, "launches": self.launches, "share": self.share, "before": self.seconds, "after": self.after,
                "improved": self.kept, "reason": self.reason, "report": None if self.report is None else self.report.as_dict()}


@dataclass(frozen=True)
class StepReport:
    """The result of tuning a step.

    Attributes:
        name: of the step.
        parts: its kernels, those that take most time first.
        times: ``before`` and ``after`` of the whole step, sampled in turn in this process.
        seconds: what tuning took.
        interrupted: whether the user stopped it.
        result: what the step returned at the call that was made for its arguments.
    """

    name: str
    parts: Sequence[Part]
    times: Mapping[str, Measurement]
    seconds: float
    interrupted: bool = False
    result: Any = field(default=None, repr=False)

    @property
    def improved(self) -> bool:
        """Whether any kernel is another one than before."""
        return any(p.kept for p in self.parts)

    @property
    def ratio(self) -> Ratio:
        """Time of the whole step before over that after, round by round; exactly 1 where nothing else is used."""
        before = self.times["before"]
        return ratio(before, self.times["after"]) if self.improved else Ratio(1.0, 1.0, 1.0, len(before.samples))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        r = self.ratio
        return {"name": self.name, "improved": self.improved, "seconds": self.seconds, "interrupted": self.interrupted,
                "ratio": {"median": r.median, "p25": r.p25, "p75": r.p75, "pairs": r.pairs},
                "times": {n: {"median": m.median, "p25": m.p25, "p75": m.p75, "samples": list(m.samples)} for n, m in self.times.items()},
                "kernels": [p.as_dict() for p in self.parts]}

    def __str__(self) -> str:
        before, after = (self.times[n].median * 1e3 for n in ("before", "after"))
        searched, better = sum(p.report is not None for p in self.parts), sum(p.kept for p in self.parts)
        told = (f"{self.ratio} as fast: {before:.2f} ms before, {after:.2f} ms after, {self.ratio.pairs} rounds in turn" if self.improved
                else f"{before:.2f} ms, as before")
        stopped = ", stopped by the user" if self.interrupted else ""
        return (f"{self.name}: {told}\n{len(self.parts)} kernels, {searched} searched in {self.seconds:.1f} s, {better} faster{stopped}\n"
                + shown(self._table())).rstrip()

    def _table(self) -> Table:
        t = rich_table.Table(box=None, pad_edge=False)
        for column in ("share", "launches", "before", "after", "kernel"):
            t.add_column(column, justify="left" if column == "kernel" else "right", no_wrap=column != "kernel")
        for p in self.parts:
            t.add_row(f"{p.share:.1%}", str(p.launches), f"{p.seconds * 1e3:.3f} ms", f"{p.after * 1e3:.3f} ms", f"{p.name}: {p.reason}")
        return t


def turns(parts: Sequence[Part], records: Sequence[Record | None], noise: float, wish: Wish) -> list[Part]:
    """The parts that are worth a search, the largest first; the others are told why not.

    Args:
        parts: all of them.
        records: that each has already, if any.
        noise: the error of the step's median, as a share of it.
        wish: how to tune.
    """
    out = []
    for part, record in sorted(zip(parts, records), key=lambda pair: -pair[0].share):
        gain = part.share * (1 - 1 / _HOPE)
        if record is not None and not wish.again and (record.reproducible or not wish.reproducible):
            part.reason = f"tuned already ({record.ratio:.2f}x as fast as the default schedule); again=True searches anew"
        elif gain < max(noise, _NOISE):
            part.reason = f"left: the gain to be had, {gain:.1%} of the step, is less than the noise of its times, {max(noise, _NOISE):.1%}"
        else:
            part.reason = f"no time was left for it in {wish.budget:g} s"
            out.append(part)
    return out


def allotted(parts: Sequence[Part], left: float) -> float:
    """Seconds for the first of the parts that still wait, by its share; 0 where too little is left for any."""
    if left < LEAST:
        return 0.0
    return min(max(left * parts[0].share / sum(p.share for p in parts), LEAST), left)


def noise_of(samples: Sequence[float]) -> float:
    """The standard error of the median of times, as a share of it; from their quartiles, so that a few slow ones do not count."""
    low, median, high = (float(q) for q in np.quantile(samples, [0.25, 0.5, 0.75]))
    return 1.253 * (high - low) / 1.349 / median / float(np.sqrt(len(samples)))
