"""Results as tables in the terminal, and two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from benchmarks.harness import OURS, Result
from benchmarks.results import Run
from dlc.report.page import DASH
from dlc.tune.measure import Measurement, Ratio


def results_table(title: str, results: Iterable[Result]) -> Table:
    """One line for each result: times, the ratio to the best peer, rates, the share of the limit, errors."""
    rows = list(results)
    peers = list(dict.fromkeys(peer for result in rows for peer in result.peers))
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column("case")
    for name in (OURS, *peers, "best peer / dlc", "GFLOP/s", "GB/s", "of limit", "error dlc", "error peer", "first call"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in rows:
        ours = result.times.get(OURS, Measurement())
        table.add_row(
            result.case,
            _time(ours),
            *(_time(result.times[peer]) if peer in result.times else DASH for peer in peers),
            _ratio(result.ratio()),
            number(result.gflops() if result.flops else math.nan),
            number(result.gbs() if result.bytes else math.nan),
            percent(result.share() if ours.ok else math.nan),
            error_text(result, OURS),
            error_text(result, result.best_peer),
            seconds(result.first.get(OURS, math.nan)),
        )
    return table


def failures(results: Iterable[Result]) -> list[str]:
    """A line for each library that did not run."""
    return [f"{r.case} ({r.threads} threads), {name}: {m.failure}" for r in results for name, m in r.times.items() if m.failure]


@dataclass(frozen=True)
class Change:
    """Our time for one case in two runs; ``factor`` above 1 means that the second is faster."""

    family: str
    case: str
    threads: int
    before: Measurement
    after: Measurement

    @property
    def factor(self) -> float:
        """Time before over time after."""
        return self.before.median / self.after.median

    @property
    def verdict(self) -> str:
        """Faster or slower only where the quartiles of the two runs do not overlap."""
        if not (self.before.ok and self.after.ok):
            return "broken" if self.before.ok else "mended" if self.after.ok else "fails"
        if self.after.p75 < self.before.p25:
            return "faster"
        return "slower" if self.after.p25 > self.before.p75 else "same"


def changes(before: Run, after: Run) -> list[Change]:
    """Our times of the cases that both runs have."""
    old = {result.key: result for result in before.results}
    both = [(old[result.key], result) for result in after.results if result.key in old]
    return [Change(*b.key, a.times.get(OURS, Measurement()), b.times.get(OURS, Measurement())) for a, b in both]


def changes_table(found: Iterable[Change]) -> Table:
    """One line for each change, coloured where it is one."""
    colours = {"faster": "green", "mended": "green", "slower": "red", "broken": "red"}
    table = Table(header_style="dim")
    table.add_column("case")
    for name in ("threads", "before", "after", "before / after", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for change in found:
        verdict = Text(change.verdict, style=colours.get(change.verdict, "dim"))
        factor = "" if math.isnan(change.factor) else f"{change.factor:.2f}x"
        table.add_row(f"{change.family}: {change.case}", str(change.threads), _time(change.before), _time(change.after), factor, verdict)
    return table


def geometric_mean(values: Iterable[float]) -> float:
    """NaN for none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def seconds(value: float) -> str:
    """A time with a fitting unit."""
    if math.isnan(value):
        return DASH
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def number(value: float) -> str:
    """Three digits, a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float) -> str:
    """A share in per cent."""
    return DASH if math.isnan(value) else f"{100 * value:.0f}%"


def error_text(result: Result, name: str | None) -> str:
    """The largest error of a library, in two digits."""
    return f"{result.errors[name].largest:.1e}" if name in result.errors else DASH


def _time(m: Measurement) -> str:
    if m.failure:
        return "failed"
    return f"{seconds(m.median)} ±{100 * m.spread / 2:.0f}%" if m.samples else DASH


def _ratio(found: Ratio | None) -> Text:
    if found is None:
        return Text(DASH)
    colour = "green" if found.p25 > 1 else "red" if found.p75 < 1 else ""
    return Text(str(found), style=colour)
