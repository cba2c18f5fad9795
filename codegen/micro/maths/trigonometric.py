"""The circular functions and their inverses: sin, cos, tan, asin, acos, atan, atan2."""

from __future__ import annotations

from codegen.micro.maths.angles import Reduced, reduce_double, reduce_single
from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import HALF_PI, flip_sign, pieces, polynomial, sign_bit, small_as_is, with_sign


def sin(b: MathBuilder, x: Value) -> Value:
    """The sine."""
    wave = _half_wave(b, x, 0.0) if b.dtype(x) == "f32" else _quarter_wave(b, reduce_double(b, x), 0)
    return small_as_is(b, x, wave)


def cos(b: MathBuilder, x: Value) -> Value:
    """The cosine."""
    return _half_wave(b, x, 0.25) if b.dtype(x) == "f32" else _quarter_wave(b, reduce_double(b, x), 1)


def tan(b: MathBuilder, x: Value) -> Value:
    """The tangent."""
    reduced = reduce_single(b, x, 4, 0.0) if b.dtype(x) == "f32" else reduce_double(b, x)
    sine, cosine = _sine(b, reduced), _cosine(b, reduced)
    odd = _is_odd(b, reduced.count)
    result = b.div(b.select(odd, b.neg(cosine), sine), b.select(odd, sine, cosine))
    return small_as_is(b, x, result)


def _half_wave(b: MathBuilder, x: Value, ahead: float) -> Value:
    """The sine of an f32, `ahead` turns further on, by one polynomial over half a wave."""
    reduced = reduce_single(b, x, 2, ahead)
    r, square = reduced.r, b.mul(reduced.r, reduced.r)
    value = b.fma(b.mul(r, square), polynomial(b, "sin_half", square), r)
    return _negate_if_bit(b, value, reduced.count, 0)


def _quarter_wave(b: MathBuilder, reduced: Reduced, ahead: int) -> Value:
    """The sine, `ahead` quarter turns further on, by a polynomial each for the steep and the flat quarters."""
    quarters = b.iadd(reduced.count, b.iconst(ahead, reduced.r))
    value = b.select(_is_odd(b, quarters), _cosine(b, reduced), _sine(b, reduced))
    return _negate_if_bit(b, value, quarters, 1)


def _is_odd(b: MathBuilder, count: Value) -> Value:
    return b.cmp("ne", b.iand(count, b.iconst(1, count)), b.iconst(0, count))


def _negate_if_bit(b: MathBuilder, x: Value, count: Value, bit: int) -> Value:
    top = {"f32": 31, "f64": 63}[b.dtype(x)]
    return flip_sign(b, x, sign_bit(b, b.bitcast_float(b.shl(count, top - bit))))


def _sine(b: MathBuilder, reduced: Reduced) -> Value:
    r, square = reduced.r, b.mul(reduced.r, reduced.r)
    return b.add(r, b.fma(b.mul(r, square), polynomial(b, "sin", square), reduced.low))


def _cosine(b: MathBuilder, reduced: Reduced) -> Value:
    """1 - r^2/2 + r^4 (...), keeping what the first subtraction rounds away."""
    r, one = reduced.r, b.const(1.0, reduced.r)
    square = b.mul(r, r)
    half = b.mul(square, b.const(0.5, r))
    first = b.sub(one, half)
    lost = b.sub(b.sub(one, first), half)
    fourth = b.mul(b.mul(square, square), polynomial(b, "cos", square))
    return b.add(first, b.add(lost, b.fma(b.neg(r), reduced.low, fourth)))


def asin(b: MathBuilder, x: Value) -> Value:
    """The arc sine; NaN outside [-1, 1]; exactly odd."""
    magnitude = b.abs(x)
    near, base, correction = _asin_parts(b, magnitude)
    half_pi, half_pi_low, _ = pieces(b, HALF_PI, x)
    twice = b.mul(b.const(2.0, x), b.add(base, correction))
    far = b.sub(half_pi, b.sub(twice, half_pi_low))
    result = b.select(near, b.add(base, correction), far)
    return small_as_is(b, x, with_sign(b, result, x))


def acos(b: MathBuilder, x: Value) -> Value:
    """The arc cosine; NaN outside [-1, 1]."""
    near, base, correction = _asin_parts(b, b.abs(x))
    half_pi, half_pi_low, _ = pieces(b, HALF_PI, x)
    arc = b.add(base, correction)
    middle = b.sub(half_pi, b.sub(flip_sign(b, arc, sign_bit(b, x)), half_pi_low))
    twice = b.add(arc, arc)
    pi, pi_low = b.add(half_pi, half_pi), b.add(half_pi_low, half_pi_low)
    ends = b.select(b.cmp("lt", x, b.const(0.0, x)), b.sub(pi, b.sub(twice, pi_low)), twice)
    return b.select(near, middle, ends)


def _asin_parts(b: MathBuilder, magnitude: Value) -> tuple[Value, Value, Value]:
    """(|x| <= 1/2, t, asin(t) - t), where t is |x| there, and elsewhere sqrt((1 - |x|) / 2)."""
    half = b.const(0.5, magnitude)
    near = b.cmp("le", magnitude, half)
    folded = b.mul(half, b.sub(b.const(1.0, magnitude), magnitude))
    square = b.select(near, b.mul(magnitude, magnitude), folded)
    t = b.select(near, magnitude, b.sqrt(folded))
    return near, t, b.mul(b.mul(t, square), polynomial(b, "asin", square))


def atan(b: MathBuilder, x: Value) -> Value:
    """The arc tangent; exactly odd."""
    magnitude, one = b.abs(x), b.const(1.0, x)
    beyond = b.cmp("gt", magnitude, one)
    q = b.select(beyond, b.div(one, magnitude), magnitude)
    return with_sign(b, _complement_where(b, beyond, _atan_up_to_one(b, q)), x)


def atan2(b: MathBuilder, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), with the special cases of C99."""
    zero, one = b.const(0.0, x), b.const(1.0, x)
    up, across = b.abs(y), b.abs(x)
    steep = b.cmp("gt", up, across)
    small, large = b.select(steep, across, up), b.select(steep, up, across)
    q = b.select(b.cmp("eq", small, large), one, b.div(small, large))
    q = b.select(b.cmp("eq", large, zero), zero, q)
    angle = _complement_where(b, steep, _atan_up_to_one(b, q))
    half_pi, half_pi_low, _ = pieces(b, HALF_PI, x)
    pi, pi_low = b.add(half_pi, half_pi), b.add(half_pi_low, half_pi_low)
    leftward = b.cmp("lt", b.bitcast_int(x), b.iconst(0, x))
    angle = b.select(leftward, b.sub(pi, b.sub(angle, pi_low)), angle)
    nan = b.logic_or(b.cmp("ne", x, x), b.cmp("ne", y, y))
    return b.select(nan, b.add(x, y), with_sign(b, angle, y))


def _atan_up_to_one(b: MathBuilder, q: Value) -> Value:
    """The arc tangent of 0 <= q <= 1."""
    square = b.mul(q, q)
    return b.fma(b.mul(q, square), polynomial(b, "atan", square), q)


def _complement_where(b: MathBuilder, cond: Value, angle: Value) -> Value:
    """pi/2 - angle where cond holds."""
    half_pi, half_pi_low, _ = pieces(b, HALF_PI, angle)
    return b.select(cond, b.sub(half_pi, b.sub(angle, half_pi_low)), angle)
