"""Where an element changes nothing: the index conditions outside of which every state of a pass keeps its value."""

from __future__ import annotations

from collections.abc import Iterable

from dsl.algebra import index_condition
from dsl.cascade.factored import signed_addends
from dsl.cascade.model import Accumulator, Cascade
from dsl.dim import Term
from dsl.expr import Cast, Const, Expr, Where


def guards(c: Cascade) -> tuple[Term, ...]:
    """Terms over rows and axes that are ``>= 0`` at every element that matters to some accumulator."""
    common: list[Term] | None = None
    for acc in c.accumulators:
        own = list(_of(acc))
        common = own if common is None else [t for t in common if any(t == o for o in own)]
    return tuple(dict.fromkeys(common or ()))


def _of(acc: Accumulator) -> Iterable[Term]:
    if acc.weight is not None:
        yield from (t for e in acc.weight.data_parts for t in vanishing(e, float("-inf")))
        yield from (t for g in acc.guards for t in index_condition(g) or ())
    elif acc.carrier.name == "max":
        yield from vanishing(acc.inputs[0], float("-inf"))
    elif acc.carrier.name == "min":
        yield from vanishing(acc.inputs[0], float("inf"))
    elif acc.carrier.name == "sum":
        yield from vanishing(acc.inputs[0], 0.0)


def vanishing(e: Expr, neutral: float) -> tuple[Term, ...]:
    """Terms one of which is negative only where ``e`` is the neutral value, an infinite one whatever is added to it."""
    while isinstance(e, Cast):
        e = e.args[0]
    if isinstance(e, Where):
        cond, then, other = e.args
        if _is(other, neutral):
            return (*(index_condition(cond) or ()), *vanishing(then, neutral))
        if _is(then, neutral):
            return (*_complement(cond), *vanishing(other, neutral))
        return ()
    parts = signed_addends(e)
    if neutral == 0 or len(parts) == 1:
        return ()
    return tuple(t for p in parts for t in vanishing(p, neutral))


def _is(e: Expr, value: float) -> bool:
    return isinstance(e, Const) and e.value == value


def _complement(cond: Expr) -> tuple[Term, ...]:
    """The terms of the negation of one comparison."""
    terms = index_condition(cond)
    return (-terms[0] - 1,) if terms is not None and len(terms) == 1 else ()
