"""The logarithm family: log, log2, log10, log1p, softplus, asinh, acosh, atanh, and pow, which needs twice the digits.

All share one reduction: x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), then log(1 + f) by a polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import (
    LN2,
    LOG2_E,
    LOG10_2,
    LOG10_E,
    TWO_THIRDS,
    float_bits,
    format_of,
    infinity,
    pieces,
    polynomial,
    quick_two_sum,
    sign_bit,
    small_as_is,
    two_product,
    two_sum,
    with_sign,
)
from codegen.micro.maths.exponential import exp_of_negative, exp_times

Pair = tuple[Value, Value]
ROOT_HALF = {"f32": float_bits(math.sqrt(0.5), "f32"), "f64": float_bits(math.sqrt(0.5), "f64")}


def log(b: MathBuilder, x: Value) -> Value:
    """The natural logarithm; -inf at 0, NaN below."""
    exponent, f, special = _split_any(b, x)
    return b.add(_log_of_parts(b, exponent, f), special)


def log2(b: MathBuilder, x: Value) -> Value:
    """The logarithm to base 2; exact at powers of two."""
    exponent, f, special = _split_any(b, x)
    return b.add(b.add(exponent, _scaled_log1p(b, f, LOG2_E)), special)


def log10(b: MathBuilder, x: Value) -> Value:
    """The logarithm to base 10."""
    exponent, f, special = _split_any(b, x)
    high, low, *_ = pieces(b, LOG10_2, x)
    return b.add(b.fma(exponent, high, b.fma(exponent, low, _scaled_log1p(b, f, LOG10_E))), special)


def log1p(b: MathBuilder, x: Value) -> Value:
    """log(1 + x), relatively accurate near zero."""
    result, one = small_as_is(b, x, _log1p_of_finite(b, x)), b.const(1.0, x)
    inside = b.logic_and(b.cmp("gt", x, b.neg(one)), b.cmp("lt", x, infinity(b, x)))
    return b.rarely(b.logic_not(inside), lambda: (log_specials(b, b.add(x, one), result),), (result,))[0]


def softplus(b: MathBuilder, x: Value) -> Value:
    """log(1 + e^x)."""
    t = exp_of_negative(b, b.neg(b.abs(x)))
    return b.add(b.max(x, b.const(0.0, x)), small_as_is(b, t, _log1p_of_finite(b, t)))


def asinh(b: MathBuilder, x: Value) -> Value:
    """log(|x| + sqrt(x^2 + 1)), written with log1p so that it is relatively accurate near zero; exactly odd."""
    one, magnitude = b.const(1.0, x), b.abs(x)
    square = b.mul(x, x)
    moderate = b.add(magnitude, b.div(square, b.add(one, b.sqrt(b.add(square, one)))))
    result = _log1p_or_log_of_double(b, magnitude, moderate)
    return small_as_is(b, x, with_sign(b, result, x))


def acosh(b: MathBuilder, x: Value) -> Value:
    """log(x + sqrt(x^2 - 1)), written with log1p so that it is relatively accurate near one; NaN below one."""
    above = b.sub(x, b.const(1.0, x))
    root = b.sqrt(b.mul(above, b.add(x, b.const(1.0, x))))
    result = _log1p_or_log_of_double(b, x, b.add(above, root))
    return b.select(b.cmp("ge", x, b.const(1.0, x)), result, b.const(math.nan, x))


def atanh(b: MathBuilder, x: Value) -> Value:
    """log((1 + x) / (1 - x)) / 2; inf at 1, NaN beyond; exactly odd."""
    one, magnitude = b.const(1.0, x), b.abs(x)
    ratio = b.div(b.add(magnitude, magnitude), b.sub(one, magnitude))
    result = b.mul(b.const(0.5, x), log_specials(b, b.add(ratio, one), _log1p_of_finite(b, ratio)))
    return small_as_is(b, x, with_sign(b, result, x))


def split(b: MathBuilder, x: Value) -> Pair:
    """x = 2^e (1 + f): (e as a float, f).  Denormals are right; what 0, inf, NaN and x < 0 give means nothing."""
    form = format_of(b, x)
    tiny = b.cmp("lt", x, b.const(form.smallest_normal, x))
    scaled = b.select(tiny, b.mul(x, b.const(2.0**form.mantissa, x)), x)
    exponent, f = _split_normal(b, scaled)
    exponent = b.to_float(exponent)
    return b.select(tiny, b.sub(exponent, b.const(float(form.mantissa), x)), exponent), f


def _split_any(b: MathBuilder, x: Value) -> tuple[Value, Value, Value]:
    """x = 2^e (1 + f): (e as a float, f, what is added to the logarithm).

    The last is 0 for positive numbers, and for all others their logarithm: 0, inf, NaN, negative numbers. Those and denormals are rare.
    """
    form, zero, one = format_of(b, x), b.const(0.0, x), b.const(1.0, x)

    def others() -> tuple[Value, Value, Value]:
        finite = b.logic_and(b.cmp("gt", x, zero), b.cmp("lt", x, infinity(b, x)))
        scaled = b.select(finite, b.mul(x, b.const(2.0**form.mantissa, x)), one)
        return scaled, b.select(finite, b.const(-float(form.mantissa), x), zero), log_specials(b, x, zero)

    normal = b.logic_and(b.cmp("ge", x, b.const(form.smallest_normal, x)), b.cmp("lt", x, infinity(b, x)))
    scaled, more, special = b.rarely(b.logic_not(normal), others, (x, zero, zero))
    exponent, f = _split_normal(b, scaled)
    return b.add(b.to_float(exponent), more), f, special


def log_specials(b: MathBuilder, x: Value, result: Value) -> Value:
    """The logarithm of 0 (-inf), inf and NaN (themselves) and negative numbers (NaN) put in place."""
    zero = b.const(0.0, x)
    result = b.select(b.cmp("lt", x, infinity(b, x)), result, x)
    below = b.select(b.cmp("eq", x, zero), b.const(-math.inf, x), b.const(math.nan, x))
    return b.select(b.cmp("gt", x, zero), result, below)


def _split_normal(b: MathBuilder, x: Value) -> Pair:
    """The same for a normal x, with e as an integer."""
    bits = b.bitcast_int(x)
    mantissa = format_of(b, x).mantissa
    exponent = b.ashr(b.isub(bits, b.iconst(ROOT_HALF[b.dtype(x)], bits)), mantissa)
    return exponent, b.sub(b.bitcast_float(b.isub(bits, b.shl(exponent, mantissa))), b.const(1.0, x))


def _log_of_parts(b: MathBuilder, exponent: Value, f: Value) -> Value:
    """e ln2 + log(1 + f)."""
    high, low, _ = pieces(b, LN2, f)
    small = b.fma(exponent, low, _log1p_minus(b, f))
    return b.fma(exponent, high, b.add(f, small))


def _log1p_minus(b: MathBuilder, f: Value) -> Value:
    """log(1 + f) - f.

    In f32 a polynomial in f; in f64, where that would be twice as long, one in s^2 with s = f / (2 + f).
    """
    square = b.mul(f, f)
    if b.dtype(f) == "f32":
        return b.mul(square, b.fma(f, polynomial(b, "log_f", f), b.const(-0.5, f)))
    s = b.div(f, b.add(b.const(2.0, f), f))
    z, half_square = b.mul(s, s), b.mul(b.const(0.5, f), square)
    return b.sub(b.mul(s, b.fma(z, polynomial(b, "log_s", z), half_square)), half_square)


def _scaled_log1p(b: MathBuilder, f: Value, factor: Mapping[str, tuple[float, ...]]) -> Value:
    """log(1 + f) * factor, hardly less accurate than log(1 + f) in unlimited precision rounded once."""
    high, low = quick_two_sum(b, f, _log1p_minus(b, f))
    factor_high, factor_low = pieces(b, factor, f)[:2]
    return b.fma(high, factor_high, b.fma(high, factor_low, b.mul(low, factor_high)))


def _log1p_of_finite(b: MathBuilder, x: Value) -> Value:
    """log(1 + x) for finite x > -1 that is no denormal, with f = x 2^-e + (2^-e - 1) so that the low bits of x survive."""
    form, one = format_of(b, x), b.const(1.0, x)
    exponent, _ = _split_normal(b, b.add(x, one))
    # 2^(2-e) and x / 4, because at the very top of the range 2^-e is a denormal.
    shrink = b.bitcast_float(b.shl(b.isub(b.iconst(form.bias + 2, exponent), exponent), form.mantissa))
    quarter = b.const(0.25, x)
    f = b.fma(b.mul(x, quarter), shrink, b.fma(shrink, quarter, b.neg(one)))
    return _log_of_parts(b, b.to_float(exponent), f)


def _log1p_or_log_of_double(b: MathBuilder, x: Value, moderate: Value) -> Value:
    """log1p(moderate), or log(x) + ln2 where x is so large that 1 / x vanishes beside its logarithm.

    That is far below where the square of x, of which `moderate` is made, overflows.
    """
    large = b.cmp("gt", x, b.const(2.0 ** (format_of(b, x).mantissa + 2), x))
    result = _log1p_of_finite(b, b.select(large, x, moderate))
    result = b.select(large, b.add(result, pieces(b, LN2, x)[0]), result)
    return b.select(b.cmp("lt", x, infinity(b, x)), result, x)


def pow(b: MathBuilder, x: Value, y: Value) -> Value:
    """x^y with the special cases of C99.  The logarithm is kept as an unevaluated sum of two floats."""
    magnitude = b.abs(x)
    log_high, log_low = _log_pair(b, magnitude)
    high, low = two_product(b, (y, b.const(0.0, y)), (log_high, log_low))
    form = format_of(b, x)
    clamped = b.min(b.const(form.exp_high, x), b.max(b.const(form.exp_low, x), high))
    low = b.select(b.cmp("eq", clamped, high), low, b.const(0.0, x))
    return _pow_specials(b, x, y, exp_times(b, clamped, 0, low))


def _log_pair(b: MathBuilder, x: Value) -> Pair:
    """log(x) of a positive finite x as high + low, to about 10 bits beyond the format.

    log(1 + f) = 2s + s^3 (2/3 + s^2 tail(s^2)) with s = f / (2 + f); all but the tail is in double precision.
    """
    exponent, f = split(b, x)
    two = b.const(2.0, x)
    total = b.add(two, f)
    reciprocal = b.div(b.const(1.0, x), total)
    s_high = b.mul(f, reciprocal)
    rest = b.fma(b.neg(s_high), b.sub(f, b.sub(total, two)), b.fma(b.neg(s_high), total, f))
    s = (s_high, b.mul(rest, reciprocal))
    z = two_product(b, s, s)
    third, third_low = pieces(b, TWO_THIRDS, x)
    inner, inner_low = quick_two_sum(b, third, b.mul(z[0], polynomial(b, "log_tail", z[0])))
    cubic = two_product(b, two_product(b, z, s), (inner, b.add(inner_low, third_low)))
    ln2_high, ln2_low, _ = pieces(b, LN2, x)
    base = b.mul(exponent, ln2_high)
    base_low = b.fma(exponent, ln2_low, b.fma(exponent, ln2_high, b.neg(base)))
    high, low = two_sum(b, base, b.add(s[0], s[0]))
    high, cubic_low = two_sum(b, high, cubic[0])
    low = b.add(b.add(low, cubic_low), b.add(b.add(base_low, b.add(s[1], s[1])), cubic[1]))
    return quick_two_sum(b, high, low)


def _pow_specials(b: MathBuilder, x: Value, y: Value, result: Value) -> Value:
    """The cases of C99 put in place, given |x|^y for finite non-zero x."""
    zero, one, infinite = b.const(0.0, x), b.const(1.0, x), infinity(b, x)
    magnitude = b.abs(x)
    half_y = b.mul(y, b.const(0.5, x))
    whole = b.cmp("eq", b.floor(y), y)
    odd = b.logic_and(whole, b.cmp("ne", b.floor(half_y), half_y))
    # Zero and infinity: the sign of y (turned round for a zero base) decides between inf and 0.
    at_zero = b.cmp("eq", magnitude, zero)
    edge = b.logic_or(at_zero, b.cmp("eq", magnitude, infinite))
    grows = b.cmp("gt", b.select(at_zero, b.neg(y), y), zero)
    result = b.select(edge, b.select(grows, infinite, zero), result)
    # Negative bases.
    signed = b.bitcast_float(b.ixor(b.bitcast_int(result), sign_bit(b, x)))
    result = b.select(odd, signed, result)
    negative = b.logic_and(b.cmp("lt", x, zero), b.cmp("gt", x, b.neg(infinite)))
    result = b.select(b.logic_and(negative, b.logic_not(whole)), b.const(math.nan, x), result)
    # NaN in, NaN out; except that 1^y and x^0 are 1 whatever the other is, and so is (-1)^inf.
    nan = b.logic_or(b.cmp("ne", x, x), b.cmp("ne", y, y))
    result = b.select(nan, b.add(x, y), result)
    endless = b.logic_and(b.cmp("eq", magnitude, one), b.cmp("eq", b.abs(y), infinite))
    unit = b.logic_or(b.cmp("eq", x, one), b.cmp("eq", y, zero))
    return b.select(b.logic_or(unit, endless), one, result)
