"""Results as tables in the terminal, and two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from benchmarks.harness import OURS, TUNED, Result
from benchmarks.results import Run
from dlc.report.page import DASH
from dlc.tune.measure import Measurement, Ratio

ABOVE = "† faster than the measured limit: it was measured on a busy machine, or the operands stayed in a cache"


def results_table(title: str, results: Iterable[Result]) -> Table:
    """One line for each result: times, the ratios to the best peer, rates, the share of the limit, errors."""
    rows = list(results)
    peers = list(dict.fromkeys(peer for result in rows for peer in result.peers))
    tuned, into = any(TUNED in r.times for r in rows), any(r.into for r in rows)
    names = (OURS, *([TUNED] if tuned else []), *peers)
    doubtful = any(r.doubtful for r in rows)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", caption=ABOVE if doubtful else None)
    table.add_column("case")
    ratios = ["best peer / dlc", *(["best peer / tuned"] if tuned else []), *(["with memory given"] if into else []),
              *(["tuned, memory given"] if into and tuned else [])]
    for name in (*names, *ratios, "GFLOP/s", "GB/s", "of limit", "error dlc", "error peer", "first call"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in rows:
        found = [result.ratio(), *([result.ratio(ours=TUNED)] if tuned else []), *([result.ratio_into()] if into else []),
                 *([result.ratio_into(TUNED)] if into and tuned else [])]
        table.add_row(
            result.case,
            *(_time(result.times[name]) if name in result.times else DASH for name in names),
            *map(_ratio, found),
            number(result.gflops() if result.flops else math.nan),
            number(result.gbs() if result.bytes else math.nan),
            share_text(result),
            error_text(result, OURS),
            error_text(result, result.best_peer),
            seconds(result.first.get(OURS, math.nan)),
        )
    return table


def share_text(result: Result) -> str:
    """Our share of the limit, marked where something was faster than it; a dash where nothing ran or nothing bounds it."""
    ours = result.times.get(OURS, Measurement())
    return percent(result.share() if ours.ok and result.limit > 0 else math.nan) + (" †" if result.doubtful else "")


def failures(results: Iterable[Result]) -> list[str]:
    """A line for each library that did not run."""
    return [f"{r.case} ({r.threads} threads), {name}: {m.failure}" for r in results
            for name, m in (*r.times.items(), *((f"{n}, memory given", m) for n, m in r.into.items())) if m.failure]


@dataclass(frozen=True)
class Change:
    """Our time for one case in two runs; ``factor`` above 1 means that the second is faster."""

    family: str
    case: str
    threads: int
    cold: bool
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
    for name in ("threads", "operands", "before", "after", "before / after", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for change in found:
        verdict = Text(change.verdict, style=colours.get(change.verdict, "dim"))
        factor = "" if math.isnan(change.factor) else f"{change.factor:.2f}x"
        table.add_row(f"{change.family}: {change.case}", str(change.threads), "cold" if change.cold else "warm", _time(change.before),
                      _time(change.after), factor, verdict)
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
    """The error of a library: relative to the largest result, and in units in the last place where that was measured."""
    if name not in result.errors:
        return DASH
    e = result.errors[name]
    return f"{e.relative:.1e}" + ("" if math.isnan(e.ulp) else f" {e.ulp:.2g} ulp")


def _time(m: Measurement) -> str:
    if m.failure:
        return "failed"
    return f"{seconds(m.median)} ±{100 * m.spread / 2:.0f}%" if m.samples else DASH


def _ratio(found: Ratio | None) -> Text:
    if found is None:
        return Text(DASH)
    colour = "green" if found.p25 > 1 else "red" if found.p75 < 1 else ""
    return Text(str(found), style=colour)
