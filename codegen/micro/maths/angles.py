"""Reduction of an angle to a small remainder and a count of quarter or half turns, for sin, cos and tan.

An f32 is multiplied by 1 / (2 pi) in f64, with the digits that its exponent makes relevant: whole turns are dropped
from the partial products as they appear (Payne and Hanek).  Digits are selected, not branched on, so an angle of
1e38 costs what an angle of 1 costs.  An f64 has no wider type to do this in, and subtracts n * pi/2 in three pieces
(Cody and Waite), which is good for LARGEST_ANGLE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import HALF_PI, format_of, pieces
from codegen.micro.maths.exponential import round_to_integer
from codegen.micro.maths.tables import TURN_CHUNKS

LARGEST_ANGLE = 2.0**50


@dataclass(frozen=True)
class Reduced:
    """An angle as count * step + r + low; only the two low bits of the integer `count` mean anything."""

    count: Value
    r: Value
    low: Value


def reduce_double(b: MathBuilder, x: Value) -> Reduced:
    """An f64 in steps of a quarter turn; r is NaN beyond LARGEST_ANGLE.

    The first step is exact; what the second rounds away is recovered into low.
    """
    count, bits = round_to_integer(b, x, b.const(2.0 / math.pi, x), 0)
    back = b.neg(count)
    first, second, third = pieces(b, HALF_PI, x)
    r = b.fma(back, first, x)
    closer = b.fma(back, second, r)
    low = b.fma(back, third, b.fma(back, second, b.sub(r, closer)))
    within = b.cmp("lt", b.abs(x), b.const(LARGEST_ANGLE, x))
    return Reduced(bits, b.select(within, closer, b.const(math.nan, x)), low)


def reduce_single(b: MathBuilder, x: Value, steps_per_turn: int, ahead: float) -> Reduced:
    """An f32 plus `ahead` turns, in steps of half a turn (2) or a quarter (4); low is zero.

    From 2^first on, x is a multiple of 2^(first - 23), so the digits of 1 / (2 pi) of weight 2^(23 - first) and above
    contribute whole turns only.  Of the rest three chunks are used, of 29, 29 and 53 bits: enough until x reaches
    2^(first + 36).  The first two products are exact, and so are the sums until the step count is taken off; the
    third product joins by an fma, so that even an angle next to a multiple of pi keeps its relative accuracy.
    """
    wide, chunks = b.widen(x), _digits_for(b, x)
    part, next_part = (_drop_whole_turns(b, b.mul(wide, chunk)) for chunk in chunks[:2])
    if ahead:
        part = b.add(part, b.const(ahead, wide))
    estimate = b.fma(wide, chunks[2], b.add(part, next_part))
    count, _ = round_to_integer(b, estimate, b.const(float(steps_per_turn), wide), 0)
    part = b.add(b.fma(count, b.const(-1.0 / steps_per_turn, wide), part), next_part)
    turns = b.fma(wide, chunks[2], part)
    r = b.narrow(b.mul(turns, b.const(2.0 * math.pi, wide)))
    bits = b.bitcast_int(b.add(b.narrow(count), b.const(format_of(b, x).round_shift, x)))
    return Reduced(bits, r, b.const(0.0, x))


def _digits_for(b: MathBuilder, x: Value) -> list[Value]:
    magnitude, wide = b.abs(x), b.widen(x)
    chunks = [b.const(value, wide) for value in TURN_CHUNKS[0][1]]
    for first, values in TURN_CHUNKS[1:]:
        above = b.cmp("ge", magnitude, b.const(2.0**first, x))
        chunks = [b.select(above, b.const(value, wide), chunk) for value, chunk in zip(values, chunks)]
    return chunks


def _drop_whole_turns(b: MathBuilder, turns: Value) -> Value:
    return b.sub(turns, b.rint(turns))
