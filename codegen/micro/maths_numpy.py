"""`NumpyMath`: the mathematical expansions evaluated on numpy arrays, bit for bit what correct hardware gives.

It is the oracle of the emitters.  fma is exact in f32, and in f64 wherever the result is normal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from codegen.micro.maths import FUNCTIONS

Array = Any
_COMPARE = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}
_INTEGER = {"f32": np.int32, "f64": np.int64, "i32": np.int32, "i64": np.int64}
_FLOAT = {"f32": np.float32, "f64": np.float64, "i32": np.float32, "i64": np.float64}
_NAMES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "bool"}


def evaluate(name: str, *args: Array) -> Array:
    """The named function of `codegen.micro.maths` on float32 or float64 arrays of one shape."""
    with np.errstate(all="ignore"):
        return FUNCTIONS[name](NumpyMath(), *args)


class NumpyMath:
    """A MathBuilder whose values are numpy arrays."""

    def dtype(self, x: Array) -> str:
        """The name of the array's dtype."""
        return _NAMES[x.dtype.name]

    def const(self, value: float, like: Array) -> Array:
        """A zero-dimensional array, which broadcasts."""
        return np.asarray(value, dtype=like.dtype)

    def iconst(self, value: int, like: Array) -> Array:
        """A zero-dimensional integer array."""
        return np.asarray(value, dtype=_INTEGER[self.dtype(like)])

    def add(self, a: Array, c: Array) -> Array:
        """a + c."""
        return a + c

    def sub(self, a: Array, c: Array) -> Array:
        """a - c."""
        return a - c

    def mul(self, a: Array, c: Array) -> Array:
        """a * c."""
        return a * c

    def div(self, a: Array, c: Array) -> Array:
        """a / c."""
        return a / c

    def fma(self, a: Array, c: Array, d: Array) -> Array:
        """a * c + d with one rounding."""
        return _fma32(a, c, d) if self.dtype(a) == "f32" else _fma64(a, c, d)

    def neg(self, a: Array) -> Array:
        """-a."""
        return np.negative(a)

    def abs(self, a: Array) -> Array:
        """|a|."""
        return np.abs(a)

    def sqrt(self, a: Array) -> Array:
        """The square root."""
        return np.sqrt(a)

    def rint(self, a: Array) -> Array:
        """Nearest integer, ties to even."""
        return np.rint(a)

    def floor(self, a: Array) -> Array:
        """Largest integer not above."""
        return np.floor(a)

    def min(self, a: Array, c: Array) -> Array:
        """a < c ? a : c."""
        return np.where(a < c, a, c)

    def max(self, a: Array, c: Array) -> Array:
        """a > c ? a : c."""
        return np.where(a > c, a, c)

    def cmp(self, op: str, a: Array, c: Array) -> Array:
        """A bool array."""
        return _COMPARE[op](a, c)

    def select(self, cond: Array, a: Array, c: Array) -> Array:
        """cond ? a : c."""
        return np.where(cond, a, c)

    def rarely(self, cond: Array, values: Callable[[], tuple[Array, ...]], otherwise: tuple[Array, ...]) -> tuple[Array, ...]:
        """Both, chosen from by lane."""
        return tuple(np.where(cond, a, c) for a, c in zip(values(), otherwise))

    def logic_and(self, a: Array, c: Array) -> Array:
        """Both."""
        return a & c

    def logic_or(self, a: Array, c: Array) -> Array:
        """Either."""
        return a | c

    def logic_not(self, a: Array) -> Array:
        """The opposite."""
        return ~a

    def bitcast_int(self, x: Array) -> Array:
        """The bits."""
        return x.view(_INTEGER[self.dtype(x)])

    def bitcast_float(self, i: Array) -> Array:
        """The float with these bits."""
        return i.view(_FLOAT[self.dtype(i)])

    def to_float(self, i: Array) -> Array:
        """The nearest float of the same width."""
        return i.astype(_FLOAT[self.dtype(i)])

    def iadd(self, a: Array, c: Array) -> Array:
        """Wrapping a + c."""
        return a + c

    def isub(self, a: Array, c: Array) -> Array:
        """Wrapping a - c."""
        return a - c

    def iand(self, a: Array, c: Array) -> Array:
        """Bitwise and."""
        return a & c

    def ior(self, a: Array, c: Array) -> Array:
        """Bitwise or."""
        return a | c

    def ixor(self, a: Array, c: Array) -> Array:
        """Bitwise exclusive or."""
        return a ^ c

    def shl(self, a: Array, count: int) -> Array:
        """Shift left."""
        return np.left_shift(a, a.dtype.type(count))

    def lshr(self, a: Array, count: int) -> Array:
        """Shift right, filling with zeros."""
        unsigned = a.view(np.uint32 if a.dtype == np.int32 else np.uint64)
        return np.right_shift(unsigned, unsigned.dtype.type(count)).view(a.dtype)

    def ashr(self, a: Array, count: int) -> Array:
        """Shift right, filling with the sign."""
        return np.right_shift(a, a.dtype.type(count))

    def widen(self, x: Array) -> Array:
        """float32 to float64."""
        return x.astype(np.float64)

    def narrow(self, x: Array) -> Array:
        """float64 to float32."""
        return x.astype(np.float32)


def _two_sum(a: Array, c: Array) -> tuple[Array, Array]:
    total = a + c
    moved = total - a
    return total, (a - (total - moved)) + (c - moved)


def _round_to_odd(total: Array, error: Array) -> Array:
    """total + error truncated, with the last bit set if that lost anything.

    A second rounding, to a format at least two bits narrower, then gives what one rounding would have given.
    """
    bits = np.asarray(total).view(np.int64)
    towards_zero = (error < 0) != (total < 0)
    odd = (np.where(towards_zero, bits - 1, bits) | 1).view(np.float64)
    return np.where(np.isfinite(total) & (error != 0), odd, total)


def _fma32(a: Array, c: Array, d: Array) -> Array:
    product = np.multiply(a, c, dtype=np.float64)  # 24 + 24 bits: exact
    wide = np.asarray(d, dtype=np.float64)
    return _round_to_odd(*_two_sum(product, wide)).astype(np.float32)


def _split(a: Array) -> tuple[Array, Array]:
    """a as two halves of at most 26 bits."""
    shifted = a * 134217729.0
    high = shifted - (shifted - a)
    return high, a - high


def _fma64(a: Array, c: Array, d: Array) -> Array:
    """The algorithm of Boldo and Melquiond, on operands scaled so that no step over- or underflows."""
    a_part, a_power = np.frexp(a)
    c_part, c_power = np.frexp(c)
    power = a_power + c_power
    addend = np.ldexp(d, np.clip(-power, -2000, 900))
    (a_high, a_low), (c_high, c_low) = _split(a_part), _split(c_part)
    product = a_part * c_part
    product_low = ((a_high * c_high - product) + a_high * c_low + a_low * c_high) + a_low * c_low
    upper, upper_low = _two_sum(addend, product_low)
    total, total_low = _two_sum(product, upper)
    scaled = total + _round_to_odd(*_two_sum(total_low, upper_low))
    exact = np.ldexp(scaled, power)
    usable = np.isfinite(exact) & np.isfinite(addend) & (a_part != 0) & (c_part != 0) & (power < 900) & (power > -900)
    return np.where(usable, exact, a * c + d)
