"""Where an element changes nothing: the index conditions outside of which every state of a pass keeps its value."""

from __future__ import annotations

from collections.abc import Iterable

from dsl.algebra import index_condition
from dsl.cascade.factored import signed_addends
from dsl.cascade.model import Accumulator, Cascade
from dsl.dim import Term
from dsl.expr import Cast, Const, Expr, Op, Where, op


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
    if neutral == 0:
        return _of_product(e)
    parts = signed_addends(e)
    if len(parts) == 1:
        return ()
    return tuple(t for p in parts for t in vanishing(p, neutral))


def _of_product(e: Expr) -> tuple[Term, ...]:
    """A product is zero where a factor is, and an exponential where its exponent is minus infinity."""
    if not isinstance(e, Op):
        return ()
    if e.name in ("mul", "div", "neg"):
        return tuple(t for a in (e.args if e.name == "mul" else e.args[:1]) for t in vanishing(a, 0.0))
    return vanishing(e.args[0], float("-inf")) if e.name in ("exp", "exp2") else ()


def guarded_product(e: Expr) -> tuple[tuple[Expr, ...], Expr]:
    """The conditions outside of which a product is zero, and the product without them.

    ``exp(where(c, x, -inf) + d) * y`` is zero where ``c`` does not hold, also in a row that holds nothing, where ``d`` is infinite.
    """
    if isinstance(e, Where) and _is(e.args[2], 0):
        inside, x = guarded_product(e.args[1])
        return (e.args[0], *inside), x
    if isinstance(e, Op) and e.name in ("mul", "div", "neg"):
        sides = [guarded_product(a) if n == 0 or e.name == "mul" else ((), a) for n, a in enumerate(e.args)]
        found = tuple(c for s in sides for c in s[0])
        return found, op(e.name, *(x for _, x in sides)) if found else e
    if isinstance(e, Op) and e.name in ("exp", "exp2"):
        found, x = _shown(e.args[0])
        return found, op(e.name, x) if found else e
    return (), e


def _shown(e: Expr) -> tuple[tuple[Expr, ...], Expr]:
    """The conditions outside of which a sum is minus infinity, and the sum without them."""
    if isinstance(e, Where) and _is(e.args[2], float("-inf")):
        inside, x = _shown(e.args[1])
        return (e.args[0], *inside), x
    if isinstance(e, Op) and e.name in ("add", "sub"):
        left, right = _shown(e.args[0]), _shown(e.args[1]) if e.name == "add" else ((), e.args[1])
        found = (*left[0], *right[0])
        return found, op(e.name, left[1], right[1]) if found else e
    if isinstance(e, Op) and e.name in ("mul", "div") and isinstance(e.args[1], Const) and e.args[1].value > 0:
        found, x = _shown(e.args[0])
        return found, op(e.name, x, e.args[1]) if found else e
    return (), e


def _is(e: Expr, value: float) -> bool:
    return isinstance(e, Const) and e.value == value


def _complement(cond: Expr) -> tuple[Term, ...]:
    """The terms of the negation of one comparison."""
    terms = index_condition(cond)
    return (-terms[0] - 1,) if terms is not None and len(terms) == 1 else ()
