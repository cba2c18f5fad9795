"""The circular functions and their inverses: sin, cos, tan, asin, acos, atan, atan2."""

from __future__ import annotations

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import HALF_PI, flip_sign, pieces, polynomial, sign_bit, small_as_is, with_sign
from codegen.micro.maths.quarter_turns import Reduced, reduce_by_quarter_turns


def sin(b: MathBuilder, x: Value) -> Value:
    """The sine; every f32, and |x| below LARGEST_ANGLE in f64 (NaN beyond)."""
    reduced = reduce_by_quarter_turns(b, x)
    return small_as_is(b, x, _quarter_wave(b, reduced, 0))


def cos(b: MathBuilder, x: Value) -> Value:
    """The cosine; every f32, and |x| below LARGEST_ANGLE in f64 (NaN beyond)."""
    return _quarter_wave(b, reduce_by_quarter_turns(b, x), 1)


def tan(b: MathBuilder, x: Value) -> Value:
    """The tangent; every f32, and |x| below LARGEST_ANGLE in f64 (NaN beyond)."""
    reduced = reduce_by_quarter_turns(b, x)
    sine, cosine = _sine(b, reduced), _cosine(b, reduced)
    odd = _quarter_bit(b, reduced, 0, 1)
    result = b.div(b.select(odd, b.neg(cosine), sine), b.select(odd, sine, cosine))
    return small_as_is(b, x, result)


def _quarter_wave(b: MathBuilder, reduced: Reduced, ahead: int) -> Value:
    """The sine, `ahead` quarter turns further on."""
    quarters = b.iadd(reduced.quarters, b.iconst(ahead, reduced.r)) if ahead else reduced.quarters
    use_cosine = _quarter_bit(b, reduced, ahead, 1)
    value = b.select(use_cosine, _cosine(b, reduced), _sine(b, reduced))
    to_sign = {"f32": 30, "f64": 62}[b.dtype(value)]
    return flip_sign(b, value, sign_bit(b, b.bitcast_float(b.shl(quarters, to_sign))))


def _quarter_bit(b: MathBuilder, reduced: Reduced, ahead: int, bit: int) -> Value:
    quarters = reduced.quarters
    masked = b.iand(quarters, b.iconst(bit, quarters))
    return b.cmp("eq" if ahead & bit else "ne", masked, b.iconst(0, quarters))


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
