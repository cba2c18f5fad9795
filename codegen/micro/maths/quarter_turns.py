"""Reduction of an angle to [-pi/4, pi/4] and a count of quarter turns, for sin, cos and tan.

Small angles subtract n * pi/2 in three pieces.  A large f32 needs digits of 2/pi that depend on its exponent:
they are selected from a table of four ranges, and the product is taken in f64, piece by piece, dropping whole
turns as they appear.  Both ways are always computed, as these expansions have no branches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import HALF_PI, format_of, pieces
from codegen.micro.maths.exponential import round_to_integer
from codegen.micro.maths.tables import TURN_CHUNKS

SMALL_ANGLE = 2.0**17
LARGEST_ANGLE = 2.0**50

@dataclass(frozen=True)
class Reduced:
    """An angle as quarters * pi/2 + r + low; only the two low bits of `quarters` mean anything."""

    quarters: Value
    r: Value
    low: Value


def reduce_by_quarter_turns(b: MathBuilder, x: Value) -> Reduced:
    """The reduced angle, of every f32, and of f64 below LARGEST_ANGLE (NaN beyond)."""
    small = _subtract_quarter_turns(b, x)
    if b.dtype(x) == "f64":
        within = b.cmp("lt", b.abs(x), b.const(LARGEST_ANGLE, x))
        return Reduced(small.quarters, b.select(within, small.r, b.const(math.nan, x)), small.low)
    large = _reduce_large(b, x)
    is_small = b.cmp("lt", b.abs(x), b.const(SMALL_ANGLE, x))
    return Reduced(
        b.select(is_small, small.quarters, large.quarters),
        b.select(is_small, small.r, large.r),
        b.select(is_small, small.low, large.low),
    )


def _subtract_quarter_turns(b: MathBuilder, x: Value) -> Reduced:
    """Cody and Waite's reduction.  The first step is exact; the second's rounding error is recovered into low."""
    count, bits = round_to_integer(b, x, b.const(2.0 / math.pi, x), 0)
    back = b.neg(count)
    first, second, third = pieces(b, HALF_PI, x)
    r = b.fma(back, first, x)
    closer = b.fma(back, second, r)
    low = b.fma(back, second, b.sub(r, closer))
    return Reduced(bits, closer, b.fma(back, third, low))


def _reduce_large(b: MathBuilder, x: Value) -> Reduced:
    """Payne and Hanek's reduction of an f32 of at least SMALL_ANGLE, in f64.

    x in [2^first, 2^(first + 29)) uses three consecutive chunks of 1 / (2 pi), of 29, 29 and 53 bits, from the bit of
    weight 2^(22 - first) down: the bits above contribute whole turns only.  The first two products are exact.
    """
    magnitude, wide = b.abs(x), b.widen(x)
    chunks = [b.const(value, wide) for value in TURN_CHUNKS[0][1]]
    for first, values in TURN_CHUNKS[1:]:
        above = b.cmp("ge", magnitude, b.const(2.0**first, x))
        chunks = [b.select(above, b.const(value, wide), chunk) for value, chunk in zip(values, chunks)]
    part, next_part = (_drop_whole_turns(b, b.mul(wide, chunk)) for chunk in chunks[:2])
    count, _ = round_to_integer(b, b.add(part, next_part), b.const(4.0, wide), 0)
    part = b.add(b.fma(count, b.const(-0.25, wide), part), next_part)
    angle = b.mul(b.fma(wide, chunks[2], part), b.const(2.0 * math.pi, wide))
    r = b.narrow(angle)
    quarters = b.bitcast_int(b.add(b.narrow(count), b.const(format_of(b, x).round_shift, x)))
    return Reduced(quarters, r, b.narrow(b.sub(angle, b.widen(r))))


def _drop_whole_turns(b: MathBuilder, turns: Value) -> Value:
    return b.sub(turns, b.rint(turns))
