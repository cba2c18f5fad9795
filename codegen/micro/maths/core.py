"""Float formats and the small pieces that several mathematical functions share."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.tables import POLYNOMIALS

LONG_POLYNOMIAL = 9
"""From this many coefficients on, a polynomial is evaluated as two independent chains (even and odd powers)."""


@dataclass(frozen=True)
class Format:
    """The facts about one float format that the expansions need.

    `round_shift` is 1.5 * 2^mantissa: adding it rounds a value below 2^(mantissa-1) to an integer, which then also
    stands in the low bits of the sum.  Unlike a conversion to integer, that is harmless when the value is NaN.
    The exp limits are the inputs beyond which exp is certainly inf or 0.
    """

    mantissa: int
    bias: int
    smallest_normal: float
    round_shift: float
    exp_low: float
    exp_high: float
    negligible: float
    """x^2 vanishes beside x below this."""


FORMATS = {
    "f32": Format(23, 127, 2.0**-126, 1.5 * 2.0**23, -104.0, 89.0, 2.0**-26),
    "f64": Format(52, 1023, 2.0**-1022, 1.5 * 2.0**52, -746.0, 710.0, 2.0**-55),
}

# Constants as sums of two or three floats of the format, largest first, so that the pieces can be applied one by one.
LN2 = {
    "f32": (0.6931471824645996, -1.9046542121259336e-09, -8.78318373858934e-17),
    "f64": (0.6931471805599453, 2.3190468138462996e-17, 5.707708438416212e-34),
}
LOG2_E = {"f32": (1.4426950216293335, 1.925963033500011e-08), "f64": (1.4426950408889634, 2.0355273740931033e-17)}
LOG10_E = {"f32": (0.4342944920063019, -1.0103049952192578e-08), "f64": (0.4342944819032518, 1.098319650216765e-17)}
LOG10_2 = {"f32": (0.3010300099849701, -1.432098883924482e-08), "f64": (0.3010299956639812, -2.8037281277851704e-18)}
TWO_THIRDS = {"f32": (0.6666666865348816, -1.9868215517249155e-08), "f64": (0.6666666666666666, 3.700743415417188e-17)}
HALF_PI = {
    "f32": (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    "f64": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
}


def format_of(b: MathBuilder, x: Value) -> Format:
    """The format of a float value."""
    return FORMATS[b.dtype(x)]


def pieces(b: MathBuilder, table: Mapping[str, tuple[float, ...]], like: Value) -> list[Value]:
    """The constants of one multi-part table, for the dtype of `like`."""
    return [b.const(value, like) for value in table[b.dtype(like)]]


def polynomial(b: MathBuilder, name: str, x: Value, square: Value | None = None) -> Value:
    """The named polynomial of tables at x, whose square may be at hand; then two chains cost nothing more."""
    coefficients = POLYNOMIALS[name, b.dtype(x)]
    if square is None and len(coefficients) < LONG_POLYNOMIAL:
        return _horner(b, coefficients, x)
    square = b.mul(x, x) if square is None else square
    return b.fma(_horner(b, coefficients[1::2], square), x, _horner(b, coefficients[0::2], square))


def _horner(b: MathBuilder, coefficients: tuple[float, ...], x: Value) -> Value:
    result = b.const(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        result = b.fma(result, x, b.const(coefficient, x))
    return result


def float_bits(value: float, dtype: str) -> int:
    """The bits of a Python float in a format, as a signed integer."""
    codes = ("<f", "<i") if dtype == "f32" else ("<d", "<q")
    return int(struct.unpack(codes[1], struct.pack(codes[0], value))[0])


def sign_bit(b: MathBuilder, x: Value) -> Value:
    """The sign bit of x, alone, as an integer."""
    return b.iand(b.bitcast_int(x), b.iconst(float_bits(-0.0, b.dtype(x)), x))


def flip_sign(b: MathBuilder, x: Value, sign: Value) -> Value:
    """x negated where the sign bit is set."""
    return b.bitcast_float(b.ixor(b.bitcast_int(x), sign))


def with_sign(b: MathBuilder, magnitude: Value, source: Value) -> Value:
    """The magnitude (whose own sign bit must be clear, or that is NaN) with the sign of source."""
    return b.bitcast_float(b.ior(b.bitcast_int(magnitude), sign_bit(b, source)))


def small_as_is(b: MathBuilder, x: Value, result: Value) -> Value:
    """x itself where f(x) = x to the last bit; keeps -0 and denormals exact."""
    tiny = b.cmp("lt", b.abs(x), b.const(format_of(b, x).negligible, x))
    return b.select(tiny, x, result)


def infinity(b: MathBuilder, like: Value) -> Value:
    """+inf."""
    return b.const(math.inf, like)


def quick_two_sum(b: MathBuilder, a: Value, c: Value) -> tuple[Value, Value]:
    """a + c as a rounded sum and its exact error, given |a| >= |c|."""
    total = b.add(a, c)
    return total, b.add(b.sub(a, total), c)


def two_sum(b: MathBuilder, a: Value, c: Value) -> tuple[Value, Value]:
    """a + c as a rounded sum and its exact error."""
    total = b.add(a, c)
    moved = b.sub(total, a)
    return total, b.add(b.sub(a, b.sub(total, moved)), b.sub(c, moved))


def two_product(b: MathBuilder, a: tuple[Value, Value], c: tuple[Value, Value]) -> tuple[Value, Value]:
    """The product of two unevaluated sums (high, low), again as (high, low), not renormalised."""
    high = b.mul(a[0], c[0])
    error = b.fma(a[0], c[0], b.neg(high))
    return high, b.fma(a[0], c[1], b.fma(a[1], c[0], error))
