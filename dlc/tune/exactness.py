"""Errors of several sides against float64, by kind of data, beside what the order of summation allows: one table for every report."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dlc.compiler import Plan
from dlc.lazy import lazy
from dlc.runtime.arguments import as_numpy
from dlc.tune.accuracy import Error, error, worst
from dlc.tune.adversary import changed, kinds
from dlc.tune.bounds import Bound, bound
from dsl.errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

rich_console, rich_table = lazy("rich.console"), lazy("rich.table")

OURS = "dlc"
PATIENCE = 5.0  # seconds, for kinds of data that nobody asked for by name
TOO_LONG = Bound(None, "not evaluated: it takes some times as long as the results in float64; name the data to have it")
_WIDE = 140
Side = Callable[..., Any]


@dataclass(frozen=True)
class Row:
    """One kind of data.

    Attributes:
        data: its name.
        errors: side to its error against float64.
        bound: what the order of summation of one side allows.
        bounded: which side that is.
        failures: side to why it has no error.
    """

    data: str
    errors: Mapping[str, Error]
    bound: Bound
    bounded: str = OURS
    failures: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"errors": {n: e.as_dict() for n, e in self.errors.items()}, "bound": self.bound.relative, "why_no_bound": self.bound.reason,
                "failures": dict(self.failures)}


def study(plan: Plan, args: Sequence[Any], exact: Side, sides: Mapping[str, Side],
          data: str | Sequence[str] | None, patience: float = PATIENCE) -> tuple[list[Row], list[str]]:
    """Run every side on several kinds of data.

    Args:
        plan: the kernel for these arguments.
        args: arguments: torch tensors on the CPU, numpy arrays, numbers.
        exact: from arguments to the exact results.
        sides: name to what is called with the arguments; :data:`OURS` among them.
        data: see :func:`dlc.tune.adversary.kinds`; None for as many kinds as the patience lasts.
        patience: seconds.

    Returns:
        A row for each kind, and what else is to be said.

    Raises:
        UserError: no such kind of data, or results of another number or shape than the definition's.
    """
    wanted, rows, started = kinds(data), list[Row](), time.perf_counter()
    for kind in wanted:
        spent = time.perf_counter() - started
        if data is None and rows and spent > patience:
            return rows, [left_out(wanted[len(rows):], spent)]
        made, before = changed(args, kind), time.perf_counter()
        results = several(exact(*made))
        costly = data is None and 3 * (time.perf_counter() - before) > patience
        errors, failures = compare(sides, made, results)
        allowed = TOO_LONG if costly else bound(plan, [as_numpy(a) for a in made], results)
        rows.append(Row(kind, errors, allowed, failures=failures))
    return rows, []


def left_out(names: Sequence[str], spent: float) -> str:
    """What is said of kinds of data that were not measured."""
    return f"no errors on data of the kinds {', '.join(names)}: float64 took {spent:.1f} s so far; name them to have them"


def compare(sides: Mapping[str, Side], args: Sequence[Any], exact: Sequence[np.ndarray]) -> tuple[dict[str, Error], dict[str, str]]:
    """Errors by side, and why a peer that raises has none.

    Raises:
        ArgumentError: results of another number or shape than the definition's.
    """
    errors, failures = {}, {}
    for name, side in sides.items():
        try:
            results = several(side(*args))
        except Exception as e:  # whatever a peer raises is its result
            if name == OURS:
                raise
            failures[name] = f"{type(e).__name__}: {e}"
            continue
        if len(results) != len(exact):
            raise ArgumentError(f"the {name} gives {len(results)} results, the definition {len(exact)}",
                                remedy="compare functions with the same results")
        errors[name] = worst(error(g, e, f"the result of {name}") for g, e in zip(results, exact))
    return errors, failures


def several(value: Any) -> tuple[Any, ...]:
    """Results as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def as_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """Plain data for JSON: kind of data to its errors, bound and failures."""
    return {r.data: r.as_dict() for r in rows}


def table(rows: Sequence[Row], title: str) -> Table:
    """The figures as a table for the terminal."""
    t = rich_table.Table(title=title, title_justify="left", box=None, pad_edge=False)
    for n, column in enumerate(("data", "", "relative", "ulp", "bound")):
        t.add_column(column, justify="left" if n < 2 else "right", no_wrap=True)
    for r in rows:
        lines = [(side, f"{e.relative:.1e}", f"{e.ulp:.3g}", _bound(r) if side == r.bounded else "") for side, e in r.errors.items()]
        lines += [(side, why, "", "") for side, why in r.failures.items()]
        for n, line in enumerate(lines):
            t.add_row(r.data if n == 0 else "", *line)
    return t


def _bound(r: Row) -> str:
    return "-" if r.bound.relative is None else f"{r.bound.relative:.1e}"


def shown(*tables: Table) -> str:
    """Tables as plain text."""
    out = io.StringIO()
    console = rich_console.Console(file=out, width=_WIDE, no_color=True, force_terminal=False)
    for t in tables:
        console.print(t)
    return out.getvalue()


def remarks(rows: Sequence[Row]) -> list[str]:
    """Why bounds are missing."""
    return sorted({f"no bound: {r.bound.reason}" for r in rows if r.bound.reason})
