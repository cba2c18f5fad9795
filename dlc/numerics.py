"""How accurate a kernel is on ordinary and on adversarial data, beside a peer and beside what its order of summation guarantees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlc.compiler import Plan
from dlc.tune import exactness
from dlc.tune.exactness import OURS, Row

if TYPE_CHECKING:
    from rich.table import Table


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
        return {"name": self.name, "order": self.order.splitlines(), "data": exactness.as_dict(self.rows)}

    def table(self) -> Table:
        """The figures as a table for the terminal."""
        return exactness.table(self.rows, f"{self.name}: errors against float64")

    def __str__(self) -> str:
        return exactness.shown(self.table()) + "\n".join([*(f"order: {line}" for line in self.order.splitlines()),
                                                          *exactness.remarks(self.rows)])


def study(kernel: Studied, *args: Any, against: Callable[..., Any] | None = None,
          data: str | Sequence[str] | None = None) -> NumericsReport:
    """Run a kernel, and a peer, on several kinds of data and hold both against float64.

    Args:
        kernel: what to study.
        args: its arguments: torch tensors on the CPU, numpy arrays, numbers.
        against: the peer, called with the same arguments.
        data: names out of :data:`dlc.tune.adversary.KINDS`; all of them when None.

    Raises:
        UserError: the arguments do not fit, there is no such kind of data, or the peer's result has another shape.
    """
    plan = kernel.plan(*args)
    sides: dict[str, Callable[..., Any]] = {OURS: kernel} if against is None else {OURS: kernel, "peer": against}
    rows, _ = exactness.study(plan, args, kernel.reference, sides, data, patience=float("inf"))
    return NumericsReport(kernel.__name__, rows, plan.order)
