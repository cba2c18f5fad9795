"""Reductions: over axes of elements (``sum(x[i, k], k)``) and over axes of tensors (``sum(x, axis=1)``, ``sum(x, (0, 1), True)``).

On tensors the arguments are torch's, ``(x, dim, keepdim)``, with the names of numpy taken as well; all axes are reduced when none
is named. ``max`` and ``min`` give values alone, as ``torch.amax`` does: equal extrema share the derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dsl import carrier as c
from dsl.dim import ONE, Term, product
from dsl.dtype import Dtype, bool_, f32, i64, u8
from dsl.errors import DtypeError
from dsl.expr import Compute, Expr, Index, Tensor, as_expr, cast, const, index, op, where
from dsl.ops.dispatch import axis_names, axis_numbers, build, element_at, lift, names_of, operation, require
from dsl.program import axis_of, reduce_axis, reduce_over

Element = Callable[[Expr, tuple[Any, ...]], Expr]


def reduce_tensor(x: Tensor, axis: Any, keepdims: bool, name: str, fn: Element) -> Compute:
    """Reduce some axes of a tensor (all when ``axis`` is None) with ``fn(element, reduce axes)``."""
    gone = axis_numbers(axis, x.ndim, name) if axis is not None else tuple(range(x.ndim))
    labels = names_of(x)
    axes = {n: reduce_axis(x.shape[n], name=f"k{n}") for n in gone}
    kept = [n for n in range(x.ndim) if n not in axes]
    shape = [ONE if n in axes else s for n, s in enumerate(x.shape)] if keepdims else [x.shape[n] for n in kept]

    def body(*at: Any) -> Expr:
        place = dict(enumerate(at)) if keepdims else dict(zip(kept, at))
        return fn(x.read(*(axes[n] if n in axes else place[n] for n in range(x.ndim))), tuple(axes.values()))

    return build(name, shape, body, None if keepdims else _kept_names([labels[n] for n in kept]))


def _kept_names(names: list[str]) -> list[str] | None:
    """The names of the axes that stay, unless they would clash with those reduced over."""
    return None if [n for n in names if n.startswith("k")] else names


def over(x: Any, args: tuple[Any, ...], axis: Any, keepdims: bool, name: str, fn: Element) -> Any:
    """``fn`` on a tensor, with ``args`` as torch's ``(dim, keepdim)`` or several axis numbers, or on an element, with ``args`` its axes."""
    if not isinstance(x, Tensor):
        return fn(as_expr(x), args)
    if len(args) > 1 and isinstance(args[1], bool):
        require(len(args) == 2, f"{name} of a tensor takes (dim, keepdim), not {len(args)} positions")
        axis, keepdims = args
    elif args:
        axis = args[0] if len(args) == 1 else args
    if axis is not None and isinstance(axis, (tuple, list)) and not axis:
        axis = None
    return reduce_tensor(x, axis, keepdims, name, fn)


def _reduction(name: str, carrier: c.Carrier, doc: str) -> Callable[..., Any]:
    def reduction(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False, dtype: Dtype | None = None) -> Any:
        def element(e: Expr, gone: tuple[Any, ...]) -> Expr:
            e = cast(e, dtype) if dtype is not None else e
            if gone:
                return _as_torch(name, reduce_over(carrier, (e,), gone), e.dtype)
            return _of_one(carrier, e)

        return over(x, axes, axis, keepdims, name, element)

    reduction.__name__ = reduction.__qualname__ = name
    reduction.__doc__ = doc
    return operation(reduction)


def _as_torch(name: str, e: Expr, source: Dtype) -> Expr:
    """``any`` and ``all`` of u8 are u8 in torch."""
    return cast(e, u8) if name in ("any", "all") and source is u8 else e


def _of_one(carrier: c.Carrier, e: Expr) -> Expr:
    """The reduction of a single element: itself, in the dtype of the result."""
    (dtype,) = carrier.result((e.dtype,))
    return cast(e, dtype)


sum = _reduction("sum", c.SUM, "The sum over axes; low-precision floats and integers accumulate in f32 and i64.")
prod = _reduction("prod", c.PROD, "The product over axes; integers accumulate in i64.")
amax = _reduction("amax", c.MAX, "The greatest element over axes; NaN if there is one.")
amin = _reduction("amin", c.MIN, "The least element over axes; NaN if there is one.")
any = _reduction("any", c.ANY, "Whether any element is true (nonzero).")
all = _reduction("all", c.ALL, "Whether every element is true (nonzero).")
logsumexp = _reduction("logsumexp", c.LOGSUMEXP, "``log(sum(exp(x)))`` in one overflow-safe pass.")
_max = _reduction("max", c.MAX, "")
_min = _reduction("min", c.MIN, "")


@operation
def mean(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False, dtype: Dtype | None = None) -> Any:
    """The mean over axes, of floats.

    Raises:
        DtypeError: the elements are not floats and no float ``dtype`` is given.
    """
    kind = dtype or x.dtype
    if not kind.is_float:
        raise DtypeError(f"mean of {kind}", "a mean needs floats", "cast first, dlc.cast(x, dlc.f32), or give dtype=dlc.f32")

    def element(e: Expr, gone: tuple[Any, ...]) -> Expr:
        e = cast(e, kind)
        return op("div", reduce_over(c.SUM, (e,), gone), cast(index(_count(gone)), e.dtype)) if gone else e

    return over(x, axes, axis, keepdims, "mean", element)


def _count(gone: tuple[Any, ...]) -> Term:
    """How many elements are reduced."""
    extents = [axis_of(v).extent for v in gone]
    return product(e for e in extents if e is not None)


def _extremum(name: str, carrier: c.Carrier, out: int) -> Callable[..., Any]:
    """The greatest (or least) element over axes (``out`` 0), or its position (1); the first of equals has the derivative."""
    def reduction(x: Any, axes: tuple[Any, ...], axis: Any, keepdims: bool) -> Any:
        def element(e: Expr, gone: tuple[Any, ...]) -> Expr:
            position: Expr = index(0)
            for v in gone:
                extent = axis_of(v).extent
                assert extent is not None
                position = op("add", op("mul", position, index(extent)), v)
            return reduce_over(carrier, (e, position), gone, out=out) if gone else const(0, i64) if out else e

        if isinstance(x, Tensor) and x.dtype is bool_:
            raise DtypeError(f"{name} of bool", "torch does not define it", f"cast first: dlc.{name}(dlc.cast(x, dlc.u8))")
        return over(x, axes, axis, keepdims, name, element)

    return reduction


def _arg(name: str, carrier: c.Carrier) -> Callable[..., Any]:
    place = _extremum(name, carrier, 1)

    def reduction(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return place(x, axes, axis, keepdims)

    reduction.__name__ = reduction.__qualname__ = name
    reduction.__doc__ = (f"The position of the {'greatest' if name == 'argmax' else 'least'} element over axes; "
                         "the first of equals, NaN first of all.")
    return operation(reduction)


argmax, argmin = _arg("argmax", c.ARGMAX), _arg("argmin", c.ARGMIN)


def _or_pairwise(name: str, carrier: c.Carrier, fn: Callable[..., Any], doc: str) -> Callable[..., Any]:
    """An extremum over axes, or of two tensors.

    Args:
        name: ``max`` or ``min``.
        carrier: finds its position.
        fn: the extremum over axes without it.
        doc: the docstring.
    """
    value, place = (_extremum(what, carrier, out) for out, what in enumerate((name, f"arg{name}")))

    def extremum(x: Any, *axes: Any, axis: Any = None, keepdims: bool = False, return_indices: bool = False) -> Any:
        if isinstance(x, Tensor) and len(axes) == 1 and isinstance(axes[0], Tensor):
            return lift(lambda a, b: op(name, a, b), name, (x, axes[0]))
        if return_indices:
            return value(x, axes, axis, keepdims), place(x, axes, axis, keepdims)
        return fn(x, *axes, axis=axis, keepdims=keepdims)

    extremum.__name__ = extremum.__qualname__ = name
    extremum.__doc__ = doc
    return operation(extremum)


_BOTH = "With ``return_indices`` also its position, the first of equals, which alone has the derivative then; as ``torch.{}(x, dim)``."
max = _or_pairwise("max", c.ARGMAX, _max,
                   "The greatest element over axes; NaN if there is one. Of two tensors, the greater elements. " + _BOTH.format("max"))
min = _or_pairwise("min", c.ARGMIN, _min,
                   "The least element over axes; NaN if there is one. Of two tensors, the lesser elements. " + _BOTH.format("min"))


@operation
def count_nonzero(x: Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    """How many elements are not zero (NaN counts), over axes."""
    def element(e: Expr, gone: tuple[Any, ...]) -> Expr:
        one = cast(cast(e, bool_), i64)
        return reduce_over(c.SUM, (one,), gone) if gone else one

    return reduce_tensor(x, axis, keepdims, "count_nonzero", element)


# -- spread --------------------------------------------------------------------------------------------------------
@operation
def var(x: Tensor, axis: Any = None, unbiased: bool | None = None, keepdims: bool = False, correction: float | None = None) -> Any:
    """The variance over axes: the mean squared deviation from the mean, in two passes; divisor ``n - correction``, not below 0.

    Args:
        x: floats.
        axis: one or several axes; all of them when None.
        unbiased: torch's old name: False is ``correction=0``, True is 1.
        keepdims: keep the reduced axes with size 1.
        correction: 1 unless given.

    Raises:
        DtypeError: the elements are not floats.
    """
    if isinstance(axis, bool):
        axis, unbiased = None, axis
    if not x.dtype.is_float:
        raise DtypeError(f"var of {x.dtype}", "a variance needs floats", "cast first: dlc.cast(x, dlc.f32)")
    less = correction if correction is not None else 1 if unbiased in (None, True) else 0
    gone = axis_numbers(axis, x.ndim, "var") if axis is not None and axis != () else tuple(range(x.ndim))
    centre = reduce_tensor(x, gone, True, "mean",
                           lambda e, a: op("div", reduce_over(c.SUM, (e,), a), cast(index(_count(a)), e.dtype)) if a else e)
    names = axis_names([x], x.shape)
    squares = build("deviation", x.shape, lambda *at: _square(op("sub", element_at(x, at), element_at(centre, at))), names)
    count = product(x.shape[n] for n in gone)

    def element(e: Expr, a: tuple[Any, ...]) -> Expr:
        total = reduce_over(c.SUM, (e,), a) if a else e
        divisor = op("sub", cast(index(count), e.dtype), less)
        return op("div", total, op("max", divisor, 0) if not isinstance(divisor, Index) else divisor)

    return reduce_tensor(squares, gone, keepdims, "var", element)


def _square(e: Expr) -> Expr:
    return op("mul", e, e)


def safe_sqrt(e: Expr) -> Expr:
    """The square root, whose derivative at 0 is taken as 0."""
    return where(op("eq", e, 0), e, op("sqrt", e))


@operation
def std(x: Tensor, axis: Any = None, unbiased: bool | None = None, keepdims: bool = False, correction: float | None = None) -> Any:
    """The standard deviation over axes; see :func:`var`. Its derivative is 0 where all elements are equal."""
    return lift(safe_sqrt, "std", (var(x, axis, unbiased, keepdims, correction),))


@operation
def var_mean(x: Tensor, axis: Any = None, unbiased: bool | None = None, keepdims: bool = False, correction: float | None = None) -> Any:
    """The variance and the mean over axes."""
    gone = None if isinstance(axis, bool) else axis
    return var(x, axis, unbiased, keepdims, correction), mean(x, axis=gone, keepdims=keepdims)


@operation
def std_mean(x: Tensor, axis: Any = None, unbiased: bool | None = None, keepdims: bool = False, correction: float | None = None) -> Any:
    """The standard deviation and the mean over axes."""
    gone = None if isinstance(axis, bool) else axis
    return std(x, axis, unbiased, keepdims, correction), mean(x, axis=gone, keepdims=keepdims)


# -- norms ---------------------------------------------------------------------------------------------------------
@operation
def norm(x: Tensor, p: float | str = 2.0, axis: Any = None, keepdims: bool = False) -> Any:
    """The vector norm ``sum(|x| ** p) ** (1 / p)`` over axes (all when None), as ``torch.linalg.vector_norm``.

    Args:
        x: the tensor; integers become f32.
        p: any number; ``inf`` and ``-inf`` are the greatest and least absolute value, 0 counts what is not zero. ``"fro"`` is 2.
        axis: one or several axes.
        keepdims: keep the reduced axes with size 1.

    Raises:
        UserError: ``p`` is no number.
    """
    order = 2.0 if p == "fro" else p
    require(isinstance(order, (int, float)) and not isinstance(order, bool), f"norm: p is {p!r}", remedy="a number, or 'fro'")
    scale = float(order)
    real = x.dtype if x.dtype.is_float else f32

    def element(e: Expr, gone: tuple[Any, ...]) -> Expr:
        size = op("abs", cast(e, real))
        lifted, carrier = _norm_parts(size, cast(e, real), scale)
        total = reduce_over(carrier, (lifted,), gone) if gone else lifted
        return _norm_root(total, scale)

    return reduce_tensor(x, axis, keepdims, "norm", element)


def _norm_parts(size: Expr, e: Expr, p: float) -> tuple[Expr, c.Carrier]:
    if math.isinf(p):
        return size, c.MAX if p > 0 else c.MIN
    if p == 0:
        return cast(op("ne", size, 0), size.dtype), c.SUM
    if p == 1:
        return size, c.SUM
    return (op("mul", e, e) if p == 2 else op("pow", size, p)), c.SUM


def _norm_root(total: Expr, p: float) -> Expr:
    if math.isinf(p) or p in (0, 1):
        return total
    if p == 2:
        return safe_sqrt(total)
    root = op("pow", total, 1 / p)
    return where(op("eq", total, 0), total, root) if p > 0 else root


@operation
def aminmax(x: Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    """The least and the greatest element over axes."""
    return amin(x, axis=axis, keepdims=keepdims), amax(x, axis=axis, keepdims=keepdims)
