"""The pointwise derivative rules: one line per operation, used by reverse and forward mode alike.

A rule takes the operands and the result ``y`` and gives one partial derivative per operand: an expression, a number, or
None where the derivative is zero everywhere (or is not defined because the operand has no direction to move in).
At kinks the rules follow PyTorch: ``abs'(0) = 0``, both operands of an equal ``max``/``min`` get a half, and with a literal
operand the other gets 0 there (relu, clamp).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dsl.algebra import walk
from dsl.derivative.simplify import add, fold, mul, select, zero
from dsl.dtype import Dtype
from dsl.errors import DerivativeError
from dsl.expr import Cast, Const, Expr, Op, Where, cast, const, op, where
from dsl.ops.compound import digamma_element
from dsl.opset import PRECISIONS

Partials = tuple[Any, ...]
_LN2, _LN10 = math.log(2), math.log(10)

def _power(a: Any, b: Any, y: Any) -> Partials:
    """``b * a**(b-1)`` and ``y * log(a)``, each 0 where PyTorch makes it 0."""
    if isinstance(b, Const):
        return mul(fold(op("pow", a, b.value - 1)), const(b.value, a.dtype)), None
    by_base = where(op("eq", b, 0), zero(a.dtype), b * op("pow", a, b - 1))
    return by_base, where(op("and", op("eq", a, 0), b >= 0), zero(a.dtype), y * op("log", a))


def _extremum(better: str) -> Callable[[Expr, Expr, Expr], Partials]:
    def rule(a: Expr, b: Expr, y: Expr) -> Partials:
        if isinstance(a, Const) or isinstance(b, Const):
            moving, fixed = (b, a) if isinstance(a, Const) else (a, b)
            part = select(op(better, moving, fixed), const(1, a.dtype), zero(a.dtype))
            return (None, part) if isinstance(a, Const) else (part, None)
        tie = select(op("eq", a, b), const(0.5, a.dtype), zero(a.dtype))
        return tuple(select(op(better, p, q), const(1, a.dtype), tie) for p, q in ((a, b), (b, a)))
    return rule


def _constant(*_: Expr) -> Partials:
    return (None, None, None)


RULES: dict[str, Callable[..., Partials]] = {
    # arithmetic
    "add": lambda a, b, y: (1, 1),
    "sub": lambda a, b, y: (1, -1),
    "mul": lambda a, b, y: (b, a),
    "div": lambda a, b, y: (1 / b, -(y / b)),
    "fma": lambda a, b, c, y: (b, a, 1),
    "neg": lambda a, y: (-1,),
    "abs": lambda a, y: (op("sign", a),),
    "pow": _power,
    "mod": lambda a, b, y: (1, op("neg", op("floor", a / b))),
    "max": _extremum("gt"),
    "min": _extremum("lt"),
    "atan2": lambda a, b, y: (b / (a * a + b * b), -(a / (a * a + b * b))),
    # exponentials and logarithms
    "exp": lambda a, y: (y,),
    "exp2": lambda a, y: (y * _LN2,),
    "expm1": lambda a, y: (y + 1,),
    "log": lambda a, y: (1 / a,),
    "log2": lambda a, y: (1 / (a * _LN2),),
    "log10": lambda a, y: (1 / (a * _LN10),),
    "log1p": lambda a, y: (1 / (a + 1),),
    "sigmoid": lambda a, y: (y * (1 - y),),
    # trigonometric and hyperbolic
    "sin": lambda a, y: (op("cos", a),),
    "cos": lambda a, y: (op("neg", op("sin", a)),),
    "tan": lambda a, y: (y * y + 1,),
    "asin": lambda a, y: (op("rsqrt", 1 - a * a),),
    "acos": lambda a, y: (op("neg", op("rsqrt", 1 - a * a)),),
    "atan": lambda a, y: (1 / (a * a + 1),),
    "sinh": lambda a, y: (op("cosh", a),),
    "cosh": lambda a, y: (op("sinh", a),),
    "tanh": lambda a, y: (1 - y * y,),
    "asinh": lambda a, y: (op("rsqrt", a * a + 1),),
    "acosh": lambda a, y: (op("rsqrt", a * a - 1),),
    "atanh": lambda a, y: (1 / (1 - a * a),),
    # special functions and roots
    "erf": lambda a, y: (op("mul", op("exp", -(a * a)), 2 / math.sqrt(math.pi)),),
    "erfc": lambda a, y: (op("mul", op("exp", -(a * a)), -2 / math.sqrt(math.pi)),),
    "lgamma": lambda a, y: (digamma_element(a),),
    "sqrt": lambda a, y: (0.5 / y,),
    "rsqrt": lambda a, y: (y * y * y * -0.5,),
    # permissions to multiply less exactly, and to hold a value more exactly
    **dict.fromkeys((*PRECISIONS, "unrounded"), lambda a, y: (1,)),
    # steps: zero wherever they have a derivative
    **dict.fromkeys(("floordiv", "sign", "floor", "ceil", "round", "trunc", "detach"), _constant),
}
"""Operations on floats that are missing here give no float: comparisons, tests and integer logic."""


def partials(node: Op, y: Expr) -> tuple[Expr | None, ...]:
    """The partial derivative of ``node`` with respect to each operand; ``y`` is an expression of its value.

    Raises:
        DerivativeError: the operation gives a float and has no rule.
    """
    if node.name not in RULES:
        raise DerivativeError(f"`{node.name}` has no derivative rule", loc=node.loc)
    found = RULES[node.name](*node.args, y)
    return tuple(_as_partial(p, node.dtype) for p in found[:len(node.args)])


def _as_partial(p: Any, dtype: Dtype) -> Expr | None:
    return p if p is None or isinstance(p, Expr) else const(p, dtype)


def moves(e: Expr) -> tuple[Expr, ...]:
    """The operands through which a derivative flows: floats of a float operation, never a condition."""
    if not e.dtype.is_float:
        return ()
    if isinstance(e, Where):
        return e.args[1:]
    return tuple(a for a in e.args if a.dtype.is_float) if isinstance(e, (Op, Cast)) else ()


def tangent(root: Expr, tangents: Mapping[Expr, Expr]) -> Expr:
    """The directional derivative of a pointwise expression, given those of some of its nodes; all others are constants.

    A branch of a ``where`` that is not taken contributes nothing, not even a NaN.
    """
    memo: dict[Expr, Expr] = dict(tangents)
    for node in walk(root):
        if node in memo or not any(m in memo for m in moves(node)):
            continue
        if isinstance(node, Where):
            memo[node] = select(node.args[0], *(memo.get(b, zero(node.dtype)) for b in node.args[1:]))
        elif isinstance(node, Cast):
            memo[node] = fold(cast(memo[node.args[0]], node.dtype))
        elif isinstance(node, Op):
            out: Expr = zero(node.dtype)
            for a, p in zip(node.args, partials(node, node)):
                if p is not None and a in memo:
                    out = add(out, mul(memo[a], p))
            memo[node] = out
    return memo.get(root, zero(root.dtype))
