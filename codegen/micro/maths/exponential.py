"""The exponential family: exp, exp2, expm1, sigmoid, tanh, sinh, cosh.

All share one reduction: x = n ln2 + r with |r| <= ln2 / 2, a polynomial in r, then 2^n built in the exponent field.
"""

from __future__ import annotations

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import (
    LN2,
    LOG2_E,
    flip_sign,
    format_of,
    pieces,
    polynomial,
    sign_bit,
    small_as_is,
    with_sign,
)

TANH_SATURATES = {"f32": 10.0, "f64": 20.0}
EXPM1_SATURATES = {"f32": -18.0, "f64": -38.0}


def round_to_integer(b: MathBuilder, value: Value, factor: Value | None, offset: int) -> tuple[Value, Value]:
    """n = rint(value * factor): (n as a float, an integer whose low bits are n + offset).

    The rounding is the addition of Format.round_shift, here moved by the offset.
    """
    shift = b.const(format_of(b, value).round_shift + offset, value)
    shifted = b.add(value, shift) if factor is None else b.fma(value, factor, shift)
    return b.sub(shifted, shift), b.bitcast_int(shifted)


def reduce_by_ln2(b: MathBuilder, x: Value, offset: int, low: Value | None = None) -> tuple[Value, Value]:
    """x (+ low, a far smaller correction) = n ln2 + r: (r, an integer whose low bits are n + offset)."""
    ln2_high, ln2_low, _ = pieces(b, LN2, x)
    count, bits = round_to_integer(b, x, pieces(b, LOG2_E, x)[0], offset)
    r = b.fma(b.neg(count), ln2_high, x)
    if low is not None:
        r = b.add(r, low)
    return b.fma(b.neg(count), ln2_low, r), bits


def power_of_two(b: MathBuilder, biased: Value, like: Value) -> Value:
    """2^n, from an integer whose low bits are n + bias; n must be the exponent of a normal number."""
    return b.bitcast_float(b.shl(biased, format_of(b, like).mantissa))


def scale(b: MathBuilder, x: Value, doubly_biased: Value) -> Value:
    """x * 2^n with one rounding, from an integer whose low bits are n + 2 * bias; overflows and underflows right.

    2^n itself may not be representable, so it is applied as two factors with half the exponent each.
    """
    first, second = halves(b, doubly_biased, x)
    return b.mul(b.mul(x, first), second)


def halves(b: MathBuilder, doubly_biased: Value, like: Value) -> tuple[Value, Value]:
    """Two factors of 2^n with half the exponent each."""
    half = b.lshr(doubly_biased, 1)
    return power_of_two(b, half, like), power_of_two(b, b.isub(doubly_biased, half), like)


def exp_polynomial(b: MathBuilder, r: Value) -> Value:
    """e^r for |r| <= ln2 / 2."""
    return b.add(expm1_of(b, r), b.const(1.0, r))


def expm1_of(b: MathBuilder, r: Value) -> Value:
    """e^r - 1 for |r| <= ln2 / 2, as accurate as e^r is."""
    square = b.mul(r, r)
    return b.fma(square, polynomial(b, "exp", r, square), r)


def expm1_polynomial(b: MathBuilder, r: Value) -> Value:
    """e^r - 1 for |r| <= ln2 / 2, relatively accurate."""
    square = b.mul(r, r)
    return b.fma(square, polynomial(b, "expm1", r, square), r)


def clamp_exp(b: MathBuilder, x: Value) -> Value:
    """x moved into the range outside which exp is inf or 0; NaN stays."""
    form = format_of(b, x)
    return b.min(b.const(form.exp_high, x), b.max(b.const(form.exp_low, x), x))


def exp(b: MathBuilder, x: Value) -> Value:
    """e^x.  Denormal results are right; overflow gives inf."""
    return exp_times(b, clamp_exp(b, x), 0)


def exp_times(b: MathBuilder, x: Value, power: int, low: Value | None = None) -> Value:
    """e^(x + low) * 2^power for clamped x."""
    r, bits = reduce_by_ln2(b, x, 2 * format_of(b, x).bias + power, low)
    first, second = halves(b, bits, x)
    return b.mul(b.fma(expm1_of(b, r), first, first), second)  # 1 is added and scaled in one step, with the same one rounding


def exp_of_negative(b: MathBuilder, x: Value, low: Value | None = None, times: Value | None = None) -> Value:
    """e^(x + low) * times for x <= 0, cheaper than exp: the result is built 2^lift too large, then brought down."""
    form = format_of(b, x)
    lift = form.bias // 2
    r, bits = reduce_by_ln2(b, b.max(b.const(form.exp_low, x), x), form.bias + lift, low)
    value = exp_polynomial(b, r)
    if times is not None:
        value = b.mul(value, times)
    return b.mul(b.mul(value, power_of_two(b, bits, x)), b.const(2.0**-lift, x))


def exp2(b: MathBuilder, x: Value) -> Value:
    """2^x.  Denormal results are right; overflow gives inf."""
    form = format_of(b, x)
    low, high = float(-form.bias - form.mantissa - 2), float(form.bias + 2)
    x = b.min(b.const(high, x), b.max(b.const(low, x), x))
    count, bits = round_to_integer(b, x, None, 2 * form.bias)
    return scale(b, exp2_polynomial(b, b.sub(x, count)), bits)


def exp2_polynomial(b: MathBuilder, r: Value) -> Value:
    """2^r for |r| <= 1/2."""
    return b.fma(r, polynomial(b, "exp2", r), b.const(1.0, r))


def expm1(b: MathBuilder, x: Value) -> Value:
    """e^x - 1, relatively accurate near zero."""
    form, dtype = format_of(b, x), b.dtype(x)
    clamped = b.min(b.const(form.exp_high, x), b.max(b.const(EXPM1_SATURATES[dtype], x), x))
    # 2^(n-1) instead of 2^n, as 2^n overflows one step before the result does.
    r, bits = reduce_by_ln2(b, clamped, form.bias - 1)
    half_power = power_of_two(b, bits, x)
    result = b.fma(half_power, expm1_polynomial(b, r), b.sub(half_power, b.const(0.5, x)))
    return small_as_is(b, x, b.mul(result, b.const(2.0, x)))


def sigmoid(b: MathBuilder, x: Value) -> Value:
    """1 / (1 + e^-x), as t / (1 + t) on the negative side so that its small values keep their relative accuracy."""
    one = b.const(1.0, x)
    t = exp_of_negative(b, b.neg(b.abs(x)))
    numerator = b.select(b.cmp("lt", x, b.const(0.0, x)), t, one)
    return b.div(numerator, b.add(one, t))


def tanh(b: MathBuilder, x: Value) -> Value:
    """(e^2x - 1) / (e^2x + 1), from expm1 so that it is relatively accurate near zero; exactly odd.

    Above 1/2 it is taken as 1 - 2 / (e^2x + 1) instead, where the rounding errors count for less.
    """
    one, two = b.const(1.0, x), b.const(2.0, x)
    magnitude = b.min(b.const(TANH_SATURATES[b.dtype(x)], x), b.abs(x))
    r, bits = reduce_by_ln2(b, b.add(magnitude, magnitude), format_of(b, x).bias)
    power, p = power_of_two(b, bits, x), expm1_polynomial(b, r)
    large = b.cmp("gt", magnitude, b.const(0.5, x))
    numerator = b.select(large, two, b.fma(power, p, b.sub(power, one)))
    ratio = b.div(numerator, b.fma(power, p, b.add(power, one)))
    return with_sign(b, b.select(large, b.sub(one, ratio), ratio), x)


def sinh(b: MathBuilder, x: Value) -> Value:
    """(e^x - e^-x) / 2, by its own polynomial below 1, where that difference cancels."""
    magnitude, square = b.abs(x), b.mul(x, x)
    near = b.fma(b.mul(x, square), polynomial(b, "sinh", square), x)
    half = _half_exp(b, magnitude)
    far = flip_sign(b, b.sub(half, b.div(b.const(0.25, x), half)), sign_bit(b, x))
    return b.select(b.cmp("lt", magnitude, b.const(1.0, x)), near, far)


def cosh(b: MathBuilder, x: Value) -> Value:
    """(e^x + e^-x) / 2."""
    half = _half_exp(b, b.abs(x))
    return b.add(half, b.div(b.const(0.25, x), half))


def _half_exp(b: MathBuilder, x: Value) -> Value:
    """e^x / 2 for x >= 0, finite as long as cosh is; exp_high alone leaves room for the extra ln2."""
    return exp_times(b, b.min(b.const(format_of(b, x).exp_high + 1.0, x), x), -1)
