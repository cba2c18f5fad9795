"""The error function and its relatives: erf, erfc, erfinv."""

from __future__ import annotations

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import format_of, polynomial, with_sign
from codegen.micro.maths.exponential import exp2_polynomial, exp_of_negative, power_of_two, round_to_integer

# Beyond these erf is 1, and erfc is 0, in the format.
ERF_SATURATES = {"f32": 4.0, "f64": 6.0}
ERFC_VANISHES = {"f32": 10.1, "f64": 27.3}


def erf(b: MathBuilder, x: Value) -> Value:
    """The error function: a polynomial below 1, and 1 - 2^q(|x|) above, where q is log2(erfc).  Exactly odd."""
    magnitude, square, one = b.abs(x), b.mul(x, x), b.const(1.0, x)
    near = b.fma(x, polynomial(b, "erf", square), x)
    t = b.min(b.const(ERF_SATURATES[b.dtype(x)], x), magnitude)
    exponent = b.mul(t, polynomial(b, "erf_tail", t))
    count, bits = round_to_integer(b, exponent, None, format_of(b, x).bias)
    complement = exp2_polynomial(b, b.sub(exponent, count))
    far = b.fma(b.neg(complement), power_of_two(b, bits, x), one)
    return b.select(b.cmp("lt", magnitude, one), near, with_sign(b, far, x))


def erfc(b: MathBuilder, x: Value) -> Value:
    """1 - erf(x), relatively accurate in the right tail down to the denormals.

    erfc(t) = e^(-t^2) R(t) / (1 + 2t), where R is smooth in q = (t - 4) / (t + 4).
    """
    one, two, four = b.const(1.0, x), b.const(2.0, x), b.const(4.0, x)
    t = b.min(b.const(ERFC_VANISHES[b.dtype(x)], x), b.abs(x))
    ratio = polynomial(b, "erfcx", b.div(b.sub(t, four), b.add(t, four)))
    ratio = b.div(ratio, b.fma(two, t, one))
    square = b.mul(t, t)
    square_low = b.fma(t, t, b.neg(square))
    right = exp_of_negative(b, b.neg(square), b.neg(square_low), ratio)
    return b.select(b.cmp("lt", x, b.const(0.0, x)), b.sub(two, right), right)
