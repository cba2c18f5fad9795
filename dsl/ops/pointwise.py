"""Pointwise mathematics: arithmetic, comparisons, logic, elementary functions, rounding, selection and conversion.

Each acts on expressions and, element by element, on tensors. Promotion is torch's: a Python number takes the dtype of the
other operand unless its kind is higher; integers become f32 where a float is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.dtype import Dtype, bool_, f32, i64, promote
from dsl.errors import DtypeError, UserError
from dsl.expr import Const, Expr, Tensor, as_expr, op
from dsl.expr import cast as cast_element
from dsl.expr import where as where_element
from dsl.ops.dispatch import Function, build, element_at, lift, names_of, operation, pointwise, scalar


def _define(name: str, opcode: str, doc: str, operands: int = 1) -> Function:
    """The public function of one operation of the opset."""
    def one(x: Any) -> Any:
        return op(opcode, x)

    def two(x: Any, y: Any) -> Any:
        return op(opcode, x, y)

    fn: Any = one if operands == 1 else two
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return pointwise(fn)


# -- elementary functions ------------------------------------------------------------------------------------------
exp = _define("exp", "exp", "e to the power of ``x``.")
exp2 = _define("exp2", "exp2", "2 to the power of ``x``.")
expm1 = _define("expm1", "expm1", "``exp(x) - 1``, accurate near 0.")
log = _define("log", "log", "Natural logarithm; -inf at 0, NaN below.")
log2 = _define("log2", "log2", "Logarithm to base 2.")
log10 = _define("log10", "log10", "Logarithm to base 10.")
log1p = _define("log1p", "log1p", "``log(1 + x)``, accurate near 0.")
sin = _define("sin", "sin", "Sine of radians.")
cos = _define("cos", "cos", "Cosine of radians.")
tan = _define("tan", "tan", "Tangent of radians.")
asin = _define("asin", "asin", "Inverse sine; NaN outside [-1, 1].")
acos = _define("acos", "acos", "Inverse cosine; NaN outside [-1, 1].")
atan = _define("atan", "atan", "Inverse tangent.")
atan2 = _define("atan2", "atan2", "The angle of the point (``y``, ``x``), from ``atan2(y, x)``.", 2)
sinh = _define("sinh", "sinh", "Hyperbolic sine.")
cosh = _define("cosh", "cosh", "Hyperbolic cosine.")
tanh = _define("tanh", "tanh", "Hyperbolic tangent.")
asinh = _define("asinh", "asinh", "Inverse hyperbolic sine.")
acosh = _define("acosh", "acosh", "Inverse hyperbolic cosine; NaN below 1.")
atanh = _define("atanh", "atanh", "Inverse hyperbolic tangent; NaN outside [-1, 1].")
erf = _define("erf", "erf", "The error function.")
erfc = _define("erfc", "erfc", "``1 - erf(x)``, accurate for large ``x``.")
lgamma = _define("lgamma", "lgamma", "Logarithm of the absolute value of the gamma function.")
sigmoid = _define("sigmoid", "sigmoid", "``1 / (1 + exp(-x))``, without overflow.")
sqrt = _define("sqrt", "sqrt", "Square root; NaN below 0.")
rsqrt = _define("rsqrt", "rsqrt", "``1 / sqrt(x)``.")

# -- arithmetic ----------------------------------------------------------------------------------------------------
add = _define("add", "add", "``x + y``; logical or on bools.", 2)
sub = _define("sub", "sub", "``x - y``.", 2)
mul = _define("mul", "mul", "``x * y``.", 2)
remainder = _define("remainder", "mod", "``x % y`` with the sign of ``y``, as in Python.", 2)
minimum = _define("minimum", "min", "The lesser of ``x`` and ``y``; NaN if either is.", 2)
maximum = _define("maximum", "max", "The greater of ``x`` and ``y``; NaN if either is.", 2)
neg = _define("neg", "neg", "``-x``.")
abs = _define("abs", "abs", "Absolute value.")
isnan = _define("isnan", "isnan", "Whether ``x`` is NaN.")
isinf = _define("isinf", "isinf", "Whether ``x`` is infinite.")
isfinite = _define("isfinite", "isfinite", "Whether ``x`` is neither infinite nor NaN.")

# -- comparisons and bits ------------------------------------------------------------------------------------------
equal = _define("equal", "eq", "``x == y``.", 2)
not_equal = _define("not_equal", "ne", "``x != y``.", 2)
less = _define("less", "lt", "``x < y``.", 2)
less_equal = _define("less_equal", "le", "``x <= y``.", 2)
greater = _define("greater", "gt", "``x > y``.", 2)
greater_equal = _define("greater_equal", "ge", "``x >= y``.", 2)
bitwise_and = _define("bitwise_and", "and", "``x & y`` on integers or bools.", 2)
bitwise_or = _define("bitwise_or", "or", "``x | y`` on integers or bools.", 2)
bitwise_xor = _define("bitwise_xor", "xor", "``x ^ y`` on integers or bools.", 2)
bitwise_not = _define("bitwise_not", "not", "``~x`` on integers or bools.")
left_shift = _define("left_shift", "shl", "``x << y``.", 2)
right_shift = _define("right_shift", "shr", "``x >> y``; keeps the sign of signed integers.", 2)


def _rounding(name: str, doc: str) -> Function:
    def fn(x: Any) -> Any:
        e = as_expr(x)
        return op(name, e) if e.dtype.is_float else e
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc + " Integers stay as they are."
    return pointwise(fn)


floor = _rounding("floor", "The greatest whole number not above ``x``.")
ceil = _rounding("ceil", "The least whole number not below ``x``.")
round = _rounding("round", "The nearest whole number, to even on ties.")
trunc = _rounding("trunc", "The whole part, rounded towards 0.")


_PRECISIONS = {"tf32": "tf32", "bf16x3": "bf16x3", "bf16": "as_bf16", "f16": "as_f16"}


@operation
def precision(x: Any, how: str) -> Any:
    """``x``, a factor of a sum of products that may be multiplied less exactly than f32.

    A permission, and part of the definition: it has no other effect than that a matrix unit may take the factor as ``tf32`` (10 bits of
    mantissa), as three products of bf16 parts (``bf16x3``, about 16 bits), or rounded to ``bf16`` or ``f16``. Sums are kept in f32 in any
    case. Without it products of f32 are exact to f32. CPUs do not use it. ``dlc.precision(x, "tf32") @ w``.

    Raises:
        DtypeError: ``x`` is not f32, or there is no such precision.
    """
    d = x.dtype if isinstance(x, Tensor) else as_expr(x).dtype
    if how not in _PRECISIONS:
        raise DtypeError(f"there is no precision {how!r}", remedy=f"one of {', '.join(_PRECISIONS)}")
    if d is not f32:
        raise DtypeError(f"precision of {d}", "only products of f32 can be made faster by giving up bits", "leave it away")
    return lift(lambda e: op(_PRECISIONS[how], e), "precision", (x,))


@pointwise
def sign(x: Any) -> Any:
    """-1, 0 or 1; a bool stays as it is."""
    e = as_expr(x)
    return e if e.dtype is bool_ else op("sign", e)


@pointwise
def square(x: Any) -> Any:
    """``x * x``; of a bool, in i64."""
    e = cast_element(x, i64) if as_expr(x).dtype is bool_ else as_expr(x)
    return op("mul", e, e)


@pointwise
def reciprocal(x: Any) -> Any:
    """``1 / x``."""
    return op("div", 1, as_expr(x))


def power(base: Expr, exponent: Any) -> Expr:
    """``base ** exponent``. Small constant exponents become products, square roots and reciprocals, as in torch.

    Raises:
        DtypeError: an integer raised to a negative number.
    """
    n = (exponent.value if isinstance(exponent, Const) and not exponent.dtype.is_float
         or isinstance(exponent, Const) and base.dtype.is_float else exponent)
    if isinstance(n, bool) or not isinstance(n, (int, float)):
        return op("pow", base, exponent)
    if not base.dtype.is_float:
        return _integer_power(base, n)
    if n == 1:
        return base
    if n == 3:
        return op("mul", op("mul", base, base), base)
    if n in _POWERS:
        return _POWERS[n](base)
    return op("pow", base, float(n))


def _integer_power(base: Expr, n: int | float) -> Expr:
    if isinstance(n, float):
        return op("pow", base, n)
    if base.dtype is bool_:
        base = cast_element(base, i64)  # a number is of a higher kind than a truth value
    if n < 0:
        raise DtypeError(f"integers cannot be raised to the negative power {n}", remedy="cast the base to a float first")
    if n == 2:
        return op("mul", base, base)
    return op("pow", base, n)


_POWERS: dict[float, Callable[[Expr], Expr]] = {
    0.5: lambda e: op("sqrt", e), -0.5: lambda e: op("rsqrt", e), -1: lambda e: op("div", 1, e), 2: lambda e: op("mul", e, e)}


@pointwise
def pow(x: Any, y: Any) -> Any:
    """``x ** y``. Small constant exponents become products, square roots and reciprocals, as in torch."""
    if isinstance(x, Expr):
        return power(x, y)
    return op("pow", as_expr(x, y if isinstance(y, Expr) else None), y)


@pointwise
def fmod(x: Any, y: Any) -> Any:
    """The remainder of ``x / y`` with the sign of ``x``, that of a zero too, as in C."""
    a, b = both(x, y)
    if not a.dtype.is_float:
        rest = op("mod", a, b)
        return where_element(_rounded_down(a, b, rest), op("sub", rest, b), rest) if a.dtype.signed else rest
    rest = op("mod", op("abs", a), op("abs", b))
    signed = where_element(op("lt", a, 0), op("neg", rest), rest)
    return where_element(op("eq", a, 0), op("sub", a, rest), signed)  # -0 - 0 is -0


def _rounded_down(a: Expr, b: Expr, rest: Expr) -> Expr:
    """Whether the quotient of signed integers with that remainder (of the sign of ``b``) is below the true one, where it is negative."""
    return op("and", op("ne", rest, 0), op("ne", op("lt", a, 0), op("lt", b, 0)))


def both(x: Any, y: Any) -> tuple[Expr, Expr]:
    """Two operands in their common dtype."""
    a = as_expr(x, y if isinstance(y, Expr) else None)
    b = as_expr(y, a)
    common = promote(a.dtype, b.dtype)
    return cast_element(a, common), cast_element(b, common)


@pointwise
def floordiv(x: Any, y: Any) -> Any:
    """``x // y`` rounded towards minus infinity, as in Python: of floats too, where it is the quotient that belongs to ``x % y``."""
    return op("floordiv", *both(x, y))


@pointwise
def true_divide(x: Any, y: Any) -> Any:
    """``x / y``; integers give f32."""
    return op("div", x, y)


@operation
def div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    """``x / y``; integers give f32. With ``rounding_mode`` ``"floor"`` it is ``x // y``, with ``"trunc"`` rounded towards 0."""
    if rounding_mode is None:
        return true_divide(x, y)
    if rounding_mode == "floor":
        return floordiv(x, y)
    if rounding_mode != "trunc":
        raise UserError(f"div: rounding_mode is {rounding_mode!r}", remedy="None, 'floor' or 'trunc'")
    return _truncated(x, y)


@pointwise
def _truncated(x: Any, y: Any) -> Any:
    a, b = both(x, y)
    if a.dtype.is_float:
        return op("trunc", op("div", a, b))
    q = op("floordiv", a, b)
    return where_element(_rounded_down(a, b, op("mod", a, b)), op("add", q, 1), q) if a.dtype.signed else q


@pointwise
def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """``x`` limited to ``[min, max]``; either may be None. NaN stays; where ``min > max`` the result is ``max``."""
    e = as_expr(x) if min is None else op("max", x, min)
    return e if max is None else op("min", e, max)


clamp = clip


@pointwise
def clamp_min(x: Any, min: Any) -> Any:
    """``x``, but not below ``min``."""
    return op("max", x, min)


@pointwise
def clamp_max(x: Any, max: Any) -> Any:
    """``x``, but not above ``max``."""
    return op("min", x, max)


@pointwise
def detach(x: Any) -> Any:
    """``x``, through which no derivative flows."""
    return op("detach", x)


# -- logic ---------------------------------------------------------------------------------------------------------
def _truth(x: Any) -> Expr:
    return cast_element(x, bool_)


@pointwise
def logical_and(x: Any, y: Any) -> Any:
    """Whether both are true (not zero)."""
    return op("and", _truth(x), _truth(y))


@pointwise
def logical_or(x: Any, y: Any) -> Any:
    """Whether either is true (not zero)."""
    return op("or", _truth(x), _truth(y))


@pointwise
def logical_xor(x: Any, y: Any) -> Any:
    """Whether just one is true (not zero)."""
    return op("xor", _truth(x), _truth(y))


@pointwise
def logical_not(x: Any) -> Any:
    """Whether ``x`` is false (zero)."""
    return op("not", _truth(x))


# -- by torch's names ----------------------------------------------------------------------------------------------
eq, ne, lt, le, gt, ge = equal, not_equal, less, less_equal, greater, greater_equal
subtract, multiply, divide, floor_divide, negative, absolute = sub, mul, div, floordiv, neg, abs
arcsin, arccos, arctan, arctan2, arcsinh, arccosh, arctanh = asin, acos, atan, atan2, asinh, acosh, atanh
bitwise_left_shift, bitwise_right_shift, fix = left_shift, right_shift, trunc


# -- selection and conversion --------------------------------------------------------------------------------------
@pointwise
def where(cond: Any, a: Any, b: Any) -> Any:
    """``a`` where ``cond`` else ``b``; in a body, the reads of a branch need only be in bounds where it is taken."""
    return where_element(cond, a, b)


@operation
def cast(x: Any, dtype: Dtype) -> Any:
    """``x`` converted to ``dtype``: floats round to nearest even, float to integer truncates, to bool tests ``!= 0``."""
    if not isinstance(x, Tensor):
        return cast_element(scalar(x, "cast"), dtype)
    if x.dtype == dtype:
        return x
    return build(dtype.name, x.shape, lambda *at: cast_element(element_at(x, at), dtype), names_of(x))
