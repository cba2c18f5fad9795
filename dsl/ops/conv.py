"""Convolutions and transposed convolutions, as sums over channels and kernel offsets."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term, as_term, cdiv
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, index, op, where
from dsl.ops.dispatch import build, operation, same_size, static
from dsl.ops.matmul import product
from dsl.ops.padding import pad_constant
from dsl.ops.windows import check_count, count, each, paddings, spatial_names
from dsl.program import reduce_axis, reduce_over
from dsl.windowed import dense


def _ranks(x: Tensor, weight: Tensor, bias: Tensor | None, rank: int, what: str) -> Tensor:
    """``x`` with a batch dimension, its rank and the others' checked."""
    if weight.ndim != rank + 2 or x.ndim not in (rank + 1, rank + 2):
        raise ShapeError(f"{what} takes an input of rank {rank + 2} (or {rank + 1}, without batch) and weights of rank {rank + 2}",
                         f"the arguments are {x} and {weight}", "[batch, channels, ...] and [filters, channels, ...]")
    if bias is not None and bias.ndim != 1:
        raise ShapeError(f"{what}: the bias {bias} is not a vector", remedy="one number for each filter")
    return x


def _batched(x: Tensor, rank: int, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """``fn`` on ``x`` with a batch dimension, which an unbatched input is given for the time."""
    if x.ndim == rank + 2:
        return fn(x)
    one = build("batch", (1, *x.shape), lambda n, *at: x.read(*at))
    y = fn(one)
    return build("unbatched", y.shape[1:], lambda *at: y.read(0, *at))


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int, rank: int) -> Any:
    """``out[n, f, p] = sum over c, r of x[n, c, p*stride + r*dilation - padding] * weight[f, c, r]``; zero outside."""
    what = f"conv{rank}d"
    steps, gaps = each(stride, rank, f"{what}: stride"), each(dilation, rank, f"{what}: dilation")
    pads = paddings(padding, rank, what, list(weight.shape[2:]), gaps, steps)
    per_group = _group_size(weight.shape[0], groups, f"{what}: the filters of", weight)
    same_size(x.shape[1], weight.shape[1] * groups, f"the channels of {x}",
              f"{groups} x those of {weight}" if groups > 1 else f"those of {weight}", what)
    if bias is not None:
        same_size(bias.shape[0], weight.shape[0], f"the bias {bias}", f"the filters of {weight}", what)
    c = reduce_axis(weight.shape[1], name="c")
    offsets = [reduce_axis(weight.shape[n + 2], name=f"r{a}") for n, a in enumerate(spatial_names(rank))]
    sizes = [count(s, p, k, t, g) for s, p, k, t, g in zip(x.shape[2:], pads, weight.shape[2:], steps, gaps)]
    check_count(sizes, what, f"{x} and {weight}")
    source = pad_constant(x, {n + 2: p for n, p in enumerate(pads)})

    def total(n: Any, f: Any, channel: Any, at: Any) -> Expr:
        places = [p * t + r * g for p, t, r, g in zip(at, steps, offsets, gaps)]
        return reduce_over(SUM, (product(source.read(n, channel, *places), weight.read(f, c, *offsets)),), (c, *offsets))

    def biased(value: Expr, f: Any) -> Expr:
        return value if bias is None else value + bias.read(f)

    names, shape = ("n", "f", *spatial_names(rank)), (x.shape[0], weight.shape[0], *sizes)
    if per_group is None:
        return build(what, shape, lambda n, f, *at: biased(total(n, f, c, at), f), names)
    channels = index(weight.shape[1])
    if per_group == 1:
        return build(what, shape, lambda n, f, *at: biased(total(n, f, f * channels + c, at), f), names)
    # a group is a product of its own: its axis is apart from that of the filters in it, which is the one that reuses the channels
    parts = build(f"{what}_groups", (x.shape[0], groups, per_group, *sizes),
                  lambda n, g, f, *at: total(n, g * per_group + f, g * channels + c, at), ("n", "g", "f", *spatial_names(rank)))
    return build(what, shape, lambda n, f, *at: biased(parts.read(n, op("floordiv", f, per_group), op("mod", f, per_group), *at), f), names)


def _group_size(size: Term, groups: int, what: str, t: Tensor) -> int | None:
    """How many channels a group has; None when there is one group.

    Raises:
        ShapeError: the channels do not part into the groups.
    """
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ShapeError(f"{what} {t} cannot part into {groups!r} groups", remedy="a positive int")
    if groups == 1:
        return None
    n = static(size, "the number of channels of a grouped convolution")
    if n % groups:
        raise ShapeError(f"{what} {t} do not part into {groups} groups", f"{n} is not a multiple of {groups}")
    return n // groups


# -- transposed ----------------------------------------------------------------------------------------------------
def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any, groups: int,
                    dilation: Any, rank: int) -> Any:
    """``out[n, f, o] = sum over c, r of x[n, c, p] * weight[c, f, r]`` with ``p * stride + r * dilation - padding = o``.

    The ``r`` that have such a ``p`` are one residue class of the kernel for each ``o``, so the sum runs over that class alone.
    """
    what = f"conv_transpose{rank}d"
    steps, gaps = each(stride, rank, f"{what}: stride"), each(dilation, rank, f"{what}: dilation")
    pads, extra = each(padding, rank, f"{what}: padding", 0), each(output_padding, rank, f"{what}: output_padding", 0)
    if any(e >= max(t, g) for e, t, g in zip(extra, steps, gaps)):
        raise ShapeError(f"{what}: output_padding {tuple(extra)} is not smaller than stride {tuple(steps)} or dilation {tuple(gaps)}",
                         "such elements would receive nothing", "pad the result: dlc.pad")
    same_size(x.shape[1], weight.shape[0], f"the channels of {x}", f"those of {weight}", what)
    filters = weight.shape[1] * groups
    per_group = _group_size(weight.shape[0], groups, f"{what}: the channels of", weight)
    if bias is not None:
        same_size(bias.shape[0], filters, f"the bias {bias}", f"{filters} filters of {weight}", what)
    axes = [_Strided(s, k, t, g, p, name)
            for s, k, t, g, p, name in zip(x.shape[2:], weight.shape[2:], steps, gaps, pads, spatial_names(rank))]
    sizes = [(s - 1) * t - 2 * p + g * (as_term(k) - 1) + e + 1
             for s, t, p, g, k, e in zip(x.shape[2:], steps, pads, gaps, weight.shape[2:], extra)]
    check_count(sizes, what, f"{x} and {weight}")
    c = reduce_axis(weight.shape[0] if per_group is None else per_group, name="c")

    def body(n: Any, f: Any, *at: Any) -> Expr:
        places = [a.place(o) for a, o in zip(axes, at)]
        channel = c if per_group is None else op("floordiv", f, index(weight.shape[1])) * per_group + c
        own = f if per_group is None else op("mod", f, index(weight.shape[1]))
        product = x.read(n, channel, *(p for p, _, _ in places)) * weight.read(channel, own, *(r for _, r, _ in places))
        inside = [cond for _, _, conds in places for cond in conds]
        return reduce_over(SUM, (where(functools.reduce(operator.and_, inside), product, 0),), (c, *(a.t for a in axes)))

    names, shape = ("n", "f", *spatial_names(rank)), (x.shape[0], filters, *sizes)
    sums = build(what if bias is None else f"{what}_sums", shape, body, names)
    if all(a.common == 1 for a in axes):  # else most of the parts would be zero
        sums = dense(sums)
    return sums if bias is None else build(what, shape, lambda n, f, *at: sums.read(n, f, *at) + bias.read(f), names)


class _Strided:
    """One spatial dimension of a transposed convolution: which kernel elements meet which inputs at an output."""

    def __init__(self, size: Term, kernel: Term, stride: int, dilation: int, padding: int, name: str) -> None:
        self.size, self.kernel, self.stride, self.padding = size, kernel, stride, padding
        self.common = math.gcd(stride, dilation)
        self.period, self.gap = stride // self.common, dilation // self.common
        self.inverse = pow(self.gap, -1, self.period) if self.period > 1 else 0
        self.t = reduce_axis(cdiv(kernel, self.period), name=f"r{name}")

    def place(self, o: Any) -> tuple[Any, Any, list[Any]]:
        """(input position, kernel position, conditions) of term ``t`` of the sum at output ``o``."""
        shifted = o + self.padding
        met = shifted // self.common  # outputs between multiples of what stride and dilation share receive nothing
        first = met % self.period * self.inverse % self.period if self.period > 1 else index(0)
        r = first + self.t * self.period
        p = (met - first * self.gap) // self.period - self.t * self.gap
        conds = [p >= 0, p < index(self.size)]
        if self.kernel % self.period != 0:
            conds.append(r < index(self.kernel))
        return p, r, conds + ([shifted % self.common < 1] if self.common > 1 else [])


# -- by rank -------------------------------------------------------------------------------------------------------
def _define(rank: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
             groups: int = 1) -> Any:
        run = functools.partial(_conv, weight=weight, bias=bias, stride=stride, padding=padding, dilation=dilation,
                                groups=groups, rank=rank)
        return _batched(_ranks(x, weight, bias, rank, f"conv{rank}d"), rank, run)

    def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                       groups: int = 1, dilation: Any = 1) -> Any:
        run = functools.partial(_conv_transpose, weight=weight, bias=bias, stride=stride, padding=padding, output_padding=output_padding,
                                groups=groups, dilation=dilation, rank=rank)
        return _batched(_ranks(x, weight, bias, rank, f"conv_transpose{rank}d"), rank, run)

    space, result = ", ".join(("D", "H", "W")[3 - rank:]), ", ".join(f"{a}'" for a in ("D", "H", "W")[3 - rank:])
    kernel = ", ".join(("Q", "R", "S")[3 - rank:])
    conv.__name__ = conv.__qualname__ = f"conv{rank}d"
    conv.__doc__ = (f"``(N, C, {space}), (F, C / groups, {kernel}) -> (N, F, {result})``: cross-correlation.\n\n"
                    "    ``padding`` is an int, one per dimension, (before, after) pairs, ``'same'`` or ``'valid'``; zeros are padded.\n"
                    "    ")
    conv_transpose.__name__ = conv_transpose.__qualname__ = f"conv_transpose{rank}d"
    conv_transpose.__doc__ = (f"``(N, C, {space}), (C, F / groups, {kernel}) -> (N, F, {result})``: the adjoint of conv{rank}d, which "
                              "spreads each element over a window.")
    return operation(conv), operation(conv_transpose)


conv1d, conv_transpose1d = _define(1)
conv2d, conv_transpose2d = _define(2)
conv3d, conv_transpose3d = _define(3)
__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
