"""Convolutions, as sums over channels and kernel offsets."""

from __future__ import annotations

import functools
import operator
from typing import Any

from dsl.carrier import SUM
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, index, op, where
from dsl.ops.dispatch import build, operation, same_size, static
from dsl.program import reduce_axis, reduce_over

_AXES = ("z", "y", "x")


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int, rank: int) -> Any:
    """``out[n, f, p] = sum over c, r of x[n, c, p*stride + r*dilation - padding] * weight[f, c, r]``; zero outside."""
    steps, pads, gaps = (_each(v, rank, what) for v, what in ((stride, "stride"), (padding, "padding"), (dilation, "dilation")))
    if x.ndim != rank + 2 or weight.ndim != rank + 2:
        raise ShapeError(f"conv{rank}d takes tensors of rank {rank + 2}", f"the arguments are {x} and {weight}")
    same_size(x.shape[1], weight.shape[1] * groups, str(x), str(weight), f"conv{rank}d")
    c = reduce_axis(weight.shape[1], name="c")
    offsets = [reduce_axis(weight.shape[n + 2], name=f"r{_AXES[n + 3 - rank]}") for n in range(rank)]
    sizes = [(s + 2 * p - g * (w - 1) - 1) // t + 1 for s, p, g, w, t in zip(x.shape[2:], pads, gaps, weight.shape[2:], steps)]
    per_group = weight.shape[0] // groups if groups > 1 else None

    source = _padded(x, pads)

    def body(n: Any, f: Any, *at: Any) -> Expr:
        places = [p * t + r * g for p, t, r, g in zip(at, steps, offsets, gaps)]
        channel = c if per_group is None else op("floordiv", f, static(per_group, "channels of a group")) * static(weight.shape[1], "channels") + c
        total = reduce_over(SUM, (source.read(n, channel, *places) * weight.read(f, c, *offsets),), (c, *offsets))
        return total if bias is None else total + bias.read(f)

    names = ("n", "f", *_AXES[3 - rank:])
    return build(f"conv{rank}d", (x.shape[0], weight.shape[0], *sizes), body, names)


def _padded(x: Tensor, pads: list[int]) -> Tensor:
    """The tensor with zeros around its last dimensions; a definition of its own, so that a schedule may compute it once."""
    if not any(pads):
        return x

    def body(n: Any, c: Any, *at: Any) -> Expr:
        places = [p - pad for p, pad in zip(at, pads)]
        inside = [(place >= 0) & (place < index(size)) for place, size, pad in zip(places, x.shape[2:], pads) if pad]
        return where(functools.reduce(operator.and_, inside), x.read(n, c, *places), 0)

    sizes = [s + 2 * p for s, p in zip(x.shape[2:], pads)]
    return build("padded", (*x.shape[:2], *sizes), body, ("n", "c", *_AXES[3 - len(pads):]))


def _each(value: Any, rank: int, what: str) -> list[int]:
    out = list(value) if isinstance(value, (tuple, list)) else [value] * rank
    if len(out) != rank or any(not isinstance(v, int) or v < 0 for v in out):
        raise ShapeError(f"{what} of conv{rank}d is {value!r}", remedy=f"an int, or {rank} of them, not negative")
    return out


@operation
def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """``(N, C, L), (F, C / groups, R) -> (N, F, L')``, zero padding."""
    return _conv(x, weight, bias, stride, padding, dilation, groups, 1)


@operation
def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """``(N, C, H, W), (F, C / groups, R, S) -> (N, F, H', W')``, zero padding."""
    return _conv(x, weight, bias, stride, padding, dilation, groups, 2)


@operation
def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """``(N, C, D, H, W), (F, C / groups, ...) -> (N, F, ...)``, zero padding."""
    return _conv(x, weight, bias, stride, padding, dilation, groups, 3)
