"""Reductions: over axes of elements (``sum(x[i, k], k)``) and over axes of tensors (``sum(x, axis=1)``)."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from dsl import carrier as c
from dsl.dim import product
from dsl.dtype import Dtype
from dsl.errors import DtypeError
from dsl.expr import Expr, Index, Tensor, cast, index, op
from dsl.ops.dispatch import axis_numbers, build, operation
from dsl.program import axis_of, reduce_axis, reduce_over


def reduce_tensor(x: Tensor, axis: Any, keepdims: bool, name: str, fn: Callable[[Expr, tuple[Index, ...]], Expr]) -> Tensor:
    """Reduce some axes of a tensor (all when ``axis`` is None) with ``fn(element, reduce axes)``."""
    gone = axis_numbers(axis, x.ndim, name) if axis is not None else tuple(range(x.ndim))
    axes = {n: reduce_axis(x.shape[n], name=f"k{n}") for n in gone}
    kept = [n for n in range(x.ndim) if n not in axes]
    shape = [1 if n in axes else s for n, s in enumerate(x.shape)] if keepdims else [x.shape[n] for n in kept]

    def body(*at: Any) -> Expr:
        place = dict(enumerate(at)) if keepdims else dict(zip(kept, at))
        return fn(x.read(*(axes.get(n, place.get(n)) for n in range(x.ndim))), tuple(axes.values()))

    return build(name, shape, body)


def _reduction(name: str, carrier: c.Carrier, doc: str) -> Callable[..., Any]:
    def reduction(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False, dtype: Dtype | None = None) -> Any:
        def element(e: Expr, over: tuple[Any, ...]) -> Expr:
            e = cast(e, dtype) if dtype is not None else e
            return reduce_over(carrier, (e,), over) if over else e

        if isinstance(x, Tensor):
            return reduce_tensor(x, axes if axes else axis, keepdims, name, element)
        return element(x, axes)

    reduction.__name__ = reduction.__qualname__ = name
    reduction.__doc__ = doc
    return operation(reduction)


sum = _reduction("sum", c.SUM, "The sum over axes; low-precision floats and integers accumulate in f32 and i64.")
prod = _reduction("prod", c.PROD, "The product over axes.")
max = _reduction("max", c.MAX, "The greatest element over axes; NaN if there is one.")
min = _reduction("min", c.MIN, "The least element over axes; NaN if there is one.")
any = _reduction("any", c.ANY, "Whether any element is true (nonzero).")
all = _reduction("all", c.ALL, "Whether every element is true (nonzero).")
logsumexp = _reduction("logsumexp", c.LOGSUMEXP, "``log(sum(exp(x)))`` in one overflow-safe pass.")
amax, amin = max, min


@operation
def mean(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over axes, of floats.

    Raises:
        DtypeError: the elements are not floats.
    """
    if not x.dtype.is_float:
        raise DtypeError(f"mean of {x.dtype}", "a mean needs floats", "cast first: dlc.cast(x, dlc.f32)")

    def element(e: Expr, over: tuple[Any, ...]) -> Expr:
        count = product(a.extent for v in over if (a := axis_of(v)).extent is not None)
        return op("div", reduce_over(c.SUM, (e,), over), cast(index(count), e.dtype)) if over else e

    return reduce_tensor(x, axes if axes else axis, keepdims, "mean", element) if isinstance(x, Tensor) else element(x, axes)


def _arg(name: str, carrier: c.Carrier) -> Callable[..., Any]:
    def reduction(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False) -> Any:
        def element(e: Expr, over: tuple[Any, ...]) -> Expr:
            position = index(0)
            for v in over:
                extent = axis_of(v).extent
                position = position * index(extent) + v  # type: ignore[arg-type]
            return reduce_over(carrier, (e, position), over, out=1)

        return reduce_tensor(x, axes if axes else axis, keepdims, name, element) if isinstance(x, Tensor) else element(x, axes)

    reduction.__name__ = name
    reduction.__doc__ = f"The position of the {'greatest' if name == 'argmax' else 'least'} element over axes; the first of equals, NaN first of all."
    return operation(reduction)


argmax, argmin = _arg("argmax", c.ARGMAX), _arg("argmin", c.ARGMIN)


@operation
def var(x: Any, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Any:
    """The variance over axes: the mean squared deviation from the mean, in two passes; divisor ``n - correction``."""
    centre = mean(x, axis=axis, keepdims=True)
    gone = axis_numbers(axis, x.ndim, "var") if axis is not None else tuple(range(x.ndim))
    count = product(x.shape[n] for n in gone)
    total = sum((x - centre) * (x - centre), axis=gone, keepdims=keepdims)
    return total / cast(index(count) - correction, x.dtype)


@operation
def std(x: Any, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Any:
    """The standard deviation over axes; see :func:`var`."""
    from dsl.ops.pointwise import sqrt  # noqa: PLC0415  (made by a table)
    return sqrt(var(x, axis=axis, keepdims=keepdims, correction=correction))


__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "builtins", "logsumexp", "max", "mean", "min", "prod", "std", "sum", "var"]
