"""Reduction of an angle to a small remainder and a count of quarter or half turns, for sin, cos and tan; every float, however large.

Either format subtracts n * pi/2 (or n * pi) in three pieces (Cody and Waite).  From LARGE_ANGLE on an f32 is multiplied
by 1 / (2 pi) in f64, with the digits that its exponent makes relevant: whole turns are dropped from the partial products
as they appear (Payne and Hanek); digits are selected, not branched on.  An f64, which has no wider type to do this in,
keeps products and sums as unevaluated pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from codegen.micro.maths.builder import MathBuilder, Value
from codegen.micro.maths.core import HALF_PI, format_of, pieces, quick_two_sum, two_product, two_sum
from codegen.micro.maths.exponential import round_to_integer
from codegen.micro.maths.tables import CHUNK_SCALE, QUARTER_CHUNKS, TURN_CHUNKS

LARGE_ANGLE = {"f32": 2.0**16, "f64": 2.0**50}


@dataclass(frozen=True)
class Reduced:
    """An angle as count * step + r + low; only the two low bits of the integer `count` mean anything."""

    count: Value
    r: Value
    low: Value


def reduce_double(b: MathBuilder, x: Value) -> Reduced:
    """An f64 in steps of a quarter turn.

    Below LARGE_ANGLE the first step is exact; what the second rounds away is recovered into low.
    """
    count, bits = round_to_integer(b, x, b.const(2.0 / math.pi, x), 0)
    back = b.neg(count)
    first, second, third = pieces(b, HALF_PI, x)
    r = b.fma(back, first, x)
    closer = b.fma(back, second, r)
    low = b.fma(back, third, b.fma(back, second, b.sub(r, closer)))
    large = b.cmp("ge", b.abs(x), b.const(LARGE_ANGLE["f64"], x))
    return Reduced(*b.rarely(large, lambda: _reduce_large_double(b, x), (bits, closer, low)))


def _reduce_large_double(b: MathBuilder, x: Value) -> tuple[Value, Value, Value]:
    """(count, r, low) of an f64 from LARGE_ANGLE on; NaN for an infinity.

    From 2^first on, x is a multiple of 2^(first - 52), so the digits of 2 / pi of weight 2^(54 - first) and above contribute whole turns
    only. Six chunks of the rest, of 53 bits each, leave less than 2^-140 of a quarter turn until x reaches 2^(first + 122); no f64 lies
    closer to a multiple of it than 2^-62. Chunks are larger and x smaller by 2^CHUNK_SCALE, so that neither leaves the normal numbers.
    """
    near, scaled = b.const(-4.0, x), b.mul(x, b.const(2.0**-CHUNK_SCALE, x))
    chunks = _select_by_magnitude(b, x, [(2.0**first, values) for first, values in QUARTER_CHUNKS])
    highs = [b.mul(scaled, chunk) for chunk in chunks]
    lows = [b.fma(scaled, chunk, b.neg(high)) for chunk, high in zip(chunks[:5], highs)]

    def within_turn(quarters: Value) -> Value:
        return b.fma(b.rint(b.mul(quarters, b.const(0.25, x))), near, quarters)

    large = [within_turn(t) for pair in zip(highs[:4], lows[:3]) for t in pair] + [within_turn(highs[3])]
    total, lost = _add_up(b, large)
    count, bits = round_to_integer(b, total, None, 0)
    part, rest = _add_up(b, [b.sub(total, count), lows[3], highs[4], *lost])
    for t in (lows[4], highs[5], *rest[1:]):
        rest[0] = b.add(rest[0], t)
    fraction = quick_two_sum(b, part, rest[0])
    half_pi, half_pi_low, _ = pieces(b, HALF_PI, x)
    return bits, *quick_two_sum(b, *two_product(b, fraction, (half_pi, half_pi_low)))


def _add_up(b: MathBuilder, terms: list[Value]) -> tuple[Value, list[Value]]:
    """The rounded sum, and what each addition lost."""
    total, lost = terms[0], []
    for t in terms[1:]:
        total, error = two_sum(b, total, t)
        lost.append(error)
    return total, lost


def reduce_single(b: MathBuilder, x: Value, steps_per_turn: int, ahead: float) -> Reduced:
    """An f32 plus `ahead` turns, in steps of half a turn (2) or a quarter (4).

    Steps are counted at x + `ahead`, but subtracted from x, which no sum has rounded: the first piece leaves an exact difference
    wherever x is near what is subtracted, the others round it once each. low is zero.
    """
    step = [b.const(value * 4 / steps_per_turn, x) for value in HALF_PI["f32"]]
    per_unit = b.const(steps_per_turn / (2.0 * math.pi), x)
    skipped = b.const(ahead * steps_per_turn, x)
    count, bits = round_to_integer(b, b.fma(x, per_unit, skipped) if ahead else x, None if ahead else per_unit, 0)
    back = b.sub(skipped, count) if ahead else b.neg(count)
    r = b.fma(back, step[2], b.fma(back, step[1], b.fma(back, step[0], x)))
    large = b.cmp("ge", b.abs(x), b.const(LARGE_ANGLE["f32"], x))
    bits, r = b.rarely(large, lambda: _reduce_large_single(b, x, steps_per_turn, ahead), (bits, r))
    return Reduced(bits, r, b.const(0.0, x))


def _reduce_large_single(b: MathBuilder, x: Value, steps_per_turn: int, ahead: float) -> tuple[Value, Value]:
    """(count, r) of any f32.

    From 2^first on, x is a multiple of 2^(first - 23), so the digits of 1 / (2 pi) of weight 2^(23 - first) and above
    contribute whole turns only.  Of the rest three chunks are used, of 29, 29 and 53 bits: enough until x reaches
    2^(first + 36).  The first two products are exact, and so are the sums until the step count is taken off; the
    third product joins by an fma, so that even an angle next to a multiple of pi keeps its relative accuracy.
    """
    wide, chunks = b.widen(x), _select_by_magnitude(b, x, [(2.0**first, values) for first, values in TURN_CHUNKS])
    part, next_part = (_drop_whole_turns(b, b.mul(wide, chunk)) for chunk in chunks[:2])
    if ahead:
        part = b.add(part, b.const(ahead, wide))
    estimate = b.fma(wide, chunks[2], b.add(part, next_part))
    count, _ = round_to_integer(b, estimate, b.const(float(steps_per_turn), wide), 0)
    part = b.add(b.fma(count, b.const(-1.0 / steps_per_turn, wide), part), next_part)
    turns = b.fma(wide, chunks[2], part)
    r = b.narrow(b.mul(turns, b.const(2.0 * math.pi, wide)))
    bits = b.bitcast_int(b.add(b.narrow(count), b.const(format_of(b, x).round_shift, x)))
    return bits, r


def _select_by_magnitude(b: MathBuilder, x: Value, table: list[tuple[float, tuple[float, ...]]]) -> list[Value]:
    """The constants, as wide as f64, of the last row whose limit is not above |x|; those of the first row below all limits."""
    magnitude, wide = b.abs(x), b.widen(x) if b.dtype(x) == "f32" else x
    chunks = [b.const(value, wide) for value in table[0][1]]
    for limit, values in table[1:]:
        above = b.cmp("ge", magnitude, b.const(limit, x))
        chunks = [b.select(above, b.const(value, wide), chunk) for value, chunk in zip(values, chunks)]
    return chunks


def _drop_whole_turns(b: MathBuilder, turns: Value) -> Value:
    return b.sub(turns, b.rint(turns))
