"""Functions that Triton's language lacks, as ``@triton.jit`` text put in front of the kernels that call them.

Mathematical functions come from :mod:`codegen.micro.maths`, written out in Triton's primitive operations: the same text runs on every
GPU and under the interpreter, where libdevice does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codegen.emit.triton_types import literal, tl, typed
from codegen.micro.maths import FUNCTIONS, arity
from dsl.dtype import Dtype, by_name

# Expansions that gain or lose nothing when a product and a sum become one operation; the others rely on exact cancellation.
FUSION_SAFE = frozenset({"tanh", "expm1", "sinh", "cosh", "atan", "atan2"})

_TEXT = {
    "floordiv_int": '''def _floordiv_int(a, b):
    """Rounded towards minus infinity; -1 for a divisor of zero."""
    safe = b + (b == 0).to(b.dtype)
    q = a // safe
    r = a - q * safe
    q = tl.where((r != 0) & ((r < 0) != (safe < 0)), q - 1, q)
    return tl.where(b == 0, q - q - 1, q)
''',
    "mod_int": '''def _mod_int(a, b):
    """The remainder with the sign of the divisor; the dividend for a divisor of zero."""
    safe = b + (b == 0).to(b.dtype)
    r = a - a // safe * safe
    r = tl.where((r != 0) & ((r < 0) != (safe < 0)), r + safe, r)
    return tl.where(b == 0, a, r)
''',
    "mod_float": '''def _mod_float(a, b):
    """The remainder with the sign of the divisor."""
    r = _rest(a, b)
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
''',
    "floordiv_float": '''def _floordiv_float(a, b):
    """Rounded towards minus infinity: the quotient that belongs to the remainder; of zero, that of division."""
    r = _rest(a, b)
    q = _rint((a - r) / b)
    q = tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1.0, q)
    return tl.where((b == 0) | (q == 0), tl.where(b == 0, a / b, (a / b) * 0.0), q)
''',
    "sign": '''def _sign(x):
    """1, 0 or -1; 0 for NaN."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
''',
    "trunc": '''def _trunc(x):
    """Rounded towards zero."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))
''',
    "rint_f32": '''def _rint_f32(x):
    """The nearest integer, ties to even: adding 2**23 leaves no bits for a fraction."""
    size = tl.abs(x)
    whole = (size + 8388608.0) - 8388608.0
    return tl.where(size < 8388608.0, tl.where(x < 0, whole * -1.0, whole), x)
''',
    "rint_f64": '''def _rint_f64(x):
    """The nearest integer, ties to even: adding 2**52 leaves no bits for a fraction."""
    size = tl.abs(x)
    whole = (size + 4503599627370496.0) - 4503599627370496.0
    return tl.where(size < 4503599627370496.0, tl.where(x < 0, whole * -1.0, whole), x)
''',
    "int_pow": '''def _int_pow(x, y, BITS: tl.constexpr):
    """x**y in wrapping integers; a negative power is 0 but of 1 and -1."""
    result = x - x + 1
    base = x
    n = y
    for _ in range(BITS):
        result = tl.where((n & 1) == 1, result * base, result)
        base = base * base
        n = n >> 1
    odd = (y & 1).to(x.dtype)
    inverse = tl.where(x + 1 == 0, 1 - odd - odd, (x == 1).to(x.dtype))
    return tl.where(y < 0, inverse, result)
''',
    "to_f8e4m3": '''def _to_f8e4m3(x):
    """Beyond the largest finite number, 448, is NaN: this format has no infinity."""
    return tl.where(tl.abs(x) > 464.0, float("nan"), x).to(tl.float8e4nv)
''',
    "to_f8e5m2": '''def _to_f8e5m2(x):
    """Rounded to infinity beyond the largest finite number, where the machine's conversion saturates."""
    bits = x.to(tl.float8e5).to(tl.uint8, bitcast=True)
    infinite = tl.where(x > 0, tl.full([], 0x7C, tl.uint8), tl.full([], 0xFC, tl.uint8))
    return tl.where(tl.abs(x) >= 61440.0, infinite, bits).to(tl.float8e5, bitcast=True)
''',
    "lgamma_f64": '''def _lgamma_f64(x):
    """Stirling's series from 10 upwards, reached by the recurrence; below 1/2 by reflection."""
    mirrored = x < 0.5
    z = tl.where(mirrored, 1.0 - x, x)
    shift = z * 0.0 + 1.0
    for _ in range(10):
        small = z < 10.0
        shift = tl.where(small, shift * z, shift)
        z = tl.where(small, z + 1.0, z)
    w = 1.0 / z
    v = w * w
    series = ((((0.0064102564102564102 * v - 0.0019175269175269176) * v + 0.00084175084175084175) * v - 0.00059523809523809524) * v
              + 0.00079365079365079365) * v
    series = ((series - 0.0027777777777777778) * v + 0.083333333333333333) * w
    y = (z - 0.5) * tl.log(z) - z + 0.91893853320467274178 + series - tl.log(shift)
    turn = tl.abs(x - tl.floor(x + 0.5))
    y = tl.where(mirrored, 1.1447298858494001741 - tl.log(tl.sin(turn * 3.1415926535897932385)) - y, y)
    y = tl.where((x == 1.0) | (x == 2.0), 0.0, y)
    return tl.where((tl.abs(x) == float("inf")) | (mirrored & (turn == 0.0)), float("inf"), y)
''',
}


class Helpers:
    """The helper functions a kernel calls, each once. Their names start with an underscore, and no argument's or local's does."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.fusion_safe = True

    def use(self, name: str) -> str:
        """One of the functions above."""
        return self.add(f"_{name}", _TEXT[name])

    def add(self, name: str, source: str) -> str:
        """A function whose text the caller made; ``source`` starts with ``def``."""
        self.sources.setdefault(name, "@triton.jit\n" + source)
        return name

    def maths(self, name: str, dtype: Dtype) -> str:
        """An expansion of :mod:`codegen.micro.maths`."""
        full = f"_{name}_{dtype.name}"
        if full not in self.sources:
            self.add(full, _expand(name, full, dtype, self))
            self.fusion_safe &= name in FUSION_SAFE
        return full

    def remainder(self, name: str, dtype: Dtype) -> str:
        """``mod`` or ``floordiv`` of floats."""
        rest, rint = self.add(f"_rest_{dtype.name}", _rest(dtype)), self.use(f"rint_{dtype.name}")
        text = _TEXT[f"{name}_float"].replace("_float(", f"_{dtype.name}(", 1).replace("_rest(", f"{rest}(").replace("_rint(", f"{rint}(")
        if dtype.name == "f32":
            text = text.replace("(a - r) / b", "tl.div_rn(a - r, b)").replace("a / b", "tl.div_rn(a, b)")
        return self.add(f"_{name}_{dtype.name}", text)

    def saturating(self, source: Dtype, to: Dtype) -> str:
        """Conversion of f32 or f64 to an integer: towards zero, saturating, NaN to 0."""
        name = f"_{source.name}_to_{to.name}"
        lo, hi = -(1 << to.bits - 1) if to.signed else 0, (1 << to.bits - to.signed) - 1
        largest = _largest_below(hi, source.mantissa + 1)
        wide = "tl.int64" if to.bits >= 32 and not (to.bits == 32 and to.signed) else "tl.int32"
        lines = [f"def {name}(x):", '    """Truncates, saturates, and gives 0 for NaN."""', "    x = tl.where(x != x, 0.0, x)",
                 f"    inside = tl.minimum(tl.maximum(x, {typed(lo, source)}), {typed(largest, source)}).to({wide}).to({tl(to)})"]
        if largest != hi:
            lines.append(f"    return tl.where(x >= {float(hi)!r}, {typed(hi, to)}, inside)")
        else:
            lines.append("    return inside")
        return self.add(name, "\n".join(lines) + "\n")


def _rest(dtype: Dtype) -> str:
    """The exact remainder of a division towards zero, which GPUs lack: ``a - trunc(a / b) * b`` is wrong when the quotient was rounded.

    Below ``2**digits``, rounding takes a quotient to the next integer at most, and the fused subtraction loses nothing. Larger quotients
    are taken off from the top; the power is applied in three factors since it may be too large for one.
    """
    digits, times, divide = (21, 14, "tl.div_rn(rest, step)") if dtype.name == "f32" else (51, 41, "rest / step")
    return f'''def _rest_{dtype.name}(a, b):
    """The remainder of a division rounded towards zero, exact: {digits} binary digits of the quotient are taken off at a time."""
    rest = tl.abs(a)
    size = tl.abs(b)
    power = tl.cast({2.0 ** (times * digits // 3)!r}, {tl(dtype)})
    for _ in range({times + 1}):
        step = size * power * power * power
        less = tl.fma(-tl.floor({divide}), step, rest)
        rest = tl.where(step <= rest, tl.where(less < 0, less + step, less), rest)
        power = power * {2.0 ** (-digits // 3)!r}
    rest = tl.where((rest < size) | (b != b), tl.where(b == b, rest, b), float("nan"))
    return tl.where(rest == tl.abs(a), a, tl.where(a < 0, -rest, rest))
'''


def _largest_below(limit: int, digits: int) -> int:
    """The greatest integer not above ``limit`` with at most ``digits`` significant bits."""
    drop = max(limit.bit_length() - digits, 0)
    return limit >> drop << drop


def _expand(name: str, full: str, dtype: Dtype, helpers: Helpers) -> str:
    params = ("x", "y")[:arity(name)]
    b = TritonMath(helpers)
    result = FUNCTIONS[name](b, *(Piece(p, dtype.name) for p in params))
    body = "".join(f"    {line}\n" for line in b.lines)
    return f"def {full}({', '.join(params)}):\n{body}    return {result.text}\n"


@dataclass(frozen=True)
class Piece:
    """A value in an expansion; ``value`` when it is a literal."""

    text: str
    dtype: str
    value: Any = None

    @property
    def scalar(self) -> str:
        """Text with a dtype of its own, also for a literal."""
        return self.text if self.value is None else typed(self.value, by_name(self.dtype))


_INTEGER = {"f32": "i32", "f64": "i64", "i32": "i32", "i64": "i64"}
_FLOAT = {"i32": "f32", "i64": "f64"}
_TL = {"f32": "tl.float32", "f64": "tl.float64", "i32": "tl.int32", "i64": "tl.int64"}
_SYMBOL = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class TritonMath:
    """The :class:`codegen.micro.maths.MathBuilder` that writes one Triton statement per operation."""

    def __init__(self, helpers: Helpers) -> None:
        self.helpers = helpers
        self.lines: list[str] = []

    def _let(self, text: str, dtype: str) -> Piece:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return Piece(name, dtype)

    def _infix(self, symbol: str, a: Piece, c: Piece, dtype: str = "") -> Piece:
        both = a.value is not None and c.value is not None
        return self._let(f"{a.scalar if both else a.text} {symbol} {c.text}", dtype or a.dtype)

    def dtype(self, x: Piece) -> str:
        """The dtype's name."""
        return x.dtype

    def const(self, value: float, like: Piece) -> Piece:
        """A literal."""
        return Piece(literal(value, by_name(like.dtype)), like.dtype, value)

    def iconst(self, value: int, like: Piece) -> Piece:
        """An integer literal."""
        return Piece(repr(value), _INTEGER[like.dtype], value)

    def add(self, a: Piece, c: Piece) -> Piece:
        """a + c."""
        return self._infix("+", a, c)

    def sub(self, a: Piece, c: Piece) -> Piece:
        """a - c."""
        return self._infix("-", a, c)

    def mul(self, a: Piece, c: Piece) -> Piece:
        """a * c."""
        return self._infix("*", a, c)

    def div(self, a: Piece, c: Piece) -> Piece:
        """a / c, correctly rounded."""
        return self._let(f"tl.div_rn({a.scalar}, {c.scalar})", a.dtype) if a.dtype == "f32" else self._infix("/", a, c)

    def fma(self, a: Piece, c: Piece, d: Piece) -> Piece:
        """a * c + d, rounded once."""
        return self._let(f"tl.fma({a.scalar}, {c.scalar}, {d.scalar})", a.dtype)

    def neg(self, a: Piece) -> Piece:
        """-a."""
        return self._let(f"-{a.scalar}", a.dtype)

    def abs(self, a: Piece) -> Piece:
        """|a|."""
        return self._let(f"tl.abs({a.scalar})", a.dtype)

    def sqrt(self, a: Piece) -> Piece:
        """The square root."""
        return self._let(f"tl.sqrt{'_rn' if a.dtype == 'f32' else ''}({a.scalar})", a.dtype)

    def rint(self, a: Piece) -> Piece:
        """The nearest integer."""
        return self._let(f"{self.helpers.use('rint_' + a.dtype)}({a.scalar})", a.dtype)

    def floor(self, a: Piece) -> Piece:
        """The integer below."""
        return self._let(f"tl.floor({a.scalar})", a.dtype)

    def min(self, a: Piece, c: Piece) -> Piece:
        """a < c ? a : c."""
        return self.select(self.cmp("lt", a, c), a, c)

    def max(self, a: Piece, c: Piece) -> Piece:
        """a > c ? a : c."""
        return self.select(self.cmp("gt", a, c), a, c)

    def cmp(self, op: str, a: Piece, c: Piece) -> Piece:
        """A bool."""
        return self._infix(_SYMBOL[op], a, c, "bool")

    def select(self, cond: Piece, a: Piece, c: Piece) -> Piece:
        """cond ? a : c."""
        return self._let(f"tl.where({cond.text}, {a.scalar}, {c.scalar})", a.dtype)

    def rarely(self, cond: Piece, values: Callable[[], tuple[Piece, ...]], otherwise: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Both, chosen from by element: to ask whether any element wants the first would cost a barrier."""
        return tuple(self.select(cond, a, c) for a, c in zip(values(), otherwise))

    def logic_and(self, a: Piece, c: Piece) -> Piece:
        """Both."""
        return self._infix("&", a, c)

    def logic_or(self, a: Piece, c: Piece) -> Piece:
        """Either."""
        return self._infix("|", a, c)

    def logic_not(self, a: Piece) -> Piece:
        """The opposite."""
        return self._let(f"~{a.text}", a.dtype)

    def bitcast_int(self, x: Piece) -> Piece:
        """The bits."""
        to = _INTEGER[x.dtype]
        return self._let(f"{x.scalar}.to({_TL[to]}, bitcast=True)", to)

    def bitcast_float(self, i: Piece) -> Piece:
        """The float with these bits."""
        return self._let(f"{i.scalar}.to({_TL[_FLOAT[i.dtype]]}, bitcast=True)", _FLOAT[i.dtype])

    def to_float(self, i: Piece) -> Piece:
        """The nearest float."""
        return self._let(f"{i.scalar}.to({_TL[_FLOAT[i.dtype]]})", _FLOAT[i.dtype])

    def iadd(self, a: Piece, c: Piece) -> Piece:
        """Wrapping a + c."""
        return self._infix("+", a, c)

    def isub(self, a: Piece, c: Piece) -> Piece:
        """Wrapping a - c."""
        return self._infix("-", a, c)

    def iand(self, a: Piece, c: Piece) -> Piece:
        """Bitwise and."""
        return self._infix("&", a, c)

    def ior(self, a: Piece, c: Piece) -> Piece:
        """Bitwise or."""
        return self._infix("|", a, c)

    def ixor(self, a: Piece, c: Piece) -> Piece:
        """Bitwise exclusive or."""
        return self._infix("^", a, c)

    def shl(self, a: Piece, count: int) -> Piece:
        """Shift left."""
        return self._let(f"{a.scalar} << {count}", a.dtype)

    def lshr(self, a: Piece, count: int) -> Piece:
        """Shift right, filling with zeros."""
        unsigned = "tl.uint32" if a.dtype == "i32" else "tl.uint64"
        return self._let(f"({a.scalar}.to({unsigned}, bitcast=True) >> {count}).to({_TL[a.dtype]}, bitcast=True)", a.dtype)

    def ashr(self, a: Piece, count: int) -> Piece:
        """Shift right, filling with the sign."""
        return self._let(f"{a.scalar} >> {count}", a.dtype)

    def widen(self, x: Piece) -> Piece:
        """f32 to f64."""
        return self._let(f"{x.scalar}.to(tl.float64)", "f64")

    def narrow(self, x: Piece) -> Piece:
        """f64 to f32."""
        return self._let(f"{x.scalar}.to(tl.float32)", "f32")
