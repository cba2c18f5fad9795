"""Cumulative operations: prefixes along an axis, of tensors and of elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl import carrier as c
from dsl.errors import IndexingError
from dsl.expr import Expr, Index, Tensor, as_expr, index
from dsl.expr import scan as prefix
from dsl.ops.dispatch import axis_number, build, names_of, operation
from dsl.program import axis_of, reduce_axis

_CARRIERS = {k.name: k for k in (c.SUM, c.PROD, c.MAX, c.MIN, c.ANY, c.ALL, c.LOGSUMEXP)}


def scan(element: Any, axis: Any, at: Any, carrier: str = "sum", *, exclusive: bool = False, reverse: bool = False) -> Expr:
    """The combination of ``element`` over ``axis`` from its start up to and with ``at``: a running sum, say.

    Args:
        element: an expression of ``axis``, which ``dlc.reduce_axis`` made.
        axis: the axis.
        at: the last position that counts, an index.
        carrier: ``sum prod max min any all logsumexp``.
        exclusive: up to but without ``at``.
        reverse: from ``at`` to the end of the axis.

    Raises:
        IndexingError: no such carrier, ``axis`` is no axis, or ``at`` is not an index.
    """
    if carrier not in _CARRIERS:
        raise IndexingError(f"there is no scan `{carrier}`", remedy="one of " + ", ".join(_CARRIERS))
    place = as_expr(at)
    if not isinstance(place, Index):
        raise IndexingError(f"a scan ends at an index, not at `{place}`", "the position may not depend on data",
                          "scan the whole axis, then read it there")
    return prefix(_CARRIERS[carrier], (element,), axis_of(axis), place.term, exclusive=exclusive, reverse=reverse)


def _along(x: Tensor, axis: int, name: str, carrier: c.Carrier, out: int = 0, position: bool = False, reverse: bool = False) -> Tensor:
    d = axis_number(axis, x.ndim, name)

    def body(*at: Any) -> Expr:
        k = axis_of(reduce_axis(x.shape[d], name="k"))
        element = x.read(*at[:d], index(k), *at[d + 1:])
        return prefix(carrier, (element, index(k)) if position else (element,), k, at[d].term, out=out, reverse=reverse)

    return build(name, x.shape, body, names_of(x))


def _cumulative(name: str, carrier: c.Carrier, doc: str) -> Callable[..., Any]:
    def cumulative(x: Tensor, axis: int = -1, reverse: bool = False) -> Any:
        return _along(x, axis, name, carrier, reverse=reverse)

    cumulative.__name__ = cumulative.__qualname__ = name
    cumulative.__doc__ = f"{doc} along an axis; in ``reverse`` from its end. The shape is that of ``x``."
    return operation(cumulative)


cumsum = _cumulative("cumsum", c.SUM, "Running sums")
cumprod = _cumulative("cumprod", c.PROD, "Running products")
logcumsumexp = _cumulative("logcumsumexp", c.LOGSUMEXP, "``log`` of running sums of ``exp``, without overflow,")


@operation
def cummax(x: Tensor, axis: int = -1) -> Any:
    """(running maxima, the positions of the first element that reaches each) along an axis."""
    return tuple(_along(x, axis, "cummax", c.ARGMAX, out, position=True) for out in (0, 1))


@operation
def cummin(x: Tensor, axis: int = -1) -> Any:
    """(running minima, the positions of the first element that reaches each) along an axis."""
    return tuple(_along(x, axis, "cummin", c.ARGMIN, out, position=True) for out in (0, 1))
