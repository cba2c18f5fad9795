"""Loops that data sends to one iteration: the equations under which the terms of a reduction count at all.

In ``y[r] = sum[k](where(ids[k] == r, x[k], 0))`` a term is the carrier's identity for every ``r`` but one, which ``ids[k]`` names. A loop
over ``r`` inside of the one over ``k`` may *seek* it: go to that iteration, if there is one, and leave the others out. Scatters,
histograms, sums over segments and the gradients of gathers are such reductions; nothing here knows them by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsl.algebra import EXPRS, index_term, transform
from dsl.carrier import resumes
from dsl.dim import ZERO, Term, Var
from dsl.dtype import bool_, i64
from dsl.expr import Cast, Const, Expr, Op, Reduce, Where, cast, const, where
from dsl.nest import TILE_ROLES, Stage
from dsl.placing import Placed, PlacedLoop

NOWHERE = -(1 << 62)  # an index that no loop reaches


@dataclass(frozen=True)
class Equation:
    """``data == term``, without which a reduction's element is its carrier's identity.

    Attributes:
        condition: the comparison.
        data: an integer that depends on memory.
        term: over the stage's axes.
        guards: the conditions outside of which the comparison is not evaluated.
    """

    condition: Expr
    data: Expr
    term: Term
    guards: tuple[Expr, ...]


@dataclass(frozen=True)
class Goal:
    """The one iteration of a loop at which an equation holds: ``sign * (data - rest)``."""

    equation: Equation
    rest: Term
    sign: int

    @property
    def data(self) -> Expr:
        """The equation's data where it may be evaluated, an index out of every loop's reach elsewhere."""
        value = cast(self.equation.data, i64)
        for guard in reversed(self.equation.guards):
            value = where(guard, value, const(NOWHERE, i64))
        return value


def equations(stage: Stage) -> tuple[Equation, ...]:
    """The equations that every element of a reduction other than its carrier's identity satisfies."""
    body = stage.body
    if not isinstance(body, Reduce) or resumes(body.carrier):
        return ()
    found = [_guarded(a) for a in body.args]
    state = body.carrier.state(tuple(a.dtype for a in body.args))
    if not found or any(f is None for f in found):
        return ()
    neutral = body.carrier.lift(EXPRS, tuple(f[1] for f in found if f is not None), state)
    if any(a is not b for a, b in zip(neutral, body.carrier.identity(EXPRS, state))):
        return ()
    first, *others = [f[0] for f in found if f is not None]
    shared = [(c, guards) for c, guards in first if all(any(c is d for d, _ in other) for other in others)]
    return tuple(Equation(c, data, term, guards) for c, guards in shared for data, term in _sides(c))


def goal(stage: Stage, p: Placed, loop: str) -> Goal | str:
    """Where data sends a loop; the reason, as text, where it does not."""
    x = p.loop(loop)
    known = equations(stage)
    if x.reduce or not known:
        return f"nothing in `{stage.body}` says that its terms are neutral unless data equals an index"
    reason = f"no data is compared with {loop}"
    for equation in known:
        term = equation.term.subs(p.value)
        sign = term.coef(x.var)
        if sign not in (1, -1):
            continue
        found = Goal(equation, term.subs({x.var: ZERO}), sign)
        if x.var in found.rest.vars:
            continue
        late = _late(found, p, x)
        if late is None:
            return found
        reason = f"`{equation.data}` is known inside of {late} only"
    return reason


def goals(stage: Stage, p: Placed) -> dict[str, Goal]:
    """The goals of a stage's seeking loops of more than one iteration."""
    loops = [x.name for x in p.loops if x.role == "seek" and x.extent != 1]
    return {name: g for name in loops if isinstance(g := goal(stage, p, name), Goal)}


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


def _late(g: Goal, p: Placed, x: PlacedLoop) -> str | None:
    """A loop of the stage, no further out than ``x``, that the data or the rest of the equation depends on; None where there is none."""
    names = {y.var: y for y in p.loops}
    needed: set[Var] = {v for axis in g.data.free for v in (p.value[axis].vars if axis in p.value else ())} | set(g.rest.vars)
    before = {y.name for y in p.loops[:p.loops.index(x)] if y.role not in TILE_ROLES}
    return next((names[v].name for v in sorted(needed, key=lambda v: v.uid) if v in names and names[v].name not in before), None)
