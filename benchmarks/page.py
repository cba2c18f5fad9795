"""A run as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.harness import OURS, Result
from benchmarks.results import Run
from benchmarks.show import error_text, failures, geometric_mean, number, percent, seconds
from dlc.report import Report, error_chart, ratio_chart, roofline_chart
from dlc.report.charts import RooflinePoint
from dlc.tune.limits import Limits
from dlc.tune.measure import Measurement

_HOW = """Times are medians of interleaved samples in one process, with the operands out of the caches where the table says cold.
A ratio is taken round by round, its whiskers are the quartiles. The limit of a case is the larger of its operations over the
measured arithmetic peak and its least memory traffic over the measured bandwidth. Errors are the largest difference from a
float64 result, over the largest result."""


def build_page(run: Run) -> Report:
    """The report of a run: summary, then for each family and thread count times, roofline, errors and failures."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    report = Report("dlc benchmarks", f"{run.machine} · {run.date[:10]}", f"{run.fingerprint} · commit {run.commit} · {versions}")
    report.text(_HOW)
    _summary(report, run.results)
    for family in dict.fromkeys(result.family for result in run.results):
        for threads in sorted({result.threads for result in run.results if result.family == family}):
            group = [result for result in run.results if (result.family, result.threads) == (family, threads)]
            report.section(f"{family}, {threads} thread{'s' if threads > 1 else ''}")
            _group(report, group, run.limits.get(threads))
    if failed := failures(run.results):
        report.section("Failures").table([line.split(": ", 1) for line in failed], ["case", "why"])
    _limits(report, run)
    return report


def _summary(report: Report, results: Sequence[Result]) -> None:
    ratios = {result.key: found.median for result in results if (found := result.ratio())}
    if ratios:
        mean = geometric_mean(ratios.values())
        report.kpi("Best peer's time over ours", f"{mean:.2f}x", f"geometric mean of {len(ratios)} cases", "good" if mean >= 1 else "bad")
        ahead = sum(value >= 1 for value in ratios.values())
        report.kpi("Faster than the best peer", f"{ahead} of {len(ratios)}")
        (_, name, _), lowest = min(ratios.items(), key=lambda item: item[1])
        report.kpi("Weakest case", f"{lowest:.2f}x", name, "bad" if lowest < 1 else "good")
    worse = [(r.errors[OURS].largest, r.case) for r in results if OURS in r.errors]
    if worse:
        report.kpi("Largest error", f"{max(worse)[0]:.1e}", max(worse)[1])


def _group(report: Report, group: Sequence[Result], limits: Limits | None) -> None:
    peers = dict.fromkeys(peer for result in group for peer in result.peers)
    ratios = {r.case: {p: (q.median, q.p25, q.p75) for p in peers if p in r.times and (q := r.ratio(p))} for r in group}
    if any(ratios.values()):
        report.plot(ratio_chart(ratios), "Time of each peer over ours; whiskers are quartiles.")
    report.table([_row(result, list(peers)) for result in group], caption="Median times; first call includes compilation.")
    points = [
        RooflinePoint(r.case, r.flops / r.bytes, r.gflops(n), n) for r in group if r.flops and r.bytes for n in r.times if r.times[n].ok
    ]
    if points and limits is not None:
        dtypes = sorted({result.dtype for result in group})
        bandwidths = {level: limits.bandwidth_gbs[level] for level in ("L2", "DRAM")}
        report.plot(roofline_chart(points, {d: limits.gflops(d) for d in dtypes}, bandwidths), "Under the machine's measured limits.")
    errors = {r.case: {name: error.largest for name, error in r.errors.items()} for r in group if r.errors}
    if errors:
        report.plot(error_chart(errors), "Largest difference from float64, over the largest result.")


def _row(result: Result, peers: Sequence[str]) -> dict[str, object]:
    ours = result.times.get(OURS, Measurement())
    best = result.ratio()
    return {
        "case": result.case,
        **{name: seconds(result.times.get(name, Measurement()).median) for name in (OURS, *peers)},
        "spread": percent(ours.spread),
        "best peer / dlc": f"{best.median:.2f}x" if best else None,
        "GFLOP/s": number(result.gflops() if result.flops else math.nan),
        "GB/s": number(result.gbs() if result.bytes else math.nan),
        "of limit": percent(result.share()),
        "error dlc": error_text(result, OURS),
        "error peer": error_text(result, result.best_peer),
        "first call": seconds(result.first.get(OURS, math.nan)),
        "operands": "cold" if result.cold else "warm",
    }


def _limits(report: Report, run: Run) -> None:
    if not run.limits:
        return
    rows = [
        {
            "threads": threads,
            **{f"{dtype} GFLOP/s": value for dtype, value in limits.fma_gflops.items()},
            **{f"{level} GB/s": value for level, value in limits.bandwidth_gbs.items()},
        }
        for threads, limits in sorted(run.limits.items())
    ]
    report.section("The machine's limits").table(rows, caption="Measured on this machine with loops that do nothing else.")
