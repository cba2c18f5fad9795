"""Reductions whose terms change nothing where a condition on indices fails: ragged chunks, rows up to a diagonal.

The condition becomes a guard of the reduction, like that of a ragged end: its loops go as far as a term counts, whole tiles take no masks,
and those at the end have code of their own.
"""

from __future__ import annotations

from dataclasses import replace

from codegen.lower.placing import single
from dsl.algebra import index_condition
from dsl.dim import Term
from dsl.expr import Const, Expr, Reduce, Where
from dsl.nest import Stage
from dsl.placing import Placed
from dsl.primitives.reduction import neutral_input


def with_guards(stage: Stage, p: Placed) -> Placed:
    """Where a reduction stands, with the conditions among its guards under which its terms count, if loops end there."""
    given = [_given(stage, n, a) for n, a in enumerate(stage.body.args)]
    terms = tuple(t.subs(p.value) for t in given[0]) if given and given[0] is not None else ()
    loops = [x for x in p.loops if x.reduce and not x.tile and not single(x)]
    plain = all(x.role not in ("dot", "seek") for x in p.loops)
    if not plain or any(g != given[0] for g in given) or not all(any((t.coef(x.var) or 0) < 0 for x in loops) for t in terms):
        return p
    return replace(p, guards=replace(p.guards, counting=terms))


def counting(stage: Stage, p: Placed) -> tuple[Expr, ...]:
    """The inputs of a reduction at the points at which its guards hold."""
    guards = set(p.bound)
    given = [_given(stage, n, a) for n, a in enumerate(stage.body.args)]
    return tuple(a.args[1] if terms is not None and {t.subs(p.value) for t in terms} <= guards else a
                 for a, terms in zip(stage.body.args, given))


def _given(stage: Stage, n: int, arg: Expr) -> tuple[Term, ...] | None:
    """The terms that are ``>= 0`` where an input is not the neutral one; None where it is not made so."""
    if not isinstance(arg, Where) or not isinstance(stage.body, Reduce):
        return None
    other, neutral = arg.args[2], neutral_input(stage.body, n)
    same = isinstance(other, Const) and isinstance(neutral, Const) and (other.value, other.dtype) == (neutral.value, neutral.dtype)
    return index_condition(arg.args[0]) if same else None
