"""What a vectorised mathematical function may ask of the machine: `MathBuilder`.

The functions in this package are straight-line: they branch by computing both sides and selecting, so that the
same text serves one lane or sixteen; what almost no argument needs stands in `rarely`.  All operations are
element-wise, round to nearest even, and are IEEE: a builder must not reassociate or contract them, because the
expansions lean on exact cancellations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Value = Any
"""A builder's own handle on a vector (or scalar) of f32, f64, i32, i64 or bool."""


class MathBuilder(Protocol):
    """The primitive operations.  Integers wrap, are signed in `cmp`, and are as wide as the floats beside them."""

    def dtype(self, x: Value) -> str:
        """"f32" or "f64", for a float value."""

    def const(self, value: float, like: Value) -> Value:
        """A constant with the dtype and lanes of the float `like`."""

    def iconst(self, value: int, like: Value) -> Value:
        """An integer constant as wide as `like`, which may be a float or an integer."""

    def add(self, a: Value, c: Value) -> Value:
        """a + c."""

    def sub(self, a: Value, c: Value) -> Value:
        """a - c."""

    def mul(self, a: Value, c: Value) -> Value:
        """a * c."""

    def div(self, a: Value, c: Value) -> Value:
        """a / c, correctly rounded."""

    def fma(self, a: Value, c: Value, d: Value) -> Value:
        """a * c + d with one rounding."""

    def neg(self, a: Value) -> Value:
        """-a: flips the sign bit, of NaN too."""

    def abs(self, a: Value) -> Value:
        """|a|: clears the sign bit."""

    def sqrt(self, a: Value) -> Value:
        """The square root, correctly rounded."""

    def rint(self, a: Value) -> Value:
        """The nearest integer, ties to even, as a float."""

    def floor(self, a: Value) -> Value:
        """The largest integer not above a, as a float."""

    def min(self, a: Value, c: Value) -> Value:
        """a < c ? a : c, so a NaN in either gives c: put the value that may be NaN second."""

    def max(self, a: Value, c: Value) -> Value:
        """a > c ? a : c, so a NaN in either gives c: put the value that may be NaN second."""

    def cmp(self, op: str, a: Value, c: Value) -> Value:
        """A bool; op in lt le gt ge eq ne, on floats or integers.  A NaN makes `ne` true, the others false."""

    def select(self, cond: Value, a: Value, c: Value) -> Value:
        """cond ? a : c."""

    def rarely(self, cond: Value, values: Callable[[], tuple[Value, ...]], otherwise: tuple[Value, ...]) -> tuple[Value, ...]:
        """Each of `values()` where cond holds, elsewhere those of `otherwise`; a builder may skip `values` when no lane wants it."""

    def logic_and(self, a: Value, c: Value) -> Value:
        """Both of two bools."""

    def logic_or(self, a: Value, c: Value) -> Value:
        """Either of two bools."""

    def logic_not(self, a: Value) -> Value:
        """The opposite of a bool."""

    def bitcast_int(self, x: Value) -> Value:
        """The bits of a float."""

    def bitcast_float(self, i: Value) -> Value:
        """The float with these bits."""

    def to_float(self, i: Value) -> Value:
        """A signed integer rounded to the float of its width."""

    def iadd(self, a: Value, c: Value) -> Value:
        """Wrapping a + c."""

    def isub(self, a: Value, c: Value) -> Value:
        """Wrapping a - c."""

    def iand(self, a: Value, c: Value) -> Value:
        """Bitwise and."""

    def ior(self, a: Value, c: Value) -> Value:
        """Bitwise or."""

    def ixor(self, a: Value, c: Value) -> Value:
        """Bitwise exclusive or."""

    def shl(self, a: Value, count: int) -> Value:
        """Shift left by a constant."""

    def lshr(self, a: Value, count: int) -> Value:
        """Shift right by a constant, filling with zeros."""

    def ashr(self, a: Value, count: int) -> Value:
        """Shift right by a constant, filling with the sign."""

    def widen(self, x: Value) -> Value:
        """f32 to f64."""

    def narrow(self, x: Value) -> Value:
        """f64 to f32, to nearest even."""
