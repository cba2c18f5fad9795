"""Matrix products."""

from __future__ import annotations

from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor
from dsl.ops.dispatch import broadcast_shapes, build, operation, same_size
from dsl.program import reduce_axis, reduce_over


@operation
def matmul(a: Tensor, b: Tensor) -> Any:
    """``a @ b``: ``(.., M, K) x (.., K, N) -> (.., M, N)``, leading dimensions broadcast; 1-D operands as in numpy.

    Raises:
        ShapeError: an operand is a scalar, or the contracted sizes differ.
    """
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("a matrix product of a scalar", f"{a} @ {b}", "use *")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    same_size(a.shape[-1], inner, str(a), str(b), "matmul")
    k = reduce_axis(a.shape[-1], name="k")
    rows, cols = (a.shape[-2:-1] if a.ndim > 1 else ()), (b.shape[-1:] if b.ndim > 1 else ())
    batch = broadcast_shapes([(a.name, a.shape[:-2]), (b.name, b.shape[:-2])], "matmul")

    def body(*at: Any) -> Expr:
        lead, rest = at[:len(batch)], list(at[len(batch):])
        i = [rest.pop(0)] if rows else []
        left = a.read(*_aligned(a.shape[:-2], lead), *i, k)
        right = b.read(*_aligned(b.shape[:-2], lead), k, *rest)
        return reduce_over(SUM, (left * right,), (k,))

    names = [*(f"b{n}" for n in range(len(batch))), *(["i"] if rows else []), *(["j"] if cols else [])]
    return build("matmul", (*batch, *rows, *cols), body, names)


def _aligned(shape: tuple[Term, ...], lead: tuple[Any, ...]) -> list[Any]:
    """Indices of the leading dimensions: broadcast ones read element 0."""
    return [0 if s == 1 else v for s, v in zip(shape, lead[len(lead) - len(shape):])]


@operation
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """``x @ weight.T + bias``: ``(.., K), (N, K), (N,) -> (.., N)``."""
    same_size(x.shape[-1], weight.shape[1], str(x), str(weight), "linear")
    k = reduce_axis(x.shape[-1], name="k")

    def body(*at: Any) -> Expr:
        y = reduce_over(SUM, (x.read(*at[:-1], k) * weight.read(at[-1], k),), (k,))
        return y if bias is None else y + bias.read(at[-1])

    return build("linear", (*x.shape[:-1], weight.shape[0]), body)
