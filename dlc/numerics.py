"""How accurate a kernel is on ordinary and on adversarial data, beside a peer and beside what its order of summation guarantees.

Every kind of data is made from the user's own arguments, so shapes, strides' worth of structure and integer arguments stay what they
are; only floating-point values are changed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from dlc.compiler import Plan
from dlc.lazy import lazy
from dlc.runtime.arguments import as_numpy
from dlc.tune.accuracy import Error, error, worst
from dlc.tune.bounds import Bound, bound

if TYPE_CHECKING:
    from rich.table import Table

rich_console, rich_table = lazy("rich.console"), lazy("rich.table")

_WIDE = 130


class Studied(Protocol):
    """What can be studied: a kernel."""

    __name__: str

    def __call__(self, *args: Any) -> Any:
        """The results."""

    def reference(self, *args: Any) -> Any:
        """The exact results."""

    def plan(self, *args: Any) -> Plan:
        """The kernel for these arguments."""


@dataclass(frozen=True)
class Row:
    """One kind of data.

    Attributes:
        data: its name.
        errors: ``dlc`` and ``peer`` to their errors against float64.
        bound: what the order of summation allows.
        failures: side to why it has no error.
    """

    data: str
    errors: Mapping[str, Error]
    bound: Bound
    failures: Mapping[str, str]


@dataclass(frozen=True)
class NumericsReport:
    """The errors of a kernel, by kind of data.

    Attributes:
        name: the kernel's name.
        rows: one for each kind of data.
        order: the order of every reduction whose order shows in the bits.
    """

    name: str
    rows: Sequence[Row]
    order: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "order": self.order.splitlines(), "data": {
            r.data: {"errors": {n: e.as_dict() for n, e in r.errors.items()}, "bound": r.bound.relative, "why_no_bound": r.bound.reason,
                     "failures": dict(r.failures)} for r in self.rows}}

    def table(self) -> Table:
        """The figures as a table for the terminal."""
        t = rich_table.Table(title=f"{self.name}: errors against float64", title_justify="left", box=None, pad_edge=False)
        for n, column in enumerate(("data", "", "relative", "ulp", "bound")):
            t.add_column(column, justify="left" if n < 2 else "right", no_wrap=True)
        for r in self.rows:
            for n, (side, e) in enumerate(r.errors.items()):
                known = "-" if r.bound.relative is None else f"{r.bound.relative:.1e}"
                t.add_row(r.data if n == 0 else "", side, f"{e.relative:.1e}", f"{e.ulp:.3g}", known if side == "dlc" else "")
            for side, why in r.failures.items():
                t.add_row("", side, why, "", "")
        return t

    def __str__(self) -> str:
        out = io.StringIO()
        rich_console.Console(file=out, width=_WIDE, no_color=True, force_terminal=False).print(self.table())
        notes = sorted({f"no bound: {r.bound.reason}" for r in self.rows if r.bound.reason})
        return out.getvalue() + "\n".join([*(f"order: {line}" for line in self.order.splitlines()), *notes])


def study(kernel: Studied, *args: Any, against: Callable[..., Any] | None = None, kinds: Sequence[str] | None = None) -> NumericsReport:
    """Run a kernel, and a peer, on several kinds of data and hold both against float64.

    Args:
        kernel: what to study.
        args: its arguments: torch tensors on the CPU, numpy arrays, numbers.
        against: the peer, called with the same arguments.
        kinds: names out of :data:`KINDS`; all of them when None.

    Raises:
        UserError: the arguments do not fit.
        KeyError: no such kind of data.
    """
    plan = kernel.plan(*args)
    rows = []
    for name in kinds or KINDS:
        made = tuple(_changed(a, KINDS[name], n) for n, a in enumerate(args))
        rows.append(_row(kernel, plan, name, made, against))
    return NumericsReport(kernel.__name__, rows, plan.order)


def _row(kernel: Studied, plan: Plan, name: str, args: Sequence[Any], against: Callable[..., Any] | None) -> Row:
    exact = _tuple(kernel.reference(*args))
    errors, failures = {"dlc": _error(kernel(*args), exact)}, {}
    if against is not None:
        try:
            errors["peer"] = _error(against(*args), exact)
        except Exception as e:  # whatever a peer raises is its result
            failures["peer"] = f"{type(e).__name__}: {e}"
    return Row(name, errors, bound(plan, [as_numpy(a) for a in args], exact), failures)


def _error(results: Any, exact: Sequence[np.ndarray]) -> Error:
    return worst(error(g, e) for g, e in zip(_tuple(results), exact))


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


# -- kinds of data -------------------------------------------------------------------------------------------------
Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _changed(value: Any, change: Change, position: int) -> Any:
    """An argument with its floating-point values changed; in the kind and the strides it came in."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point() or not value.numel():
            return value
        new = change(value.detach().double(), torch.Generator().manual_seed(position)).to(value.dtype)
        return torch.empty_like(value, requires_grad=False).copy_(new)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        new = change(torch.from_numpy(np.asarray(value, np.float64)), torch.Generator().manual_seed(position))
        return new.numpy().astype(value.dtype)
    return value


def _scale(x: torch.Tensor) -> float:
    finite = x[torch.isfinite(x)]
    return float(finite.abs().max()) if finite.numel() and float(finite.abs().max()) > 0 else 1.0


def _offset(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    """The data on top of a number a thousand times as large: what is subtracted later has lost its last ten bits."""
    return x + 1000 * _scale(x)


def _cancelling(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Along the last dimension every other element nearly takes back its neighbour: sums are small beside their terms."""
    if x.ndim == 0 or x.shape[-1] < 2:
        return x
    out, half = x.clone(), x.shape[-1] // 2
    noise = torch.randn(out[..., 1:2 * half:2].shape, generator=g, dtype=torch.float64) * 1e-4 * _scale(x)
    out[..., 1:2 * half:2] = -out[..., 0:2 * half:2] + noise
    return out


def _denormal(x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    """Values at the edge of what f32 can hold at all."""
    return x / _scale(x) * 2.0**-130


def _extreme(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Magnitudes spread evenly over sixteen decades."""
    return torch.sign(x) * 10.0 ** (torch.rand(x.shape, generator=g, dtype=torch.float64) * 16 - 8)


KINDS: dict[str, Change] = {
    "as given": lambda x, _: x, "large offset": _offset, "cancellation": _cancelling, "denormals": _denormal, "wide range": _extreme,
}
