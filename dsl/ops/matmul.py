"""Matrix products and what is made of them."""

from __future__ import annotations

from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term
from dsl.dtype import i32
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, cast, index, op
from dsl.ops.dispatch import broadcast_shapes, build, lift, operation, show_shape, tensor
from dsl.ops.pointwise import precision as permit
from dsl.program import reduce_axis, reduce_over


@operation
def matmul(a: Tensor, b: Tensor, *, precision: str = "") -> Any:
    """``a @ b``: ``(.., M, K) x (.., K, N) -> (.., M, N)``, leading dimensions broadcast; 1-D operands as in numpy.

    Args:
        a: the first factor.
        b: the second one.
        precision: how exactly f32 is multiplied, see :func:`dlc.precision`; exact to f32 when empty.

    Raises:
        ShapeError: an operand is a scalar, the contracted sizes differ, or the leading dimensions do not broadcast.
    """
    a, b = tensor(a, "matmul"), tensor(b, "matmul")
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("a matrix product of a scalar", f"{a} @ {b}", "use *")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ShapeError(f"cannot multiply `{a.name}` {show_shape(a.shape)} with `{b.name}` {show_shape(b.shape)}",
                         f"the last dimension of `{a.name}` is {a.shape[-1]}, the {'second to last' if b.ndim > 1 else 'only'} one "
                         f"of `{b.name}` is {inner}", _transposed(a, b))
    a, b = (permit(t, precision) if precision else t for t in (a, b))
    k = reduce_axis(a.shape[-1], name="k")
    rows, cols = (a.shape[-2:-1] if a.ndim > 1 else ()), (b.shape[-1:] if b.ndim > 1 else ())
    batch = broadcast_shapes([(a.name, a.shape[:-2]), (b.name, b.shape[:-2])], "multiply the stacks")

    def body(*at: Any) -> Expr:
        lead, rest = at[:len(batch)], list(at[len(batch):])
        i = [rest.pop(0)] if rows else []
        left = a.read(*_aligned(a.shape[:-2], lead), *i, k)
        right = b.read(*_aligned(b.shape[:-2], lead), k, *rest)
        return reduce_over(SUM, (product(left, right),), (k,))

    names = [*(f"b{n}" for n in range(len(batch))), *(["i"] if rows else []), *(["j"] if cols else [])]
    return build("matmul", (*batch, *rows, *cols), body, names)


def _transposed(a: Tensor, b: Tensor) -> str:
    """What the user may have meant."""
    if b.ndim > 1 and a.shape[-1] == b.shape[-1]:
        return f"{a.name} @ {b.name}.mT" if b.ndim > 2 else f"{a.name} @ {b.name}.T"
    if a.ndim > 1 and b.ndim > 1 and a.shape[-2] == b.shape[-2]:
        return f"{a.name}.mT @ {b.name}" if a.ndim > 2 else f"{a.name}.T @ {b.name}"
    return "declare both with the same symbol"


def product(a: Expr, b: Expr) -> Expr:
    """A term of a sum of products: integers are multiplied in 32 bits at least, so that no product of bytes wraps around."""
    if a.dtype.is_int and b.dtype.is_int and max(a.dtype.bits, b.dtype.bits) < 32:
        return cast(a, i32) * cast(b, i32)
    return a * b


def _aligned(shape: tuple[Term, ...], lead: tuple[Any, ...]) -> list[Any]:
    """Indices of the leading dimensions: broadcast ones read element 0."""
    return [0 if s == 1 else v for s, v in zip(shape, lead[len(lead) - len(shape):])]


@operation
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """``x @ weight.T + bias``: ``(.., K), (N, K), (N,) -> (.., N)``; with a weight ``(K,)`` the last dimension goes.

    Raises:
        ShapeError: ranks or sizes do not fit.
    """
    x, weight = tensor(x, "linear"), tensor(weight, "linear")
    if weight.ndim not in (1, 2) or not x.ndim:
        raise ShapeError(f"linear of {x} with weights {weight}", "weights are [features out, features in]", "x is [.., features in]")
    if x.shape[-1] != weight.shape[-1]:
        raise ShapeError(f"linear: `{x.name}` {show_shape(x.shape)} and the weights `{weight.name}` {show_shape(weight.shape)} do not fit",
                         f"`{x.name}` has {x.shape[-1]} features, the weights take {weight.shape[-1]}",
                         "weights are [features out, features in]")
    out = weight.shape[:-1]
    if bias is not None and tuple(tensor(bias, "linear").shape) not in ((), tuple(out)):
        raise ShapeError(
            f"linear: the bias `{bias.name}` {show_shape(bias.shape)} does not fit the weights `{weight.name}` {show_shape(weight.shape)}",
            f"there are {out[0] if out else 1} features out", f"a bias of shape {show_shape(out)}")
    k = reduce_axis(x.shape[-1], name="k")
    rank = x.ndim - 1

    def body(*at: Any) -> Expr:
        y = reduce_over(SUM, (product(x.read(*at[:rank], k), weight.read(*at[rank:], k)),), (k,))
        return y if bias is None else y + bias.read(*at[rank:][:bias.ndim])

    return build("linear", (*x.shape[:-1], *out), body)


# -- by other names ------------------------------------------------------------------------------------------------
def _of_ranks(name: str, a: Tensor, b: Tensor, ranks: tuple[int, int]) -> Any:
    a, b = tensor(a, name), tensor(b, name)
    if (a.ndim, b.ndim) != ranks:
        kinds = {1: "a vector", 2: "a matrix", 3: "a stack of matrices"}
        raise ShapeError(f"{name} of `{a.name}` {show_shape(a.shape)} and `{b.name}` {show_shape(b.shape)}",
                         f"it takes {kinds[ranks[0]]} and {kinds[ranks[1]]}", "dlc.matmul takes any ranks and broadcasts")
    return matmul(a, b)


@operation
def mm(a: Tensor, b: Tensor) -> Any:
    """The product of two matrices."""
    return _of_ranks("mm", a, b, (2, 2))


@operation
def bmm(a: Tensor, b: Tensor) -> Any:
    """The products of two stacks of matrices, pair by pair; the stacks are equally high."""
    a, b = tensor(a, "bmm"), tensor(b, "bmm")
    if a.ndim == b.ndim == 3 and a.shape[0] != b.shape[0]:
        raise ShapeError(f"bmm of `{a.name}` {show_shape(a.shape)} and `{b.name}` {show_shape(b.shape)}",
                         f"there are {a.shape[0]} and {b.shape[0]} matrices", "dlc.matmul broadcasts")
    return _of_ranks("bmm", a, b, (3, 3))


@operation
def mv(a: Tensor, b: Tensor) -> Any:
    """A matrix times a vector."""
    return _of_ranks("mv", a, b, (2, 1))


@operation
def dot(a: Tensor, b: Tensor) -> Any:
    """The sum of products of two vectors."""
    return _of_ranks("dot", a, b, (1, 1))


@operation
def outer(a: Tensor, b: Tensor) -> Any:
    """All products of the elements of two vectors: ``(M,), (N,) -> (M, N)``."""
    a, b = tensor(a, "outer"), tensor(b, "outer")
    if (a.ndim, b.ndim) != (1, 1):
        raise ShapeError(f"outer of `{a.name}` {show_shape(a.shape)} and `{b.name}` {show_shape(b.shape)}", "it takes two vectors",
                         "flatten them")
    return build("outer", (a.shape[0], b.shape[0]), lambda i, j: a.read(i) * b.read(j))


def _scaled(name: str, c: Tensor, product: Tensor, beta: float, alpha: float) -> Any:
    def combined(x: Any, y: Any) -> Any:
        y = y if alpha == 1 else op("mul", y, alpha)
        return y if beta == 0 else op("add", x if beta == 1 else op("mul", x, beta), y)

    return lift(combined, name, (c, product))


@operation
def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * c + alpha * (a @ b)`` for matrices; ``c`` broadcasts, and is not read when ``beta`` is 0."""
    return _scaled("addmm", tensor(c, "addmm"), mm(a, b), beta, alpha)


@operation
def addmv(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * c + alpha * (a @ b)`` for a matrix and a vector."""
    return _scaled("addmv", tensor(c, "addmv"), mv(a, b), beta, alpha)


@operation
def baddbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * c + alpha * (a @ b)`` for stacks of matrices."""
    return _scaled("baddbmm", tensor(c, "baddbmm"), bmm(a, b), beta, alpha)


@operation
def kron(a: Tensor, b: Tensor) -> Any:
    """The Kronecker product: every element of ``a`` times all of ``b``."""
    a, b = tensor(a, "kron"), tensor(b, "kron")
    rank = max(a.ndim, b.ndim)
    left, right = ((Term({}, 1),) * (rank - t.ndim) + tuple(t.shape) for t in (a, b))

    def body(*at: Any) -> Expr:
        first = [0 if s == 1 else i // index(r) for i, s, r in zip(at, left, right)]
        second = [0 if r == 1 else i % index(r) for i, r in zip(at, right)]
        return a.read(*first[rank - a.ndim:]) * b.read(*second[rank - b.ndim:])

    return build("kron", [s * r for s, r in zip(left, right)], body)
