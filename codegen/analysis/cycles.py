"""Cycles of what a map computes, and where its results lie, by the data of a target."""

from __future__ import annotations

import math

from codegen.target.model import Target
from dsl.algebra import walk
from dsl.dtype import f32
from dsl.expr import Cast, Const, Expr, Op
from dsl.opset import OPS


def cycles(body: Expr, target: Target) -> float:
    """Cycles between the starts of two evaluations of a body on whole vectors of f32, where nothing waits."""
    slow = dict(target.slow)
    return sum(_of(e, slow) * max(1, e.dtype.bits // f32.bits) for e in walk(body) if isinstance(e, (Op, Cast)))


def _of(e: Expr, slow: dict[str, float]) -> float:
    if not isinstance(e, Op) or (e.name == "div" and _is_power(e.args[1])):
        return 0.5
    return slow.get(e.name, 0.5 * OPS[e.name].flops)


def _is_power(e: Expr) -> bool:
    """Whether dividing by it is multiplying by its reciprocal: it is a power of two."""
    return isinstance(e, Const) and e.value != 0 and math.isfinite(e.value) and abs(math.frexp(e.value)[0]) == 0.5


def level(target: Target, size: int) -> int:
    """The level of cache, counted from 0, that holds so many bytes and as much beside them; the number of levels where none does."""
    return next((n for n, room in enumerate(target.caches) if 2 * size <= room), len(target.caches))
