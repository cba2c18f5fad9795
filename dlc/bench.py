"""A kernel against a peer.

Interleaved times with warm and with cold operands, rates, share of the machine's limit, errors against float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from dlc.lazy import lazy
from dsl.dim import product
from dsl.errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

    from dlc.compiler import Plan
    from dlc.tune import exactness, measure
    from dlc.tune import limits as machine
    from dlc.tune.accuracy import Error
    from dlc.tune.exactness import Row
    from dlc.tune.limits import Limits
    from dlc.tune.measure import Measurement, Ratio
    from dsl import cost
    from dsl.program import Program
else:
    exactness, machine = lazy("dlc.tune.exactness"), lazy("dlc.tune.limits")
    measure, cost = lazy("dlc.tune.measure"), lazy("dsl.cost")

rich_table = lazy("rich.table")

_MICRO = 1e6


class Measurable(Protocol):
    """What can be measured: a kernel."""

    __name__: str

    def __call__(self, *args: Any) -> Any:
        """The results."""

    def reference(self, *args: Any) -> Any:
        """The exact results."""

    def plan(self, *args: Any) -> Plan:
        """The kernel for these arguments, level by level."""


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        name: the kernel's name.
        arguments: dtype and shape of each, in words.
        warm, cold: ``dlc`` and ``peer`` to their samples, in seconds, with operands in the caches and with the caches emptied before
            every call. Empty where not asked for.
        flops, bytes: arithmetic of the definition, and its inputs and outputs each moved once, per call.
        rows: errors of ``dlc`` and ``peer`` against float64 and what the order of dlc's sums allows, for each kind of data.
        order: that order, see :mod:`dsl.order`.
        threads: threads used.
        limits: what this machine can do at most with as many threads; None where not asked for.
        dtype: the dtype whose peak counts.
        notes: what else is to be said.
    """

    name: str
    arguments: tuple[str, ...]
    warm: Mapping[str, Measurement]
    cold: Mapping[str, Measurement]
    flops: int
    bytes: int
    rows: Sequence[Row]
    threads: int
    limits: Limits | None = None
    dtype: str = "f32"
    order: str = ""
    notes: Sequence[str] = ()

    @property
    def times(self) -> Mapping[str, Measurement]:
        """Warm times where there are any, else cold ones."""
        return self.warm or self.cold

    @property
    def exactness(self) -> Mapping[str, Error]:
        """Errors by side on the first kind of data, which is the arguments as given unless others were asked for."""
        return self.rows[0].errors

    @property
    def failures(self) -> Mapping[str, str]:
        """Why a side has no errors there."""
        return self.rows[0].failures

    @property
    def errors(self) -> dict[str, float]:
        """Largest distance from the exact values relative to the largest of them, by side, on the same data."""
        return {name: e.relative for name, e in self.exactness.items()}

    @property
    def ratio(self) -> float | None:
        """Time of the peer over dlc's, round by round: above 1 dlc is faster. None without a peer."""
        pairs = _ratio(self.times)
        return None if pairs is None else pairs.median

    @property
    def ratios(self) -> dict[str, Ratio]:
        """``warm`` and ``cold`` to the same with its quartiles."""
        return {name: r for name, times in (("warm", self.warm), ("cold", self.cold)) if (r := _ratio(times)) is not None}

    def share(self, seconds: float, cold: bool = False) -> float | None:
        """The least time this machine needs for the arithmetic and the traffic, as a share of a time; None without limits."""
        if self.limits is None:
            return None
        level = "DRAM" if cold else self.limits.level_of(self.bytes)
        return self.limits.seconds(self.flops, self.bytes, self.dtype, level) / seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        return {
            "name": self.name, "arguments": list(self.arguments), "threads": self.threads, "flops": self.flops, "bytes": self.bytes,
            "dtype": self.dtype, "data": exactness.as_dict(self.rows), "order": self.order.splitlines(), "notes": list(self.notes),
            "ratios": {name: {"median": r.median, "p25": r.p25, "p75": r.p75, "pairs": r.pairs} for name, r in self.ratios.items()},
            "seconds": {state: {n: self._figures(m, state == "cold") for n, m in times.items()}
                        for state, times in (("warm", self.warm), ("cold", self.cold))},
            "limits": None if self.limits is None else {
                "machine": self.limits.machine, "gflops": self.limits.gflops(self.dtype), "gbs": self.limits.bandwidth_gbs}}

    def _figures(self, m: Measurement, cold: bool) -> dict[str, Any]:
        if not m.samples:
            return {"failure": m.failure}
        return {"median": m.median, "p25": m.p25, "p75": m.p75, "min": m.min, "samples": list(m.samples), "inner": m.inner,
                "failure": m.failure, "gflops": self.flops / m.median / 1e9, "gbs": self.bytes / m.median / 1e9,
                "share_of_limit": self.share(m.median, cold)}

    def table(self) -> Table:
        """The times as a table for the terminal."""
        t = rich_table.Table(title=f"{self.name}({', '.join(self.arguments)}), {self.threads} threads", title_justify="left", box=None,
                             pad_edge=False)
        for n, column in enumerate(("", "operands", "median", "p25 - p75", "GFLOP/s", "GB/s", "of limit")):
            t.add_column(column, justify="left" if n < 2 else "right", no_wrap=True)
        for state, times in (("warm", self.warm), ("cold", self.cold)):
            for name, m in times.items():
                t.add_row(*self._row(name, state, m))
        return t

    def _row(self, name: str, state: str, m: Measurement) -> list[str]:
        if not m.samples:
            return [name, state, "failed", m.failure or "", *[""] * 3]
        share = self.share(m.median, state == "cold")
        return [name, state, f"{m.median * _MICRO:.1f} us", f"{m.p25 * _MICRO:.1f} - {m.p75 * _MICRO:.1f}",
                f"{self.flops / m.median / 1e9:.1f}", f"{self.bytes / m.median / 1e9:.1f}", "" if share is None else f"{share:.0%}"]

    def __str__(self) -> str:
        lines = [f"peer / dlc, {state}: {r}" for state, r in self.ratios.items()]
        return "\n".join([exactness.shown(self.table(), exactness.table(self.rows, "errors against float64")).rstrip("\n"), *lines,
                          *exactness.remarks(self.rows), *self.notes])


def bench(kernel: Measurable, *args: Any, against: Callable[..., Any] | None = None, cold: bool | None = None, budget: float = 1.0,
          threads: int | None = None, limits: bool = False, data: str | Sequence[str] | None = None) -> BenchReport:
    """Measure a kernel, and a peer beside it in the same interleaved run.

    Args:
        kernel: what to measure.
        args: its arguments.
        against: the peer, called with the same arguments.
        cold: True empties the caches before every call, False never does; None measures both.
        budget: seconds.
        threads: size of the thread pool; as it is when None.
        limits: also tell the share of what this machine can do, which is measured in about two seconds when it is not known yet.
        data: kinds of data to tell the errors on, see :func:`dlc.tune.adversary.kinds`: ``ordinary`` for the arguments as they are,
            ``offset``, ``cancel``, ``denormal`` and ``extreme`` made from them; ``all``. None for as many as float64 takes a few seconds
            for.

    Raises:
        UserError: the arguments do not fit, the peer's result has another shape than the kernel's, or there is no such kind of data.
    """
    if not budget > 0:
        raise ArgumentError(f"the budget of a measurement is {budget!r} seconds", remedy="a positive number")
    sides: dict[str, Callable[..., Any]] = {"dlc": kernel} if against is None else {"dlc": kernel, "peer": against}
    calls = {name: partial(side, *args) for name, side in sides.items()}
    count, plan = threads or torch.get_num_threads(), kernel.plan(*args)
    with torch.no_grad():
        rows, notes = exactness.study(plan, args, kernel.reference, sides, data)
        states = [False, True] if cold is None else [cold]
        times = {state: measure.measure(calls, budget=budget / len(states), cold=state, threads=threads) for state in states}
    special = plan.program
    known = machine.machine_limits(count) if limits else None
    described = tuple(f"{t.name}: {t.dtype}[{', '.join(map(str, t.shape))}]" if t.shape else f"{t.name}: {t.dtype}" for t in special.inputs)
    return BenchReport(kernel.__name__, described, times.get(False, {}), times.get(True, {}),
                       cost.flops(special), cost.bytes_moved(special), rows, count, known, _dtype(special), plan.order,
                       notes)


def _ratio(times: Mapping[str, Measurement]) -> Ratio | None:
    if not {"dlc", "peer"} <= set(times) or not (times["dlc"].ok and times["peer"].ok):
        return None
    return measure.ratio(times["peer"], times["dlc"])


def _dtype(program: Program) -> str:
    """The dtype of most of the data."""
    def elements(name: str) -> int:
        return sum(int(product(t.shape)) for t in program.inputs if t.dtype.name == name)

    names = [t.dtype.name for t in program.inputs if t.dtype.is_float] or ["f32"]
    return max(dict.fromkeys(names), key=elements)
