"""A run as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.harness import OURS, TUNED, Result
from benchmarks.results import Run
from benchmarks.show import ABOVE, error_text, failures, geometric_mean, number, percent, seconds, share_text
from dlc.report import Report, error_chart, ratio_chart, roofline_chart
from dlc.report.charts import RooflinePoint
from dlc.tune.limits import Limits
from dlc.tune.measure import Measurement, Ratio

_HOW = """Times are medians of interleaved samples in one process, with the operands out of the caches where the table says cold.
A ratio is taken round by round, its whiskers are the quartiles. The limit of a case is the larger of its operations over the
measured arithmetic peak and its least memory traffic over the measured bandwidth. Errors are the largest difference from a
float64 result, over the largest result. With memory given, both sides write to results allocated beforehand: the ratio there
is against the fastest of the peers that can."""


def build_page(run: Run) -> Report:
    """The report of a run: summary, then for each family and thread count times, roofline, errors and failures."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    report = Report("dlc benchmarks", f"{run.machine} · {run.date[:10]}", f"{run.fingerprint} · commit {run.commit} · {versions}")
    report.text(_HOW)
    _summary(report, run.results)
    for family in dict.fromkeys(result.family for result in run.results):
        for threads, cold in sorted({(r.threads, r.cold) for r in run.results if r.family == family}, key=lambda k: (k[0], not k[1])):
            group = [r for r in run.results if (r.family, r.threads, r.cold) == (family, threads, cold)]
            report.section(f"{family}, {threads} thread{'s' if threads > 1 else ''}, {'cold' if cold else 'warm'} operands")
            _group(report, group, run.limits.get(threads))
    if failed := failures(run.results):
        report.section("Failures").table([line.split(": ", 1) for line in failed], ["case", "why"])
    if run.absent:
        report.section("Libraries that could not run here").table([list(item) for item in run.absent.items()], ["library", "why"])
    _limits(report, run)
    return report


def _summary(report: Report, results: Sequence[Result]) -> None:
    ratios = {result.key: found.median for result in results if (found := result.ratio())}
    if ratios:
        mean = geometric_mean(ratios.values())
        report.kpi("Best peer's time over ours", f"{mean:.2f}x", f"geometric mean of {len(ratios)} cases", "good" if mean >= 1 else "bad")
        ahead = sum(value >= 1 for value in ratios.values())
        report.kpi("Faster than the best peer", f"{ahead} of {len(ratios)}")
        (_, name, *_), lowest = min(ratios.items(), key=lambda item: item[1])
        report.kpi("Weakest case", f"{lowest:.2f}x", name, "bad" if lowest < 1 else "good")
    for title, others in (("Tuned", [r.ratio(ours=TUNED) for r in results]), ("With memory given", [r.ratio_into() for r in results])):
        if medians := [ratio.median for ratio in others if ratio]:
            report.kpi(title, f"{geometric_mean(medians):.2f}x", f"geometric mean of {len(medians)} cases")
    worse = [(r.errors[OURS].relative, r.case) for r in results if OURS in r.errors]
    if worse:
        report.kpi("Largest error", f"{max(worse)[0]:.1e}", max(worse)[1])
    _families(report, results)


def _families(report: Report, results: Sequence[Result]) -> None:
    """A line for each family, thread count and state of the operands."""
    rows = []
    for family, threads, cold in dict.fromkeys((r.family, r.threads, r.cold) for r in results):
        group = [r for r in results if (r.family, r.threads, r.cold) == (family, threads, cold)]
        found = {r.case: q.median for r in group if (q := r.ratio())}
        slowest = min(found, key=lambda name: found[name], default=None)
        rows.append({"family": family, "threads": threads, "operands": "cold" if cold else "warm", "cases": len(group),
                     "best peer / dlc": _mean(r.ratio() for r in group), "tuned": _mean(r.ratio(ours=TUNED) for r in group),
                     "with memory given": _mean(r.ratio_into() for r in group),
                     "under 0.9": sum(value < 0.9 for value in found.values()),
                     "weakest": f"{slowest} {found[slowest]:.2f}x" if slowest else None})
    if rows:
        report.section("Families").table(rows, caption="Geometric means of the best peer's time over ours.")


def _mean(found: Iterable[Ratio | None]) -> str | None:
    medians = [ratio.median for ratio in found if ratio]
    return f"{geometric_mean(medians):.2f}x" if medians else None


def _group(report: Report, group: Sequence[Result], limits: Limits | None) -> None:
    peers = dict.fromkeys(peer for result in group for peer in result.peers)
    ratios = {r.case: {p: (q.median, q.p25, q.p75) for p in peers if p in r.times and (q := r.ratio(p))} for r in group}
    if any(ratios.values()):
        report.plot(ratio_chart(ratios), "Time of each peer over ours; whiskers are quartiles.")
    note = f" {ABOVE}." if any(r.doubtful for r in group) else ""
    report.table([_row(result, list(peers)) for result in group], caption="Median times; first call includes compilation." + note)
    points = [
        RooflinePoint(r.case, r.flops / r.bytes, r.gflops(n), n) for r in group if r.flops and r.bytes for n in r.times if r.times[n].ok
    ]
    if points and limits is not None:
        dtypes = sorted({result.dtype for result in group})
        bandwidths = {level: limits.bandwidth_gbs[level] for level in ("L2", "DRAM")}
        report.plot(roofline_chart(points, {d: limits.gflops(d) for d in dtypes}, bandwidths), "Under the machine's measured limits.")
    errors = {r.case: {name: error.relative for name, error in r.errors.items()} for r in group if r.errors}
    if errors:
        report.plot(error_chart(errors), "Largest difference from float64, over the largest result.")


def _row(result: Result, peers: Sequence[str]) -> dict[str, object]:
    ours = result.times.get(OURS, Measurement())
    tuned = [TUNED] if TUNED in result.times else []
    given = {"with memory given": _times_over(result.ratio_into())} if result.into else {}
    given |= {"tuned, memory given": _times_over(result.ratio_into(TUNED))} if result.into and tuned else {}
    return {
        "case": result.case,
        **{name: seconds(result.times.get(name, Measurement()).median) for name in (OURS, *tuned, *peers)},
        "spread": percent(ours.spread),
        "best peer / dlc": _times_over(result.ratio()),
        **({"best peer / tuned": _times_over(result.ratio(ours=TUNED))} if tuned else {}),
        **given,
        "GFLOP/s": number(result.gflops() if result.flops else math.nan),
        "GB/s": number(result.gbs() if result.bytes else math.nan),
        "of limit": share_text(result),
        "error dlc": error_text(result, OURS),
        "error peer": error_text(result, result.best_peer),
        "first call": seconds(result.first.get(OURS, math.nan)),
    }


def _times_over(found: Ratio | None) -> str | None:
    return f"{found.median:.2f}x" if found else None


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
