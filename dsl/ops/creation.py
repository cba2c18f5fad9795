"""Tensors made of their indices: ranges, constants, the identity."""

from __future__ import annotations

from typing import Any

from dsl.dim import Term, Var, as_term, cdiv, tmax
from dsl.dtype import Dtype, bool_, f32, i64, of_python
from dsl.errors import ShapeError
from dsl.expr import Const, Expr, Index, Tensor, as_expr, cast, const, index, op, where
from dsl.ops.dispatch import build, names_of, operation, require, static, tensor
from dsl.ops.shape import sizes_of
from dsl.program import as_size

Number = bool | int | float


def _size(value: Any) -> bool:
    return isinstance(value, (Term, Var, Index)) or isinstance(value, int) and not isinstance(value, bool)


def arange(*bounds: Any, dtype: Dtype | None = None) -> Any:
    """``arange(end)``, ``arange(start, end)``, ``arange(start, end, step)``: i64 when all are integers or sizes, else f32.

    Raises:
        UserError: a step of 0, or of the wrong sign; bounds that mix sizes with floats.
    """
    require(1 <= len(bounds) <= 3, f"arange takes 1 to 3 numbers, not {len(bounds)}")
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    if all(_size(v) for v in (start, end, step)):
        return _integers(as_term(start), as_term(end), static(step, "the step of arange"), dtype or i64)
    if not all(isinstance(v, (int, float)) for v in (start, end, step)):
        raise ShapeError("arange of sizes and floats", "the number of elements is not known",
                         "make it of integers and scale it: dlc.arange(N) * 0.5")
    require(step != 0, "arange with a step of 0", remedy="any other number")
    count = max(-int(-(end - start) / step // 1) if (end - start) / step > 0 else 0, 0)
    count += count * step + start < end if step > 0 else count * step + start > end
    kind = dtype or f32
    return build("arange", (count,),
                 lambda i: cast(op("add", op("mul", cast(i, f32 if not kind.is_float else kind), float(step)), float(start)), kind))


def _integers(start: Term, end: Term, step: int, dtype: Dtype) -> Any:
    require(step != 0, "arange with a step of 0", remedy="any other number")
    count = tmax(cdiv(end - start, step) if step > 0 else cdiv(start - end, -step), 0)
    return build("arange", (count,), lambda i: cast(i * step + index(start), dtype))


def linspace(start: Any, end: Any, steps: Any, dtype: Dtype = f32) -> Any:
    """``steps`` numbers evenly spaced from ``start`` to ``end``, both included."""
    n = as_size(steps, "the steps of linspace")

    def body(i: Any) -> Expr:
        a, b = cast(as_expr(start), dtype), cast(as_expr(end), dtype)
        gaps = cast(index(tmax(n - 1, 1)), dtype)
        step = op("div", op("sub", b, a), gaps)
        front = op("add", a, op("mul", cast(i, dtype), step))
        back = op("sub", b, op("mul", cast(index(n - 1) - i, dtype), step))
        return where(op("lt", i, index(n // 2)), front, back) if n != 1 else a

    return build("linspace", (n,), body)


def full(shape: Any, value: Any, dtype: Dtype | None = None) -> Any:
    """Every element ``value``: a number, or an expression or tensor of rank 0."""
    sizes = sizes_of((tuple(shape) if isinstance(shape, (tuple, list)) else (shape,),), "full")
    element = value.read() if isinstance(value, Tensor) else value
    kind = dtype or (element.dtype if isinstance(element, Expr) else of_python(element))
    return build("full", sizes, lambda *at: cast(as_expr(element), kind))


def zeros(*shape: Any, dtype: Dtype = f32) -> Any:
    """Every element 0."""
    return full(tuple(sizes_of(shape, "zeros")), 0, dtype)


def ones(*shape: Any, dtype: Dtype = f32) -> Any:
    """Every element 1."""
    return full(tuple(sizes_of(shape, "ones")), 1, dtype)


def eye(n: Any, m: Any = None, dtype: Dtype = f32) -> Any:
    """The identity: 1 on the diagonal of ``n`` rows and ``m`` columns (``n`` when None)."""
    return build("eye", (n, n if m is None else m), lambda i, j: where(op("eq", i, j), const(1, dtype), const(0, dtype)))


def iota(shape: Any, axis: int = 0, dtype: Dtype = i64) -> Any:
    """Every element its own index along ``axis``."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return build("iota", sizes, lambda *at: cast(at[axis], dtype))


@operation
def full_like(x: Tensor, value: Number, dtype: Dtype | None = None) -> Any:
    """Every element ``value``, in the shape and dtype of ``x``."""
    t = tensor(x, "full_like")
    kind = dtype or t.dtype
    return build("full", t.shape, lambda *at: cast(as_expr(value), kind) if isinstance(as_expr(value), Const) else as_expr(value),
                 names_of(t))


@operation
def zeros_like(x: Tensor, dtype: Dtype | None = None) -> Any:
    """Every element 0, in the shape and dtype of ``x``."""
    return full_like(x, 0, dtype)


@operation
def ones_like(x: Tensor, dtype: Dtype | None = None) -> Any:
    """Every element 1, in the shape and dtype of ``x``."""
    return full_like(x, 1, dtype)


def tri(n: Any, m: Any = None, k: int = 0, dtype: Dtype = bool_) -> Any:
    """True on and below the ``k``-th diagonal: the mask of a causal attention."""
    return build("tri", (n, n if m is None else m), lambda i, j: cast(op("le", j, i + k), dtype))
