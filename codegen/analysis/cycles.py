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
    return sum(_of(e, target) * max(1, e.dtype.bits // f32.bits) for e in walk(body) if isinstance(e, (Op, Cast)))


def _of(e: Expr, target: Target) -> float:
    return 0.5 if not isinstance(e, Op) or (e.name == "div" and _is_power(e.args[1])) else vector_cycles(e.name, target)


def vector_cycles(name: str, target: Target) -> float:
    """Cycles between the starts of two operations of a name on vectors of f32."""
    known = 0.5 if name == "fma" else dict(target.slow).get(name)  # both of its operations are one instruction
    return known if known is not None else 0.5 * (OPS[name].flops if name in OPS else 1)


def _is_power(e: Expr) -> bool:
    """Whether dividing by it is multiplying by its reciprocal: it is a power of two."""
    return isinstance(e, Const) and e.value != 0 and math.isfinite(e.value) and abs(math.frexp(e.value)[0]) == 0.5


def level(target: Target, size: int) -> int:
    """The level of cache, counted from 0, that holds so many bytes and as much beside them; the number of levels where none does."""
    return next((n for n, room in enumerate(target.caches) if 2 * size <= room), len(target.caches))
