"""Pointwise functions made of several operations; their derivatives follow from those."""

from __future__ import annotations

import math
from typing import Any

from dsl.dtype import Dtype, f32
from dsl.expr import Expr, as_expr, cast, const, op, where
from dsl.ops.dispatch import pointwise
from dsl.ops.pointwise import both

# The dtype of digamma's asymptotic series is the operand's; eight steps of the recurrence bring 0.5 to where six terms give 1e-15.
_SERIES = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760)


def digamma_element(x: Any) -> Expr:
    """The derivative of ``lgamma`` at an element: recurrence to ``x >= 8.5``, then the asymptotic series; reflection below one half."""
    left = x < 0.5
    z: Any = where(left, 1 - x, x)
    shifted: Any = z + 8
    inverse: Any = 1 / (shifted * shifted)
    series: Any = const(0, x.dtype)
    for c in reversed(_SERIES):
        series = (series + c) * inverse
    log: Any = op("log", shifted)
    value = log - 0.5 / shifted + series
    for n in range(8):
        term: Any = z + n
        value = value - 1 / term
    tangent_: Any = op("tan", x * math.pi)
    return where(left, value - math.pi / tangent_, value)


@pointwise
def hypot(x: Any, y: Any) -> Any:
    """``sqrt(x**2 + y**2)``, without overflow."""
    a, b = both(x, y)
    low, high = op("min", op("abs", a), op("abs", b)), op("max", op("abs", a), op("abs", b))
    ratio = op("div", low, high)
    size = op("mul", high, op("sqrt", op("add", op("mul", ratio, ratio), 1.0)))
    infinite = op("or", op("eq", op("abs", a), math.inf), op("eq", op("abs", b), math.inf))
    return where(op("eq", high, 0), high, where(infinite, math.inf, size))


@pointwise
def xlogy(x: Any, y: Any) -> Any:
    """``x * log(y)``, and 0 where ``x`` is 0 unless ``y`` is NaN."""
    a, b = both(x, y)
    a, b = (cast(v, f32) if not v.dtype.is_float else v for v in (a, b))
    product = op("mul", a, op("log", b))
    return where(op("isnan", b), b, where(op("eq", a, 0), op("mul", a, 0.0), product))


@pointwise
def copysign(x: Any, y: Any) -> Any:
    """The magnitude of ``x`` with the sign of ``y``, that of a zero too."""
    a, b = both(x, y)
    a, b = (cast(v, f32) if not v.dtype.is_float else v for v in (a, b))
    size = op("abs", a)
    negative = where(op("eq", b, 0), op("lt", op("div", 1.0, b), 0), op("lt", b, 0))
    return where(negative, op("neg", size), size)


@pointwise
def heaviside(x: Any, values: Any) -> Any:
    """0 below 0 and for NaN, 1 above, and ``values`` at 0."""
    a, b = both(x, values)
    return where(op("eq", a, 0), b, cast(op("gt", a, 0), a.dtype))


@pointwise
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """``x`` with NaN and infinities replaced; the infinities by the greatest and least number of the dtype unless given."""
    e = as_expr(x)
    if not e.dtype.is_float:
        return e
    most = finest_max(e.dtype)
    high, low = most if posinf is None else posinf, -most if neginf is None else neginf
    return where(op("isnan", e), nan, where(op("eq", e, math.inf), high, where(op("eq", e, -math.inf), low, e)))


def finest_max(dtype: Dtype) -> float:
    """The greatest finite number of a float dtype."""
    return {"f64": 1.7976931348623157e308, "f32": 3.4028234663852886e38, "f16": 65504.0, "bf16": 3.3895313892515355e38,
            "f8e4m3": 448.0, "f8e5m2": 57344.0}[dtype.name]


@pointwise
def frac(x: Any) -> Any:
    """``x - trunc(x)``."""
    return op("sub", x, op("trunc", x))


@pointwise
def logit(x: Any, eps: float | None = None) -> Any:
    """``log(x / (1 - x))``, with ``x`` limited to ``[eps, 1 - eps]`` first when ``eps`` is given."""
    e = as_expr(x)
    e = cast(e, f32) if not e.dtype.is_float else e
    e = e if eps is None else op("min", op("max", e, eps), 1.0 - eps)
    return op("log", op("div", e, op("sub", 1.0, e)))


@pointwise
def sinc(x: Any) -> Any:
    """``sin(pi x) / (pi x)``, and 1 at 0."""
    e = as_expr(x)
    e = cast(e, f32) if not e.dtype.is_float else e
    angle = op("mul", e, math.pi)
    return where(op("eq", e, 0), 1.0, op("div", op("sin", angle), angle))


@pointwise
def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return op("mul", _real(x), math.pi / 180)


@pointwise
def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return op("mul", _real(x), 180 / math.pi)


def _real(x: Any) -> Expr:
    e = as_expr(x)
    return e if e.dtype.is_float else cast(e, f32)


@pointwise
def signbit(x: Any) -> Any:
    """Whether ``x`` is negative, minus zero too."""
    e = as_expr(x)
    if not e.dtype.is_float:
        return op("lt", e, 0) if e.dtype.signed else op("ne", e, e)
    return where(op("eq", e, 0), op("lt", op("div", 1.0, e), 0), op("lt", e, 0))


@pointwise
def isclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether ``|x - y| <= atol + rtol * |y|``; equal infinities are close."""
    a, b = both(x, y)
    near = op("le", op("abs", op("sub", a, b)), op("add", op("mul", op("abs", b), rtol), atol)) if a.dtype.is_float else op("eq", a, b)
    if a.dtype.is_float:
        near = op("and", near, op("isfinite", b))
    out = op("or", op("eq", a, b), near)
    return op("or", out, op("and", op("isnan", a), op("isnan", b))) if equal_nan and a.dtype.is_float else out


@pointwise
def addcmul(x: Any, a: Any, b: Any, value: float = 1) -> Any:
    """``x + value * a * b``."""
    return op("add", x, op("mul", op("mul", a, b), value) if value != 1 else op("mul", a, b))


@pointwise
def addcdiv(x: Any, a: Any, b: Any, value: float = 1) -> Any:
    """``x + value * a / b``."""
    return op("add", x, op("mul", op("div", a, b), value) if value != 1 else op("div", a, b))


@pointwise
def digamma(x: Any) -> Any:
    """The derivative of ``lgamma``: by recurrence to 8.5 and beyond, then the asymptotic series; reflected below one half."""
    return digamma_element(_real(x))


@pointwise
def lerp(a: Any, b: Any, weight: Any) -> Any:
    """``a + weight * (b - a)``."""
    return op("add", a, op("mul", weight, op("sub", b, a)))


@pointwise
def logaddexp(a: Any, b: Any) -> Any:
    """``log(exp(a) + exp(b))`` without overflow; equal infinities give themselves."""
    mean = op("mul", op("add", a, b), 0.5)
    apart = op("add", op("max", a, b), op("log1p", op("exp", op("neg", op("abs", op("sub", a, b))))))
    return where(op("eq", a, b), op("add", mean, math.log(2)), apart)


@pointwise
def logaddexp2(a: Any, b: Any) -> Any:
    """``log2(2**a + 2**b)`` without overflow; equal infinities give themselves."""
    low = op("exp2", op("neg", op("abs", op("sub", a, b))))
    apart = op("add", op("max", a, b), op("mul", op("log1p", low), 1 / math.log(2)))
    return where(op("eq", a, b), op("add", a, 1.0), apart)
