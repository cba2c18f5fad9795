"""Padding: constants, reflections, repeated edges, and the other end. Sizes are torch's: pairs from the last dimension backwards."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

from dsl.dim import Term, as_term
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, as_expr, cast, index, where
from dsl.ops.dispatch import build, names_of, operation, require, tensor

Pair = tuple[int, int]

_MODES = ("constant", "reflect", "replicate", "circular")


@operation
def pad(x: Tensor, pads: Sequence[int], mode: str = "constant", value: Any = 0) -> Any:
    """``x`` with elements added before and after its last dimensions.

    Args:
        x: the tensor.
        pads: (before, after) of the last dimension, then of the one before it, and so on. Negative numbers crop.
        mode: ``constant``; ``reflect``, mirrored without the edge; ``replicate``, the edge repeated; ``circular``, from the other end.
        value: what a constant pad has.

    Raises:
        ShapeError: an odd number of sizes, more than the dimensions have, or a reflection of more than there is.
    """
    t = tensor(x, "pad")
    amounts = [int(p) for p in pads]
    if len(amounts) % 2 or len(amounts) > 2 * t.ndim:
        raise ShapeError(f"pad of {t} by {tuple(amounts)}", f"{len(amounts)} numbers are not pairs for at most {t.ndim} dimensions",
                         "(before, after) of the last dimension first")
    require(mode in _MODES, f"pad: there is no mode {mode!r}", remedy="one of " + ", ".join(_MODES))
    pairs = {t.ndim - 1 - n: (amounts[2 * n], amounts[2 * n + 1]) for n in range(len(amounts) // 2)}
    if mode == "constant":
        return pad_constant(t, pairs, value)
    for d, (before, after) in pairs.items():
        if before or after:
            t = _pad_axis(t, d, before, after, mode)
    return t


def pad_constant(t: Tensor, pairs: dict[int, Pair], value: Any = 0, name: str = "padded") -> Tensor:
    """``t`` with ``value`` around it; ``pairs`` has (before, after) by dimension. A definition, so that a schedule may compute it once."""
    moving = {d: p for d, p in pairs.items() if p != (0, 0)}
    if not moving:
        return t
    shape = [s + sum(moving.get(d, (0, 0))) for d, s in enumerate(t.shape)]
    for d, s in enumerate(shape):
        if s.is_const and s.const < 0:
            raise ShapeError(f"pad of {t} by {moving[d]} in dimension {d}", f"{s.const} elements would be left", "crop less")

    def body(*at: Any) -> Expr:
        places = [i - moving[d][0] if d in moving else i for d, i in enumerate(at)]
        inside = [c for d, (before, after) in moving.items() for c in _inside(places[d], t.shape[d], before, after)]
        element = t.read(*places)
        if not inside:
            return element
        return where(functools.reduce(operator.and_, inside), element, cast(as_expr(value), t.dtype))

    return build(name, shape, body, names_of(t))


def _inside(place: Any, size: Term, before: int, after: int) -> list[Any]:
    return ([place >= 0] if before > 0 else []) + ([place < index(size)] if after > 0 else [])


def _pad_axis(t: Tensor, d: int, before: int, after: int, mode: str) -> Tensor:
    size = t.shape[d]
    most = size - 1 if mode == "reflect" else size
    if mode != "replicate" and size.is_const and max(before, after) > most.const:
        raise ShapeError(f"pad: {max(before, after)} elements of mode {mode!r} beside dimension {d} of {t}", f"there are {most} to take",
                         "pad less, or with mode='replicate'")
    if mode == "replicate" and size == 0:
        raise ShapeError(f"pad: dimension {d} of {t} has no edge to repeat", "its size is 0")
    shape = [*t.shape[:d], size + before + after, *t.shape[d + 1:]]

    def body(*at: Any) -> Expr:
        place = at[d] - before

        def read(i: Any) -> Expr:
            return t.read(*at[:d], i, *at[d + 1:])

        low, high = _beyond(place, size, mode)
        out = read(place)
        if after > 0:
            out = where(place >= index(size), read(high), out)
        return where(place < 0, read(low), out) if before > 0 else out

    return build("padded", shape, body, names_of(t))


def _beyond(place: Any, size: Term, mode: str) -> tuple[Any, Any]:
    """Where the elements before the first and after the last come from."""
    if mode == "reflect":
        return index(0) - place, index(2 * size - 2) - place
    if mode == "replicate":
        return index(0), index(size - 1)
    return place + index(size), place - index(as_term(size))
