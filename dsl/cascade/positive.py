"""Which values are positive whatever the data: factors that a maximum lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dsl.carrier import MAX, MIN, SUM
from dsl.cascade.model import Component
from dsl.expr import Cast, Const, Expr, Op, Read


def positive(e: Expr, components: Iterable[Component]) -> bool:
    """Whether an expression is above zero in exact arithmetic, where it is a number.

    Args:
        e: over reads of components.
        components: reductions whose elements tell the signs of their results.
    """
    known = {x.read(): x for x in components}

    def sign(n: Expr) -> int:
        if isinstance(n, Const):
            return POSITIVE if n.value > 0 else NOT_NEGATIVE if n.value == 0 else UNKNOWN
        if isinstance(n, Cast):
            return sign(n.args[0]) if n.dtype.is_float else UNKNOWN
        if isinstance(n, Read) and n in known:
            x = known[n]
            return sign(x.element[0]) if x.tensor.body.data[0] in (SUM, MAX, MIN) else UNKNOWN
        if isinstance(n, Op) and n.name in _RULES:
            square = n.name == "mul" and n.args[0] is n.args[1]
            return max(NOT_NEGATIVE if square else UNKNOWN, _RULES[n.name](*map(sign, n.args)))
        return UNKNOWN

    return sign(e) == POSITIVE


UNKNOWN, NOT_NEGATIVE, POSITIVE = 0, 1, 2

# what is known of a result from what is known of the operands
_RULES: dict[str, Callable[..., int]] = {
    "exp": lambda a: POSITIVE, "exp2": lambda a: POSITIVE, "sigmoid": lambda a: POSITIVE,
    "abs": lambda a: max(a, NOT_NEGATIVE), "sqrt": lambda a: a, "rsqrt": lambda a: a if a == POSITIVE else UNKNOWN,
    "mul": min, "min": min, "max": max, "add": lambda a, b: max(a, b) if min(a, b) else UNKNOWN,
    "div": lambda a, b: a if b == POSITIVE else UNKNOWN,
}
