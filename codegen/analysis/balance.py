"""Whether the points of a grid have unequal work: loops that run as far as a diagonal, and not only ragged ends."""

from __future__ import annotations

import math
from collections.abc import Mapping

from codegen.tile.ir import Block, For, Phase
from dsl.dim import Term, Var

_STAND_IN = 64  # a size that nobody knows
_APART = 1.1  # the ratio of work above which points are unequal


def growth(phase: Phase) -> int:
    """1 where points half way along an axis of the grid have more work than the first ones, -1 where they have less, else 0.

    Work is operations times rounds of loops. The last points are not asked: their ends may be ragged.
    """
    first: dict[Var, int] = {v: 0 for v, _ in phase.grid}
    moving = _moving(phase.body) & set(first)
    if not moving:
        return 0
    start = _work(phase.body, first)
    found = [_work(phase.body, first | {v: int(_value(n, first)) // 2}) for v, n in phase.grid if v in moving]
    most, least = max(found), min(found)
    return 1 if most > _APART * start else -1 if start > _APART * least else 0


def _moving(block: Block) -> set[Var]:
    """The variables that bounds of loops depend on."""
    out: set[Var] = set()
    for op in block.ops:
        out |= {*op.lo.vars, *op.hi.vars} if isinstance(op, For) else set()
        out |= {v for b in op.blocks() for v in _moving(b)}
    return out


def _work(block: Block, at: Mapping[Var, int]) -> float:
    """Operations of a block, those of a loop by the rounds it has, inside of other loops half way through them."""
    total = 0.0
    for op in block.ops:
        if isinstance(op, For):
            lo, hi = _value(op.lo, at), _value(op.hi, at)
            total += max(hi - lo, 0) * _work(op.body, {**at, op.var: int(lo + hi) // 2})
            continue
        total += math.prod(a.size for v in op.results for a in v.axes) + sum(_work(b, at) for b in op.blocks())
    return total


def _value(t: Term, at: Mapping[Var, int]) -> float:
    """A term at a point; sizes that are not known as they are likely to be."""
    return float(t.eval({v: at.get(v, v.likely or _STAND_IN) for v in t.vars}))
