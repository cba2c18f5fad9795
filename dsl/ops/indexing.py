"""Reading at positions that are data, and masks by position: gather, embedding, one_hot, triangles and diagonals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term, as_term, tmax, tmin
from dsl.dtype import Dtype, i64
from dsl.errors import DtypeError, ShapeError
from dsl.expr import Expr, Index, Tensor, cast, const, index, op, where
from dsl.ops.dispatch import axis_number, broadcast_shapes, build, names_of, operation, require, show_shape, tensor
from dsl.ops.shape import flatten, permute
from dsl.ops.slicing import distinct, view, wrapped
from dsl.program import as_size, reduce_axis, reduce_over


def _integer(t: Tensor, what: str) -> Tensor:
    if not t.dtype.is_int:
        raise DtypeError(f"{what}: positions are {t.dtype}", f"`{t.name}` is {t}", "cast them: dlc.cast(i, dlc.i64)")
    return t


@operation
def gather(x: Tensor, axis: int, positions: Tensor) -> Any:
    """``out[.., i, ..] = x[.., positions[.., i, ..], ..]`` along ``axis``, in the shape of ``positions``; as ``torch.gather``.

    Raises:
        ShapeError: the ranks differ.
        DtypeError: the positions are no integers.
        BoundsError: when the kernel runs, a position is outside.
    """
    t, at_ = tensor(x, "gather"), _integer(tensor(positions, "gather"), "gather")
    if t.ndim != at_.ndim:
        raise ShapeError(f"gather: {t.name} {show_shape(t.shape)} and the positions {at_.name} {show_shape(at_.shape)} differ in rank",
                         f"they have {t.ndim} and {at_.ndim} dimensions", "for positions along one axis: dlc.index_select")
    d = axis_number(axis, t.ndim, "gather")
    return build("gather", at_.shape, lambda *at: t.read(*at[:d], at_.read(*at), *at[d + 1:]), names_of(t))


@operation
def take_along_dim(x: Tensor, positions: Tensor, axis: int | None = None) -> Any:
    """As :func:`gather`, with the other dimensions broadcast; of the flattened tensors without an axis."""
    t, at_ = tensor(x, "take_along_dim"), _integer(tensor(positions, "take_along_dim"), "take_along_dim")
    if axis is None:
        return gather(flatten(t), 0, flatten(at_))
    if t.ndim != at_.ndim:
        raise ShapeError(
            f"take_along_dim: {t.name} {show_shape(t.shape)} and the positions {at_.name} {show_shape(at_.shape)} differ in rank",
            f"they have {t.ndim} and {at_.ndim} dimensions")
    d = axis_number(axis, t.ndim, "take_along_dim")
    rest = [(u.name, tuple(s for n, s in enumerate(u.shape) if n != d)) for u in (t, at_)]
    shape = list(broadcast_shapes(rest, "take_along_dim"))
    shape.insert(d, at_.shape[d])

    def body(*at: Any) -> Expr:
        own = at_.read(*(0 if s == 1 and n != d else i for n, (i, s) in enumerate(zip(at, at_.shape))))
        return t.read(*(wrapped(own, t.shape[d]) if n == d else 0 if s == 1 else i for n, (i, s) in enumerate(zip(at, t.shape))))

    return build("gather", shape, body, names_of(t))


@operation
def index_select(x: Tensor, axis: int, positions: Tensor) -> Any:
    """The slices at ``positions`` (a vector) along ``axis``."""
    t, at_ = tensor(x, "index_select"), _integer(tensor(positions, "index_select"), "index_select")
    if at_.ndim > 1:
        raise ShapeError(f"index_select: the positions {at_} are not a vector", f"they have {at_.ndim} dimensions",
                         "use x[positions] or dlc.gather")
    d = axis_number(axis, t.ndim, "index_select")
    count: Any = at_.shape[0] if at_.ndim else 1
    return build("gather", [*t.shape[:d], count, *t.shape[d + 1:]],
                 lambda *at: t.read(*at[:d], at_.read(*([at[d]] if at_.ndim else [])), *at[d + 1:]), names_of(t))


@operation
def take(x: Tensor, positions: Tensor) -> Any:
    """The elements of the flattened tensor at ``positions``, in their shape."""
    flat, at_ = flatten(x), _integer(tensor(positions, "take"), "take")
    return build("take", at_.shape, lambda *at: flat.read(wrapped(at_.read(*at), flat.shape[0])), names_of(at_))


@operation
def embedding(positions: Tensor, weight: Tensor, padding_idx: int | None = None) -> Any:
    """The rows of ``weight`` at ``positions``: ``(..), (V, D) -> (.., D)``; the row ``padding_idx`` gets no gradient.

    Raises:
        ShapeError: the table is no matrix.
        DtypeError: the positions are no integers.
    """
    at_, table = tensor(positions, "embedding"), tensor(weight, "embedding")
    if table.ndim != 2:
        swapped = at_.ndim == 2 and at_.dtype.is_float
        raise ShapeError(f"embedding: the table {table} is not a matrix", f"the positions are {at_}",
                         "the positions come first: dlc.embedding(positions, weight)" if swapped else "a table is [words, features]")
    _integer(at_, "embedding")
    still = None if padding_idx is None else padding_idx

    def body(*at: Any) -> Expr:
        i = at_.read(*at[:-1])
        row = table.read(i, at[-1])
        if still is None:
            return row
        pad: Any = index(table.shape[0] + still) if still < 0 else still
        return where(op("ne", i, pad), row, op("detach", row))

    return build("embedding", (*at_.shape, table.shape[1]), body, distinct([*names_of(at_), "d"]))


@operation
def one_hot(x: Tensor, num_classes: Any) -> Any:
    """A new last dimension with 1 at the position of each class, 0 elsewhere; i64 as in torch. A class outside gives zeros."""
    t = _integer(tensor(x, "one_hot"), "one_hot")
    classes = as_size(num_classes, "num_classes")
    return build("one_hot", (*t.shape, classes), lambda *at: cast(op("eq", t.read(*at[:-1]), at[-1]), i64), distinct([*names_of(t), "c"]))


@operation
def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Any:
    """``value`` where ``mask`` holds, else ``x``; shapes broadcast."""
    t, m = tensor(x, "masked_fill"), tensor(mask, "masked_fill")
    shape = broadcast_shapes([(t.name, t.shape), (m.name, m.shape)])
    element = value.read() if isinstance(value, Tensor) else value

    def body(*at: Any) -> Expr:
        inside, own = (u.read(*(0 if s == 1 else i for i, s in zip(at[len(at) - u.ndim:], u.shape))) for u in (m, t))
        return where(inside, cast(element, t.dtype) if isinstance(element, Expr) else const(element, t.dtype), own)

    return build("masked", shape, body, names_of(t) if t.ndim == len(shape) else None)


# -- triangles and diagonals ---------------------------------------------------------------------------------------
def _triangle(x: Tensor, name: str, keep: Callable[[Any, Any], Any]) -> Any:
    t = tensor(x, name)
    if t.ndim < 2:
        raise ShapeError(f"{name} of {t}", f"it has {t.ndim} dimensions", "a matrix, or a stack of them, has a triangle")
    return build(name, t.shape, lambda *at: where(keep(at[-2], at[-1]), t.read(*at), const(0, t.dtype)), names_of(t))


@operation
def triu(x: Tensor, diagonal: int = 0) -> Any:
    """The elements on and above a diagonal, 0 elsewhere."""
    return _triangle(x, "triu", lambda i, j: op("ge", j, i + diagonal))


@operation
def tril(x: Tensor, diagonal: int = 0) -> Any:
    """The elements on and below a diagonal, 0 elsewhere."""
    return _triangle(x, "tril", lambda i, j: op("le", j, i + diagonal))


@operation
def diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements with equal indices in two dimensions, ``offset`` columns further; they become the last dimension."""
    t = tensor(x, "diagonal")
    a, b = axis_number(axis1, t.ndim, "diagonal"), axis_number(axis2, t.ndim, "diagonal")
    require(a != b, f"diagonal: both axes are {a}")
    t = permute(t, [n for n in range(t.ndim) if n not in (a, b)] + [a, b])
    rows, cols = t.shape[-2:]
    down, right = max(-offset, 0), max(offset, 0)
    length = tmax(tmin(rows - down, cols - right), 0)
    return view(t, "diagonal", [*t.shape[:-2], length], lambda *at: [*at[:-1], at[-1] + down, at[-1] + right], names_of(t)[:-1])


@operation
def diag(x: Tensor, diagonal: int = 0) -> Any:
    """A vector on a diagonal of a square matrix, or the diagonal of a matrix.

    Raises:
        ShapeError: the tensor has another rank.
    """
    t = tensor(x, "diag")
    if t.ndim == 2:
        return diagonal_of(t, diagonal)
    if t.ndim != 1:
        raise ShapeError(f"diag of {t}", f"it has {t.ndim} dimensions", "use dlc.diagonal or dlc.diag_embed on stacks of matrices")
    return diag_embed(t, diagonal)


diagonal_of = diagonal


@operation
def diag_embed(x: Tensor, offset: int = 0) -> Any:
    """The last dimension on a diagonal of square matrices, zeros elsewhere."""
    t = tensor(x, "diag_embed")
    size = t.shape[-1] + abs(offset)
    down, right = max(-offset, 0), max(offset, 0)

    def body(*at: Any) -> Expr:
        i, j = at[-2:]
        place = i - down
        here = op("and", op("eq", j - right, place), op("ge", place, 0))
        if offset:
            here = op("and", here, op("lt", place, index(t.shape[-1])))
        return where(here, t.read(*at[:-2], place), const(0, t.dtype))

    return build("diag", (*t.shape[:-1], size, size), body, distinct([*names_of(t)[:-1], "i", "j"]))


@operation
def trace_of(x: Tensor) -> Any:
    """The sum of a matrix's diagonal (``Tensor.trace``)."""
    t = tensor(x, "trace")
    if t.ndim != 2:
        raise ShapeError(f"trace of {t}", f"it has {t.ndim} dimensions", "it is defined for matrices")
    d = diagonal(t)
    k = reduce_axis(d.shape[0], name="k")
    return build("trace", (), lambda: reduce_over(SUM, (d.read(k),), (k,)))


@operation
def diff(x: Tensor, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along an axis, ``n`` times."""
    t = tensor(x, "diff")
    d = axis_number(axis, t.ndim, "diff")
    if n == 0:
        return t
    shape: list[Term] = [*t.shape[:d], tmax(t.shape[d] - 1, 0), *t.shape[d + 1:]]

    def body(*at: Any) -> Expr:
        after, before = t.read(*at[:d], at[d] + 1, *at[d + 1:]), t.read(*at)
        return op("xor" if not t.dtype.is_float and t.dtype.name == "bool" else "sub", after, before)

    return diff(build("diff", shape, body, names_of(t)), n - 1, d)


__all__ = ["Dtype", "Index", "as_term", "diag", "diag_embed", "diagonal", "diff", "embedding", "gather", "index_select", "masked_fill",
           "one_hot", "take", "take_along_dim", "trace_of", "tril", "triu"]
