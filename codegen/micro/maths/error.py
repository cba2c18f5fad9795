"""The error function and its relatives: erf, erfc, erfinv."""

from __future__ import annotations

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import format_of, polynomial, with_sign
from codegen.micro.maths.exponential import exp_of_negative, expm1_polynomial, power_of_two, reduce_by_ln2

# Beyond these erf is 1, and erfc is 0, in the format.
ERF_SATURATES = {"f32": 4.0, "f64": 6.0}
ERFC_VANISHES = {"f32": 10.1, "f64": 27.3}


def erf(b: MathBuilder, x: Value) -> Value:
    """The error function: 1 - e^-(t + t q(t)) for t = |x|.  Exactly odd.

    With e^r = 2^n (1 + m) this is (1 - 2^n) - 2^n m, whose first term is 0 for small t, so that small results are relatively accurate.
    In f64 a polynomial q from 0 on would have to be so long that one of its own below 1 is cheaper.
    """
    one, magnitude = b.const(1.0, x), b.abs(x)
    t = b.min(b.const(ERF_SATURATES[b.dtype(x)], x), magnitude)
    r, bits = reduce_by_ln2(b, b.fma(b.neg(t), polynomial(b, "erf", t), b.neg(t)), format_of(b, x).bias)
    power = power_of_two(b, bits, x)
    far = with_sign(b, b.fma(b.neg(power), expm1_polynomial(b, r), b.sub(one, power)), x)
    if b.dtype(x) == "f32":
        return far
    near = b.fma(x, polynomial(b, "erf_near", b.mul(x, x)), x)
    return b.select(b.cmp("lt", magnitude, one), near, far)


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
