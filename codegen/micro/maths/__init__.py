"""Vectorised mathematical functions as straight-line expansions into primitive operations, for f32 and f64.

A function takes a `MathBuilder` and opaque values, `exp(b, x)`, and knows no hardware.  `FUNCTIONS` names them all;
`MAX_ULP` says how far each is from the exact value, measured by `python -m benchmarks.maths_accuracy`.

- builder.py         the primitive operations a builder supplies
- exponential.py     exp, exp2, expm1, sigmoid, tanh, sinh, cosh
- logarithm.py       log, log2, log10, log1p, softplus, asinh, acosh, atanh, pow
- trigonometric.py   sin, cos, tan and inverses; angles.py reduces their angle
- error.py           erf, erfc; gamma.py lgamma
- core.py, tables.py formats, shared pieces, coefficients (fitted by benchmarks/maths_fit.py)
"""

from __future__ import annotations

from collections.abc import Callable

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.error import erf, erfc
from codegen.micro.maths.exponential import cosh, exp, exp2, expm1, sigmoid, sinh, tanh
from codegen.micro.maths.gamma import lgamma
from codegen.micro.maths.logarithm import acosh, asinh, atanh, log, log1p, log2, log10, pow, softplus
from codegen.micro.maths.trigonometric import acos, asin, atan, atan2, cos, sin, tan

__all__ = ["FUNCTIONS", "MAX_ULP", "MathBuilder", "Value", "arity", "rsqrt"]


def rsqrt(b: MathBuilder, x: Value) -> Value:
    """1 / sqrt(x), from the two correctly rounded operations."""
    return b.div(b.const(1.0, x), b.sqrt(x))


FUNCTIONS: dict[str, Callable[..., Value]] = {
    function.__name__: function
    for function in (
        exp, exp2, expm1, sigmoid, tanh, sinh, cosh,
        log, log2, log10, log1p, softplus, asinh, acosh, atanh, pow,
        sin, cos, tan, asin, acos, atan, atan2,
        erf, erfc, lgamma, rsqrt,
    )
}  # fmt: skip

MAX_ULP: dict[str, dict[str, float]] = {
    "acos": {"f32": 1.2, "f64": 1.2},
    "acosh": {"f32": 2.3, "f64": 1.7},
    "asin": {"f32": 2.4, "f64": 2.2},
    "asinh": {"f32": 1.8, "f64": 1.6},
    "atan": {"f32": 2.1, "f64": 2.1},
    "atan2": {"f32": 2.1, "f64": 1.9},
    "atanh": {"f32": 2.2, "f64": 1.6},
    "cos": {"f32": 2.2, "f64": 0.9},
    "cosh": {"f32": 1.6, "f64": 1.3},
    "erf": {"f32": 1.9, "f64": 1.2},
    "erfc": {"f32": 6.4, "f64": 5.3},
    "exp": {"f32": 1.1, "f64": 1.1},
    "exp2": {"f32": 1.0, "f64": 1.0},
    "expm1": {"f32": 1.6, "f64": 1.6},
    "lgamma": {"f32": 1.0, "f64": 6.0},
    "log": {"f32": 1.0, "f64": 0.9},
    "log10": {"f32": 1.0, "f64": 1.0},
    "log1p": {"f32": 1.6, "f64": 1.2},
    "log2": {"f32": 1.0, "f64": 0.9},
    "pow": {"f32": 1.3, "f64": 1.3},
    "rsqrt": {"f32": 1.6, "f64": 1.6},
    "sigmoid": {"f32": 2.5, "f64": 1.9},
    "sin": {"f32": 2.2, "f64": 0.9},
    "sinh": {"f32": 1.7, "f64": 1.5},
    "softplus": {"f32": 1.8, "f64": 1.6},
    "tan": {"f32": 3.4, "f64": 2.0},
    "tanh": {"f32": 2.5, "f64": 2.3},
}  # fmt: skip
"""Largest error in units of the last place; lgamma of f64 above 0.

Every value is above what was measured.
"""


def arity(name: str) -> int:
    """How many values the named function takes."""
    return 2 if name in ("pow", "atan2") else 1
