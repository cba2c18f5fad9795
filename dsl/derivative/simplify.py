"""What keeps derivative expressions small: one table of identities, applied bottom-up.

Zero and one fold away, signs move outwards, products enter a ``where`` one of whose branches is zero (so that a branch
not taken never turns an infinity into NaN), and comparisons of index terms are decided by :func:`dsl.dim.nonneg`.
``x * 0`` is 0 here although ``inf * 0`` is not: a factor that is zero by construction carries no derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dsl.algebra import reads, transform
from dsl.carrier import SUM
from dsl.dim import Term, Var, as_term, nonneg, product
from dsl.dtype import Dtype, bool_
from dsl.expr import Cast, Const, Expr, Index, Op, Reduce, Where, cast, const, index, op, reduce, where

Facts = Sequence[Term]
Rule = Callable[[tuple[Expr, ...], Dtype], "Expr | None"]


def zero(dtype: Dtype) -> Expr:
    """The literal 0 of a dtype."""
    return const(0, dtype)


def is_value(e: Expr, value: float) -> bool:
    """Whether ``e`` is the literal ``value``."""
    return isinstance(e, Const) and e.value == value


def is_op(e: Expr, name: str) -> bool:
    """Whether ``e`` applies the operation ``name``."""
    return isinstance(e, Op) and e.name == name


def add(a: Expr, b: Expr) -> Expr:
    """``a + b``, folded."""
    return fold(op("add", a, b))


def mul(a: Expr, b: Expr) -> Expr:
    """``a * b``, folded."""
    return fold(op("mul", a, b))


def select(cond: Expr, a: Expr, b: Expr) -> Expr:
    """``where(cond, a, b)``, folded."""
    return fold(where(cond, a, b))


def negate(cond: Expr) -> Expr:
    """The opposite condition; comparisons of integers are turned round instead of wrapped."""
    return fold(op("not", cond))


def conjuncts(cond: Expr) -> list[Expr]:
    """The conditions that ``&`` joins."""
    return [c for a in cond.args for c in conjuncts(a)] if is_op(cond, "and") else [cond]


def simplify(e: Expr, facts: Facts = ()) -> Expr:
    """``e`` with every identity of this module applied, given that each term of ``facts`` is at least 0."""
    return transform(e, lambda node: fold(node, facts))


def fold(e: Expr, facts: Facts = ()) -> Expr:
    """One node, its operands already folded."""
    if isinstance(e, Op):
        if e.name in _COMPARISONS:
            known = decide(e, facts)
            return e if known is None else const(known, bool_)
        folded = _constant(e)
        if folded is None and e.name in _RULES:
            folded = _RULES[e.name](e.args, e.dtype)
        return e if folded is None else folded
    if isinstance(e, Where):
        selected = _where(e.args[0], e.args[1], e.args[2])
        return e if selected is None else selected
    if isinstance(e, Cast):
        x = e.args[0]
        if isinstance(x, Index) and x.term.is_const and e.dtype.is_float:
            return const(x.term.const, e.dtype)
        return const(x.value, e.dtype) if isinstance(x, Const) and x.dtype.is_float and e.dtype.is_float else e
    if isinstance(e, Reduce) and e.carrier == SUM and is_value(e.args[0], 0):
        return zero(e.dtype)
    return e


# -- index comparisons ---------------------------------------------------------------------------------------------
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def integer_term(e: Expr) -> Term | None:
    """The index term an integer expression is, or None."""
    if isinstance(e, Index):
        return e.term
    return as_term(int(e.value)) if isinstance(e, Const) and e.dtype.is_int else None


def as_facts(cond: Expr) -> list[Term]:
    """Terms that are at least 0 when the index comparison ``cond`` holds."""
    if not isinstance(cond, Op) or cond.name not in _COMPARISONS:
        return []
    a, b = integer_term(cond.args[0]), integer_term(cond.args[1])
    if a is None or b is None:
        return []
    return {"lt": [b - a - 1], "le": [b - a], "gt": [a - b - 1], "ge": [a - b], "eq": [a - b, b - a], "ne": []}[cond.name]


def decide(e: Expr, facts: Facts = ()) -> bool | None:
    """Whether a comparison of index terms holds for every value of its variables, or for none; None when not proved."""
    if isinstance(e, Const):
        return bool(e.value)
    if not isinstance(e, Op) or e.name not in _COMPARISONS:
        return None
    a, b = integer_term(e.args[0]), integer_term(e.args[1])
    if a is None or b is None:
        return None
    if e.name in ("eq", "ne"):
        same = a == b or (nonneg(a - b, facts) and nonneg(b - a, facts))
        differ = not same and (nonneg(a - b - 1, facts) or nonneg(b - a - 1, facts))
        return (same == (e.name == "eq")) if same or differ else None
    low, high, slack = {"lt": (a, b, 1), "le": (a, b, 0), "gt": (b, a, 1), "ge": (b, a, 0)}[e.name]
    if nonneg(high - low - slack, facts):
        return True
    return False if nonneg(low - high - (1 - slack), facts) else None


# -- the table -----------------------------------------------------------------------------------------------------
def _constant(e: Op) -> Expr | None:
    """Arithmetic on literals, where it cannot fail or change a non-finite value."""
    values = [a.value for a in e.args if isinstance(a, Const)]
    if len(values) != len(e.args) or not e.dtype.is_float or any(abs(v) > 1e15 or v != v for v in values):
        return None
    if e.name == "div":
        return const(values[0] / values[1], e.dtype) if values[1] else None
    table: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a}
    return const(table[e.name](*values), e.dtype) if e.name in table else None


def _add(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    a, b = x
    if is_value(a, 0) or is_value(b, 0):
        return b if is_value(a, 0) else a
    if a is b:
        return mul(a, const(2, dtype))
    if is_op(b, "neg"):
        return fold(op("sub", a, b.args[0]))  # a + -b = a - b
    if is_op(a, "neg"):
        return fold(op("sub", b, a.args[0]))
    if isinstance(a, Where) and isinstance(b, Where) and a.args[0] is b.args[0] and _has_zero(a) and _has_zero(b):
        return select(a.args[0], add(a.args[1], b.args[1]), add(a.args[2], b.args[2]))
    return None


def _sub(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    a, b = x
    if is_value(b, 0):
        return a
    if is_value(a, 0):
        return fold(op("neg", b))
    if is_op(b, "neg"):
        return add(a, b.args[0])  # a - -b = a + b
    if a is b and not dtype.is_float:
        return zero(dtype)
    return None


def _mul(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    for a, b in (x, x[::-1]):
        if is_value(a, 0):
            return zero(dtype)
        if is_value(a, 1):
            return b
        if is_value(a, -1):
            return fold(op("neg", b))
        if is_op(a, "neg"):
            return fold(op("neg", mul(a.args[0], b)))  # -a * b = -(a * b)
        if isinstance(a, Const) and is_op(b, "mul") and isinstance(b.args[1], Const):
            return mul(b.args[0], fold(op("mul", a, b.args[1])))  # (b * c) * d = b * (c * d)
        if is_op(a, "div") and is_value(a.args[0], 1):
            return fold(op("div", b, a.args[1]))  # 1/a * b = b / a
        if isinstance(a, Where) and _has_zero(a):
            return select(a.args[0], mul(a.args[1], b), mul(a.args[2], b))  # where(c, a, 0) * b = where(c, a*b, 0)
    return op("mul", x[1], x[0]) if isinstance(x[0], Const) and not isinstance(x[1], Const) else None


def _div(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    a, b = x
    if is_value(a, 0):
        return zero(dtype)
    if is_value(b, 1):
        return a
    if is_op(a, "neg"):
        return fold(op("neg", fold(op("div", a.args[0], b))))
    if isinstance(a, Where) and _has_zero(a):
        return select(a.args[0], fold(op("div", a.args[1], b)), fold(op("div", a.args[2], b)))
    return None


def _neg(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    (a,) = x
    if is_op(a, "neg"):
        return a.args[0]
    if is_op(a, "mul") and isinstance(a.args[1], Const):
        return mul(a.args[0], fold(op("neg", a.args[1])))
    if isinstance(a, Where) and _has_zero(a):
        return select(a.args[0], fold(op("neg", a.args[1])), fold(op("neg", a.args[2])))
    return None


def _pow(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    a, b = x
    if is_value(b, 0):
        return const(1, dtype)
    if is_value(b, 1):
        return a
    return op("mul", a, a) if is_value(b, 2) else None


def _and(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    if dtype is not bool_:
        return None
    a, b = x
    if is_value(a, 0) or is_value(b, 0):
        return const(False, bool_)
    if is_value(a, 1) or a is b:
        return b
    return a if is_value(b, 1) else None


def _or(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    if dtype is not bool_:
        return None
    a, b = x
    if is_value(a, 1) or is_value(b, 1):
        return const(True, bool_)
    if is_value(a, 0) or a is b:
        return b
    return a if is_value(b, 0) else None


def _not(x: tuple[Expr, ...], dtype: Dtype) -> Expr | None:
    (a,) = x
    if dtype is not bool_:
        return None
    if isinstance(a, Const):
        return const(not a.value, bool_)
    if is_op(a, "not"):
        return a.args[0]
    if isinstance(a, Op) and a.name in _OPPOSITE and (not a.args[0].dtype.is_float or a.name in ("eq", "ne")):
        return fold(op(_OPPOSITE[a.name], *a.args))
    return None


_RULES: dict[str, Rule] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "pow": _pow, "and": _and, "or": _or, "not": _not,
}


def _has_zero(w: Where) -> bool:
    return is_value(w.args[1], 0) or is_value(w.args[2], 0)


def _where(cond: Expr, a: Expr, b: Expr) -> Expr | None:
    if isinstance(cond, Const):
        return a if cond.value else b
    if a is b:
        return a
    if is_op(cond, "not"):
        return select(cond.args[0], b, a)
    if isinstance(a, Where) and a.args[0] is cond:
        return select(cond, a.args[1], b)
    if isinstance(b, Where) and b.args[0] is cond:
        return select(cond, a, b.args[2])
    if isinstance(a, Where) and is_value(b, 0) and is_value(a.args[2], 0) and not reads(a.args[0]):
        return where(op("and", cond, a.args[0]), a.args[1], b)
    return None


# -- guards and sums -----------------------------------------------------------------------------------------------
def guarded(conditions: Iterable[Expr], value: Expr) -> Expr:
    """``value`` where every condition holds, else 0; what the others imply is dropped, and ``value`` is simplified with them."""
    kept = _needed(conditions)
    if kept is None:
        return zero(value.dtype)
    value = simplify(value, [f for k in kept for f in as_facts(k)])
    for c in kept:
        value = transform(value, functools.partial(_given, c))
    if is_value(value, 0):
        return value
    memory = [bool(reads(c)) for c in kept]
    for level in (True, False):  # a condition that reads is itself evaluated only where those that do not read hold
        some = [c for c, m in zip(kept, memory) if m is level]
        if some:
            value = select(functools.reduce(lambda a, b: op("and", a, b), some), value, zero(value.dtype))
    return value


def _needed(conditions: Iterable[Expr]) -> list[Expr] | None:
    """The distinct conditions that do not follow from the others; None when they contradict each other."""
    kept: list[Expr] = []
    for cond in conditions:
        for c in conjuncts(simplify(cond)):
            if decide(c) is not True and not any(c is k for k in kept):
                kept.append(c)
    for c in list(kept):
        known = decide(c, [f for k in kept if k is not c for f in as_facts(k)])
        if known is False:
            return None
        if known:
            kept = [k for k in kept if k is not c]
    return kept


def total(value: Expr, loops: tuple[Var, ...]) -> Expr:
    """``sum[loops](value)`` with the factors and conditions that do not vary moved out of the sum."""
    if not loops or is_value(value, 0):
        return value
    if isinstance(value, Where) and is_value(value.args[2], 0):
        fixed = [c for c in conjuncts(value.args[0]) if not c.free & set(loops)]
        if fixed:
            varying = [c for c in conjuncts(value.args[0]) if c.free & set(loops)]
            return guarded(fixed, total(guarded(varying, value.args[1]), loops))
    over, under = factors(value)
    out = [f for f in over if not f.free & set(loops)], [f for f in under if not f.free & set(loops)]
    inside = [f for f in over if f.free & set(loops)], [f for f in under if f.free & set(loops)]
    if not any(inside):
        count = product(v.extent for v in loops if v.extent is not None)
        return mul(value, const(count.const, value.dtype) if count.is_const else fold(cast(index(count), value.dtype)))
    if not any(out):
        return reduce(SUM, (value,), loops)
    return quotient([*out[0], reduce(SUM, (quotient(*inside, value.dtype),), loops)], out[1], value.dtype)


def _given(condition: Expr, e: Expr) -> Expr | None:
    """An expression folded where a condition is known to hold."""
    return const(True, bool_) if e is condition else fold(e)


def factors(e: Expr) -> tuple[list[Expr], list[Expr]]:
    """Factors of the numerator and the denominator of a product."""
    if is_op(e, "mul"):
        (a, b), (c, d) = factors(e.args[0]), factors(e.args[1])
        return a + c, b + d
    if is_op(e, "div"):
        (a, b), (c, d) = factors(e.args[0]), factors(e.args[1])
        return a + d, b + c
    if is_op(e, "neg"):
        a, b = factors(e.args[0])
        return [const(-1, e.dtype), *a], b
    return ([] if is_value(e, 1) else [e]), []


def quotient(over: list[Expr], under: list[Expr], dtype: Dtype) -> Expr:
    """The product of some factors, divided by others."""
    value: Expr = const(1, dtype)
    for f in over:
        value = mul(value, f)
    for f in under:
        value = fold(op("div", value, f))
    return value
