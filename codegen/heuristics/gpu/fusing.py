"""What is computed where it is used: data that only moves, and values of rows too long to be held."""

from __future__ import annotations

from codegen.analysis.access import cost, size
from codegen.heuristics.fusion import identity_axes
from dsl.algebra import walk
from dsl.dim import Term
from dsl.expr import Cast, Const, Expr, Index, Op, Read, Where
from dsl.nest import Nest, Stage
from dsl.opset import PRECISIONS
from dsl.primitives.placement import inline_where

WIDEST = 16384  # elements along a row that one program holds at once
_REPEATED = 64  # operations that are cheaper to repeat than a round trip to memory


def inline_movement(nest: Nest) -> Nest:
    """Read through every definition that only moves data: padding becomes a mask, a transpose an address."""
    return inline_where(nest, lambda s, consumers: all(_moves(t.body) for t in s.tensors))


def _moves(e: Expr) -> bool:
    """Whether an element is one element of another tensor, or a constant, chosen by its place."""
    if isinstance(e, Cast) or (isinstance(e, Op) and e.name in PRECISIONS):
        return _moves(e.args[0])
    if isinstance(e, Where):
        return _place(e.args[0]) and _moves(e.args[1]) and _moves(e.args[2])
    return isinstance(e, Const) or (isinstance(e, Read) and all(isinstance(i, Term) for i in e.indices))


def _place(cond: Expr) -> bool:
    return all(isinstance(x, (Index, Const)) or (isinstance(x, Op) and x.dtype.name == "bool") for x in walk(cond))


def repeat_in_long_rows(nest: Nest) -> Nest:
    """Compute values along a row that no program holds whole again in every pass over the row.

    Reading the row twice more, from the second-level cache, is cheaper than writing the values and reading them back.
    """
    return inline_where(nest, lambda s, consumers: _too_long(s, consumers) and max(cost(t.body) for t in s.tensors) <= _REPEATED)


def _too_long(s: Stage, consumers: list[Stage]) -> bool:
    """Whether it is reduced along its last axes, over more elements than a program holds."""
    for c in consumers:
        if c.kind != "reduce":
            continue
        here = identity_axes(c, s)
        row = 1
        for own, at in (here or {}).items():
            row *= size(own.extent) if at in c.bound else 1
        if row > WIDEST:
            return True
    return False
