"""The logarithm of the absolute value of the gamma function.

Between 0 and 8 an argument is moved next to 2 by the recurrence, where the Taylor series is in powers of less than a half and has no
constant term, so that the zeros at 1 and 2 keep their relative accuracy; beyond, Stirling's series; below 0, the reflection formula.
"""

from __future__ import annotations

import math

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import infinity
from codegen.micro.maths.logarithm import log
from codegen.micro.maths.trigonometric import sin

_EULER = 0.57721566490153286061
_STIRLING_FROM = 8
_TERMS = 27
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _zeta_less_one(k: int, last: int = 400) -> float:
    """``sum of n**-k`` from 2 on: the first terms, and Euler and Maclaurin's formula for the rest."""
    n = float(last + 1)
    rest = n ** (1 - k) / (k - 1) + n**-k / 2 + k * n ** (-k - 1) / 12 - k * (k + 1) * (k + 2) * n ** (-k - 3) / 720
    return math.fsum([*(float(m) ** -k for m in range(2, last + 1)), rest])


# lgamma(2 + z) = z * sum of SERIES[k] * z**k
SERIES = (1 - _EULER, *((-1) ** k * _zeta_less_one(k) / k for k in range(2, _TERMS)))


def lgamma(b: MathBuilder, x: Value) -> Value:
    """log(|gamma(x)|); inf at 0 and the negative integers."""
    if b.dtype(x) == "f32":
        return b.narrow(lgamma(b, b.widen(x)))
    size = b.abs(x)
    right = _of_positive(b, size)
    left = b.sub(b.neg(_log_sine(b, size)), right)
    tiny = b.cmp("lt", size, b.const(2.0**-60, x))
    result = b.select(b.cmp("lt", x, b.const(0.0, x)), b.select(tiny, right, left), right)
    return b.select(b.cmp("eq", size, infinity(b, x)), infinity(b, x), result)


def _log_sine(b: MathBuilder, size: Value) -> Value:
    """log(x |sin(pi x)| / pi), of which the reflection formula takes the negative."""
    rest = b.sub(size, b.rint(size))
    height = b.abs(sin(b, b.mul(rest, b.const(math.pi, size))))
    return log(b, b.mul(b.mul(size, b.const(1 / math.pi, size)), height))


def _of_positive(b: MathBuilder, x: Value) -> Value:
    """lgamma of x >= 0, or of a NaN."""
    one, far = b.const(1.0, x), b.cmp("ge", x, b.const(_STIRLING_FROM - 0.5, x))
    n = b.rint(x)
    product = one
    for k in range(1, _STIRLING_FROM - 1):
        product = b.select(b.cmp("ge", n, b.const(k + 2.0, x)), b.mul(product, b.sub(x, b.const(float(k), x))), product)
    low = b.cmp("lt", n, b.const(2.0, x))
    quotient = b.select(b.cmp("lt", n, one), b.mul(x, b.add(x, one)), x)
    logarithm = log(b, b.select(far, x, b.select(low, quotient, product)))
    z = b.sub(x, n)
    near = b.fma(z, _horner(b, SERIES, z), b.select(low, b.neg(logarithm), logarithm))
    half = b.const(0.5, x)
    inverse = b.div(one, x)
    tail = b.mul(inverse, _horner(b, _STIRLING, b.mul(inverse, inverse)))
    stirling = b.fma(b.sub(x, half), b.sub(logarithm, one), b.add(b.const(0.5 * math.log(2 * math.pi) - 0.5, x), tail))
    return b.select(far, stirling, near)


def _horner(b: MathBuilder, coefficients: tuple[float, ...], x: Value) -> Value:
    out = b.const(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        out = b.fma(out, x, b.const(c, x))
    return out
