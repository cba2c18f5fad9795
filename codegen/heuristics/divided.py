"""Sums over an axis of which an operand is read at the quotient and at the remainder by a number.

Heads that are merged before a projection, patches of an image before a product: ``sum_k x[i, k // 64, k % 64] * w[j, k]``. The quotient and
the remainder become the axes of the sum, so that no address in its inner loop takes a division.
"""

from __future__ import annotations

from codegen.analysis.access import Strides, read_access
from dsl.algebra import reads
from dsl.dim import Div, Mod, Term, Var, as_term
from dsl.nest import Nest, Stage
from dsl.primitives.axes import part_axis


def part_sums(nest: Nest, strides: Strides) -> Nest:
    """Give sums the axes that their operands have in memory."""
    for s in nest.stages:
        if s.kind == "reduce" and s.attach is None and not s.relations and not s.states:
            while (found := _divided(nest[s.name], strides)) is not None:
                nest = part_axis(nest, s.name, *found)
    return nest


def _divided(s: Stage, strides: Strides) -> tuple[str, int] | None:
    """An axis of a sum, by name, and the largest number that an address divides it by, where that parts it evenly."""
    for v, name in s.axis_names().items():
        offsets = (read_access(r, strides).offset for t in s.tensors for r in reads(t.body)) if v in s.bound else ()
        divisors = {n for o in offsets if o is not None for n in _divisors(o, v) if v.extent is not None and v.extent % n == 0}
        if divisors:
            return name, max(divisors)
    return None


def _divisors(offset: Term, v: Var) -> set[int]:
    return {a.den.const for mono in offset.parts for a in mono if isinstance(a, (Div, Mod)) and a.num == as_term(v) and a.den.is_const}
