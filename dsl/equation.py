"""Reductions whose terms count only where data equals an index.

In ``y[r] = sum[k](where(ids[k] == r, x[k], 0))`` a term is the carrier's identity for every ``r`` but one, which ``ids[k]`` names: a
scatter. Summed over ``r`` instead of ``k``, it is a gather, and :func:`picked` writes it so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsl.algebra import EXPRS, index_term, transform, with_values
from dsl.carrier import resumes
from dsl.dim import ZERO, Term, Var
from dsl.dtype import bool_, i64
from dsl.expr import Cast, Const, Expr, Op, Reduce, Where, cast, const, index, op, where

NOWHERE = -(1 << 62)  # an index that no loop reaches


@dataclass(frozen=True)
class Equation:
    """``data == term``, without which a reduction's element is its carrier's identity.

    Attributes:
        condition: the comparison.
        data: an integer that depends on memory.
        term: over the stage's axes.
        guards: the conditions outside of which the comparison is not evaluated.
        neutral: what the reduction's inputs are elsewhere.
    """

    condition: Expr
    data: Expr
    term: Term
    guards: tuple[Expr, ...]
    neutral: tuple[Expr, ...]

    @property
    def guarded(self) -> Expr:
        """The data where it may be evaluated, an index out of everything's reach elsewhere."""
        value = cast(self.data, i64)
        for guard in reversed(self.guards):
            value = where(guard, value, const(NOWHERE, i64))
        return value


def equations(body: Expr) -> tuple[Equation, ...]:
    """The equations that every element of a reduction other than its carrier's identity satisfies."""
    if not isinstance(body, Reduce) or resumes(body.carrier):
        return ()
    found = [_guarded(a) for a in body.args]
    state = body.carrier.state(tuple(a.dtype for a in body.args))
    if not found or any(f is None for f in found):
        return ()
    others = tuple(f[1] for f in found if f is not None)
    if any(a is not b for a, b in zip(body.carrier.lift(EXPRS, others, state), body.carrier.identity(EXPRS, state))):
        return ()
    first, *rest = [f[0] for f in found if f is not None]
    shared = [(c, guards) for c, guards in first if all(any(c is d for d, _ in other) for other in rest)]
    return tuple(Equation(c, data, term, guards, others) for c, guards in shared for data, term in _sides(c))


def picked(body: Expr) -> Expr:
    """A body in which sums over an axis that data is compared with are reads at that data.

    before: ``sum[r](where(ids[k] == r, x[r, c], 0))``
    after: ``where(0 <= ids[k] < R, x[ids[k], c], 0)``
    """
    return transform(body, lambda e: _picked(e) if isinstance(e, Reduce) else None)


def _picked(e: Reduce) -> Expr | None:
    for q in equations(e):
        for v in e.axes:
            sign, rest = q.term.coef(v), q.term.subs({v: ZERO})
            others = tuple(a for a in e.axes if a is not v)
            moving = {u for a in others if a.extent is not None for u in a.extent.vars}
            if sign in (1, -1) and v not in q.guarded.free | rest.vars | moving and v.extent is not None:
                return _at(e, q, v, op("sub", *((q.guarded, index(rest)) if sign == 1 else (index(rest), q.guarded))), others)
    return None


def _at(e: Reduce, q: Equation, v: Var, place: Expr, others: tuple[Var, ...]) -> Expr:
    """A reduction of which only the point ``v = place`` counts, if it is in the range of ``v``."""
    assert v.extent is not None
    inside = op("and", op("ge", place, 0), op("lt", place, index(v.extent)))
    near = {v: op("min", op("max", place, 0), index(v.extent - 1))}
    args = tuple(with_values(assuming(a, q.condition), near) for a in e.args)
    if others:
        kept = tuple(where(inside, a, n) for a, n in zip(args, q.neutral))
        return Reduce(kept, (e.carrier, others, e.out), e.dtype, e.loc)
    state = e.carrier.state(tuple(a.dtype for a in e.args))
    one, none = e.carrier.lift(EXPRS, args, state), e.carrier.identity(EXPRS, state)
    return where(inside, *(cast(e.carrier.finalize(EXPRS, s)[e.out], e.dtype) for s in (one, none)))


def assuming(e: Expr, true: Expr) -> Expr:
    """An expression where a condition in it holds."""
    yes = const(True, bool_)

    def one(node: Expr) -> Expr | None:
        if node is true:
            return yes
        if isinstance(node, Op) and node.name == "and" and any(a is yes for a in node.args):
            return node.args[1] if node.args[0] is yes else node.args[0]
        if isinstance(node, Where) and node.args[0] is yes:
            return node.args[1]
        return const(1, node.dtype) if isinstance(node, Cast) and node.args[0] is yes else None

    return transform(e, one)


def _guarded(e: Expr) -> tuple[list[tuple[Expr, tuple[Expr, ...]]], Expr] | None:
    """The conditions outside of which ``e`` is a literal, each with those that come before it, and the literal."""
    if isinstance(e, Cast):
        inner = _guarded(e.args[0])
        other = None if inner is None else cast(inner[1], e.dtype)
        return (inner[0], other) if inner is not None and isinstance(other, Const) else None
    if isinstance(e, Where) and isinstance(e.args[2], Const):
        cond, then, other = e.args
        found: list[tuple[Expr, tuple[Expr, ...]]] = [(c, ()) for c in _conjuncts(cond)]
        inner = _guarded(then)
        if inner is not None and inner[1] is other:
            found += [(c, (cond, *guards)) for c, guards in inner[0]]
        return found, other
    if isinstance(e, Op) and e.dtype is bool_:
        return [(c, ()) for c in _conjuncts(e)], const(False, bool_)
    return None


def _conjuncts(cond: Expr) -> Iterator[Expr]:
    if isinstance(cond, Op) and cond.name == "and" and cond.dtype is bool_:
        for a in cond.args:
            yield from _conjuncts(a)
    else:
        yield cond


def _sides(c: Expr) -> Iterator[tuple[Expr, Term]]:
    """Data and the term it is compared with."""
    if isinstance(c, Op) and c.name == "eq":
        for a, b in (c.args, c.args[::-1]):
            term = index_term(b)
            if term is not None and index_term(a) is None and a.dtype.is_int and a.dtype is not bool_:
                yield a, term
