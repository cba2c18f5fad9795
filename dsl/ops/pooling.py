"""Pools: the greatest element or the mean of windows."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from dsl.carrier import ARGMAX, MAX_FIRST, SUM
from dsl.carrier import lowest as least
from dsl.dim import Term, as_term, cdiv, product, tmax, tmin
from dsl.errors import DtypeError, ShapeError
from dsl.expr import Expr, Tensor, cast, const, index, where
from dsl.ops.dispatch import build, names_of, operation, require, static
from dsl.ops.windows import check_count, count, each, spatial_names
from dsl.program import as_size, reduce_axis, reduce_over


class _Window:
    """One spatial dimension of a pool: where the window of an output lies and which of its elements exist."""

    def __init__(self, size: Term, kernel: int, stride: int, pad: int, dilation: int, ceil: bool, name: str) -> None:
        self.size, self.kernel, self.stride, self.pad, self.dilation = size, kernel, stride, pad, dilation
        self.axis = reduce_axis(kernel, name=f"r{name}")
        self.count = count(size, (pad, pad), kernel, stride, dilation, ceil)
        self.ragged = ceil and stride > 1

    def place(self, o: Any) -> Any:
        """The input position of the window's element."""
        return o * self.stride + self.axis * self.dilation - self.pad

    def inside(self, o: Any) -> list[Any]:
        """The conditions under which that element exists."""
        p = self.place(o)
        low = [p >= 0] if self.pad else []
        return low + ([p < index(self.size)] if self.pad or self.ragged else [])

    def extent(self, o: Any, padded: bool) -> Term:
        """How many of the window's elements count: those inside, or those inside the padded input."""
        start = as_term(o) * self.stride - self.pad
        end = tmin(start + self.kernel, self.size + self.pad)
        return end - start if padded else tmin(end, self.size) - tmax(start, 0)


def _windows(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, rank: int, what: str) -> list[_Window]:
    if x.ndim not in (rank + 1, rank + 2):
        raise ShapeError(f"{what} takes a tensor of rank {rank + 2}, or {rank + 1} without batch", f"the argument is {x}")
    sizes = each(kernel, rank, f"{what}: kernel_size")
    steps = each(kernel if stride is None else stride, rank, f"{what}: stride")
    pads, gaps = each(padding, rank, f"{what}: padding", 0), each(dilation, rank, f"{what}: dilation")
    for p, k, g in zip(pads, sizes, gaps):
        require(2 * p <= (k - 1) * g + 1, f"{what}: padding {p} is more than half of the window {k}",
                "a window could lie outside the input", "pad with dlc.pad first")
    out = [_Window(s, k, t, p, g, ceil, a) for s, k, t, p, g, a in zip(x.shape[-rank:], sizes, steps, pads, gaps, spatial_names(rank))]
    check_count([w.count for w in out], what, str(x))
    return out


def _max_pool(x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool,
              rank: int) -> Any:
    windows = _windows(x, kernel_size, stride, padding, dilation, ceil_mode, rank, f"max_pool{rank}d")
    lead = x.ndim - rank
    shape = [*x.shape[:lead], *(w.count for w in windows)]

    def element(at: Sequence[Any]) -> Expr:
        value = x.read(*at[:lead], *(w.place(o) for w, o in zip(windows, at[lead:])))
        inside = [c for w, o in zip(windows, at[lead:]) for c in w.inside(o)]
        return where(functools.reduce(operator.and_, inside), value, const(_bottom(x), x.dtype)) if inside else value

    def best(*at: Any) -> Expr:
        return reduce_over(MAX_FIRST, (element(at),), tuple(w.axis for w in windows))

    def position(*at: Any) -> Expr:
        flat: Any = index(0)
        for w, o in zip(windows, at[lead:]):
            flat = flat * index(w.size) + w.place(o)
        return reduce_over(ARGMAX, (element(at), flat), tuple(w.axis for w in windows), out=1)

    values = build(f"max_pool{rank}d", shape, best, names_of(x))
    return (values, build("indices", shape, position, names_of(x))) if return_indices else values


def _bottom(x: Tensor) -> float:
    return -math.inf if x.dtype.is_float else least(x.dtype)


def _avg_pool(x: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool, divisor: int | None,
              rank: int) -> Any:
    if not x.dtype.is_float:
        raise DtypeError(f"avg_pool{rank}d of {x.dtype}", "a mean needs floats", "cast first: dlc.cast(x, dlc.f32)")
    windows = _windows(x, kernel_size, stride, padding, 1, ceil_mode, rank, f"avg_pool{rank}d")
    lead = x.ndim - rank

    def body(*at: Any) -> Expr:
        value = x.read(*at[:lead], *(w.place(o) for w, o in zip(windows, at[lead:])))
        inside = [c for w, o in zip(windows, at[lead:]) for c in w.inside(o)]
        value = where(functools.reduce(operator.and_, inside), value, const(0, x.dtype)) if inside else value
        total = reduce_over(SUM, (value,), tuple(w.axis for w in windows))
        if divisor is not None:
            return total / divisor
        plain = count_include_pad and not any(w.ragged for w in windows) or not any(w.pad or w.ragged for w in windows)
        if plain:
            return total / math.prod(w.kernel for w in windows)
        return total / cast(index(product(w.extent(o, count_include_pad) for w, o in zip(windows, at[lead:]))), x.dtype)

    return build(f"avg_pool{rank}d", [*x.shape[:lead], *(w.count for w in windows)], body, names_of(x))


# -- adaptive ------------------------------------------------------------------------------------------------------
class _Share:
    """One dimension of an adaptive pool: output ``o`` of ``n`` has the inputs from ``o*size // n`` to ``ceil((o + 1)*size / n)``."""

    def __init__(self, size: Term, wanted: Term, name: str) -> None:
        self.size, self.count = size, wanted
        if size % wanted == 0:
            longest, self.ragged = size // wanted, False
        else:
            n = static(size, f"a size pooled into {wanted} parts that are not equal"), static(wanted, "the number of parts")
            longest = as_term(max(-(-(o + 1) * n[0] // n[1]) - o * n[0] // n[1] for o in range(n[1])) if n[1] else 0)
            self.ragged = True
        self.axis = reduce_axis(longest, name=f"r{name}")

    def bounds(self, o: Any) -> tuple[Any, Any]:
        """The first input of an output, and the one after its last."""
        t = as_term(o)
        if not self.ragged:
            each_ = self.size // self.count
            return index(t * each_), index(t * each_ + each_)
        return index(t * self.size // self.count), index(cdiv((t + 1) * self.size, self.count))


def _adaptive(x: Tensor, output_size: Any, rank: int, what: str, fn: Callable[[Expr, tuple[Any, ...], Term], Expr], empty: float) -> Tensor:
    if x.ndim not in (rank + 1, rank + 2):
        raise ShapeError(f"{what} takes a tensor of rank {rank + 2}, or {rank + 1} without batch", f"the argument is {x}")
    given = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size] * rank
    require(len(given) == rank, f"{what}: output_size is {output_size!r}", remedy=f"an int, or {rank} of them; None keeps a size")
    lead = x.ndim - rank
    wanted = [s if g is None else as_size(g, "an output size") for g, s in zip(given, x.shape[lead:])]
    shares = [_Share(s, w, a) for s, w, a in zip(x.shape[lead:], wanted, spatial_names(rank))]

    def body(*at: Any) -> Expr:
        bounds = [s.bounds(o) for s, o in zip(shares, at[lead:])]
        places = [first + s.axis for s, (first, _) in zip(shares, bounds)]
        inside = [p < end for p, s, (_, end) in zip(places, shares, bounds) if s.ragged]
        value = x.read(*at[:lead], *places)
        value = where(functools.reduce(operator.and_, inside), value, const(empty, x.dtype)) if inside else value
        return fn(value, tuple(s.axis for s in shares), product(end.term - first.term for first, end in bounds))

    return build(what, [*x.shape[:lead], *wanted], body, names_of(x))


# -- by rank -------------------------------------------------------------------------------------------------------
def _named(name: str, doc: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return operation(fn)


def _define(rank: int) -> tuple[Callable[..., Any], ...]:
    def max_pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                 return_indices: bool = False) -> Any:
        return _max_pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, rank)

    def avg_pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> Any:
        return _avg_pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, rank)

    def adaptive_avg(x: Tensor, output_size: Any) -> Any:
        return _adaptive(x, output_size, rank, f"adaptive_avg_pool{rank}d",
                         lambda v, axes, n: reduce_over(SUM, (v,), axes) / cast(index(n), x.dtype), 0.0)

    def adaptive_max(x: Tensor, output_size: Any) -> Any:
        return _adaptive(x, output_size, rank, f"adaptive_max_pool{rank}d",
                         lambda v, axes, n: reduce_over(MAX_FIRST, (v,), axes), _bottom(x))

    inputs = "(N, C, " + ", ".join(("D", "H", "W")[3 - rank:]) + ")"
    return (
        _named(f"max_pool{rank}d",
               f"The greatest element of each window of {inputs}; with ``return_indices`` also its position in the plane.\n\n"
               "    Windows are ``stride`` (``kernel_size`` when None) apart; the gradient goes to the first of equal elements.\n    ",
               max_pool),
        _named(f"avg_pool{rank}d",
               f"The mean of each window of {inputs}; padding counts as zeros unless ``count_include_pad`` is False.", avg_pool),
        _named(f"adaptive_avg_pool{rank}d", f"The means of windows that part {inputs} into ``output_size`` results; None keeps a size.",
               adaptive_avg),
        _named(f"adaptive_max_pool{rank}d", f"The maxima of windows that part {inputs} into ``output_size`` results; None keeps a size.",
               adaptive_max),
    )


max_pool1d, avg_pool1d, adaptive_avg_pool1d, adaptive_max_pool1d = _define(1)
max_pool2d, avg_pool2d, adaptive_avg_pool2d, adaptive_max_pool2d = _define(2)
max_pool3d, avg_pool3d, adaptive_avg_pool3d, adaptive_max_pool3d = _define(3)
