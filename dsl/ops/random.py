"""Random numbers by counting: Philox 4x32-10 of a seed and an element's own position.

Every element is a pure function of ``(seed, position)``, so a kernel has the same numbers in whatever order it runs, on every
target, and its backward computes them again instead of keeping them. Element ``n`` of a tensor in row-major order takes the block
with counter ``n`` under the key ``seed``; a scheme of Salmon, Moraes, Dror and Shaw (Parallel random numbers: as easy as 1, 2, 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dsl.dim import as_term
from dsl.dtype import Dtype, f32, f64, i64, u32
from dsl.errors import DtypeError
from dsl.expr import Const, Expr, Index, Tensor, cast, const, index, op, where
from dsl.ops.dispatch import build, element_at, names_of, operation, require, tensor
from dsl.ops.shape import sizes_of

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEYS = (0x9E3779B9, 0xBB67AE85)

Words = tuple[Expr, Expr, Expr, Expr]


def philox(counter: Sequence[Any], key: Sequence[Any]) -> Words:
    """Four random words of 32 bits from four of a counter and two of a key, in ten rounds.

    Args:
        counter: four integer expressions; their low 32 bits count.
        key: two integer expressions.
    """
    c = [_word(v) for v in counter]
    k = [_word(v) for v in key]
    for n in range(ROUNDS):
        high = [op("mulhi", const(m, u32), c[w]) for m, w in zip(_MULTIPLIERS, (0, 2))]
        low = [op("mul", const(m, u32), c[w]) for m, w in zip(_MULTIPLIERS, (0, 2))]
        c = [_xor(_xor(high[1], c[1]), k[0]), low[1], _xor(_xor(high[0], c[3]), k[1]), low[0]]
        if n < ROUNDS - 1:
            k = [_add(w, step) for w, step in zip(k, _KEYS)]
    return c[0], c[1], c[2], c[3]


def _word(v: Any) -> Expr:
    return const(v & 0xFFFFFFFF, u32) if isinstance(v, int) else cast(v, u32)


def _add(a: Expr, b: int) -> Expr:
    return const((int(a.value) + b) & 0xFFFFFFFF, u32) if isinstance(a, Const) else op("add", a, const(b, u32))


def _xor(a: Expr, b: Expr) -> Expr:
    if isinstance(b, Const) and b.value == 0:
        return a
    if isinstance(a, Const) and isinstance(b, Const):
        return const(int(a.value) ^ int(b.value), u32)
    return b if isinstance(a, Const) and a.value == 0 else op("xor", a, b)


def _key(seed: Any) -> tuple[Any, Any]:
    """The low and the high word of a seed: a number, a scalar of the kernel, or an integer expression."""
    if isinstance(seed, Tensor):
        require(not seed.ndim, f"a seed is one number, not {seed}", remedy="declare it as a scalar: seed: i64")
        seed = seed.read()
    if isinstance(seed, int):
        return seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    if not isinstance(seed, Expr) or not seed.dtype.is_int:
        raise DtypeError(f"a seed is an integer, not {seed.dtype if isinstance(seed, Expr) else type(seed).__name__}",
                         remedy="declare it as a scalar: seed: i64")
    return seed, op("shr", cast(seed, i64), 32) if seed.dtype.bits == 64 else 0


def words(seed: Any, position: Any, stream: int = 0) -> Words:
    """The four words at a position (an index or integer expression) under a seed; streams are independent of each other."""
    place: Expr = position if isinstance(position, Expr) else index(as_term(position))
    small = isinstance(place, Index) and place.term.bounds[1] < 2**32
    high: Any = 0 if small or place.dtype.bits < 64 else op("shr", place, 32)
    return philox((place, high, stream, 0), _key(seed))


def _position(at: Sequence[Any], shape: Sequence[Any]) -> Any:
    flat: Any = index(0)
    for i, s in zip(at, shape):
        flat = flat * index(s) + i
    return flat


def unit(w: Words, dtype: Dtype = f32) -> Expr:
    """A number in [0, 1) of the dtype from random words: as many bits as its mantissa holds, so that 1 is never reached."""
    if dtype == f64:
        high = cast(op("shr", w[0], const(6, u32)), i64)  # 26 bits
        low = cast(op("shr", w[1], const(5, u32)), i64)  # 27 bits
        return op("mul", cast(op("add", op("mul", high, 1 << 27), low), f64), 2.0**-53)
    bits = dtype.mantissa + 1
    return cast(op("mul", cast(cast(op("shr", w[0], const(32 - bits, u32)), i64), f32), 2.0**-bits), dtype)


def _sizes(shape: Any, what: str) -> list[Any]:
    return sizes_of((tuple(shape) if isinstance(shape, (tuple, list)) else (shape,),), what)


def _floating(dtype: Dtype, what: str) -> None:
    if not dtype.is_float:
        raise DtypeError(f"{what} of {dtype}", "its numbers are floats", "dlc.randint gives integers")


# -- what users call -----------------------------------------------------------------------------------------------
def rand(seed: Any, shape: Any, dtype: Dtype = f32) -> Any:
    """Uniform in [0, 1).

    Args:
        seed: a number, or a scalar of the kernel (``seed: i64``) so that each call may have another.
        shape: of the result.
        dtype: a float.
    """
    _floating(dtype, "rand")
    sizes = _sizes(shape, "rand")
    return build("rand", sizes, lambda *at: unit(words(seed, _position(at, sizes)), dtype))


def randn(seed: Any, shape: Any, dtype: Dtype = f32) -> Any:
    """Normal with mean 0 and variance 1, by Box and Muller: ``sqrt(-2 log u) * cos(2 pi v)``.

    Args:
        seed: as of :func:`rand`.
        shape: of the result.
        dtype: a float.
    """
    _floating(dtype, "randn")
    sizes = _sizes(shape, "randn")
    return build("randn", sizes, lambda *at: normal(words(seed, _position(at, sizes)), dtype))


def normal(w: Words, dtype: Dtype = f32) -> Expr:
    """A normal number from random words."""
    held = dtype.held
    u, v = unit(w, held), unit((w[2], w[3], w[0], w[1]), held)
    radius = op("sqrt", op("mul", op("log", op("sub", const(1, held), u)), -2.0))  # 1 - u is never 0
    return cast(op("mul", radius, op("cos", op("mul", v, 2 * math.pi))), dtype)


def randint(seed: Any, low: int, high: int, shape: Any, dtype: Dtype = i64) -> Any:
    """Whole numbers in [low, high), for ranges up to 2**32; each as likely as the others to within 2**-32.

    Args:
        seed: as of :func:`rand`.
        low: the least.
        high: one more than the greatest.
        shape: of the result.
        dtype: an integer.
    """
    span = high - low
    require(0 < span <= 2**32, f"randint from {low} to {high}", remedy="high above low, by at most 2**32")
    sizes = _sizes(shape, "randint")

    def body(*at: Any) -> Expr:
        w = words(seed, _position(at, sizes))[0]
        scaled = cast(w, i64) if span == 2**32 else cast(op("mulhi", w, const(span, u32)), i64)  # floor(w * span / 2**32)
        return cast(op("add", scaled, low), dtype)

    return build("randint", sizes, body)


@operation
def bernoulli(p: Any, seed: Any, shape: Any = None) -> Any:
    """1 with probability ``p``, else 0, in the dtype of ``p``: a tensor of probabilities, or a number with a ``shape``."""
    if not isinstance(p, Tensor):
        require(shape is not None, "bernoulli of a number needs a shape")
        sizes = _sizes(shape, "bernoulli")
        return build("bernoulli", sizes, lambda *at: _chance(seed, at, sizes, p, f32))
    _floating(p.dtype, "bernoulli")
    return build("bernoulli", p.shape, lambda *at: _chance(seed, at, p.shape, p.read(*at), p.dtype), names_of(p))


def _chance(seed: Any, at: Sequence[Any], shape: Sequence[Any], p: Any, dtype: Dtype) -> Expr:
    u = unit(words(seed, _position(at, shape)), f64 if dtype == f64 else f32)
    return cast(op("lt", u, cast(p, u.dtype) if isinstance(p, Expr) else p), dtype)


@operation
def dropout(x: Tensor, p: Any = 0.5, seed: Any = 0, training: bool = True) -> Any:
    """``x / (1 - p)`` where a random number is at least ``p``, else 0; ``x`` itself when not ``training``.

    Args:
        x: floats.
        p: the share that is dropped, from 0 to 1; a number, or a scalar of the kernel.
        seed: as of :func:`rand`; use another in each step and in each layer.
        training: False leaves ``x`` as it is.
    """
    t = tensor(x, "dropout")
    if not training:
        return t
    _floating(t.dtype, "dropout")
    share = p.read() if isinstance(p, Tensor) else p
    require(isinstance(share, Expr) or 0 <= share <= 1, f"dropout: p is {share}", remedy="from 0 to 1")

    def body(*at: Any) -> Expr:
        value = element_at(t, at)
        if not isinstance(share, Expr) and share == 1:
            return op("mul", value, 0.0)
        u = unit(words(seed, _position(at, t.shape)), f32)
        scale = op("div", 1.0, op("sub", 1.0, share)) if isinstance(share, Expr) else 1.0 / (1.0 - share)
        return where(op("ge", u, cast(share, f32) if isinstance(share, Expr) else share), op("mul", value, scale), const(0, value.dtype))

    return build("dropout", t.shape, body, names_of(t))


__all__ = ["ROUNDS", "Words", "bernoulli", "dropout", "normal", "philox", "rand", "randint", "randn", "unit", "words"]
