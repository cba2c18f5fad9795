"""Putting tensors together and taking them apart: concat, stack, split and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.dim import ONE, Term, as_term
from dsl.dtype import Dtype, promote
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, cast, index, op, where
from dsl.ops.dispatch import axis_number, build, names_of, operation, require, show_shape, static, tensor
from dsl.ops.shape import reshape, unsqueeze
from dsl.ops.slicing import part, view
from dsl.program import as_size


def _common(tensors: Sequence[Tensor]) -> Dtype:
    kind = tensors[0].dtype
    for t in tensors[1:]:
        kind = promote(kind, t.dtype)
    return kind


@operation
def concat(tensors: Sequence[Tensor], axis: int = 0) -> Any:
    """Tensors one after another along ``axis``; all other sizes agree. The dtype is the common one.

    Raises:
        ShapeError: ranks or other sizes differ.
    """
    parts = [tensor(t, "concat") for t in tensors]
    require(bool(parts), "concat of no tensors", remedy="give at least one")
    first = parts[0]
    if not first.ndim:
        raise ShapeError(f"concat of {first}", "a tensor of rank 0 has no axis", "use dlc.stack")
    d = axis_number(axis, first.ndim, "concat")
    for t in parts[1:]:
        _fits(first, t, d)
    kind = _common(parts)
    ends = [as_term(0)]
    for t in parts:
        ends.append(ends[-1] + t.shape[d])

    def body(*at: Any) -> Expr:
        def element(n: int) -> Expr:
            return cast(parts[n].read(*at[:d], at[d] - index(ends[n]), *at[d + 1:]), kind)

        out = element(len(parts) - 1)
        for n in reversed(range(len(parts) - 1)):
            out = where(op("lt", at[d], index(ends[n + 1])), element(n), out)
        return out

    return build("concat", (*first.shape[:d], ends[-1], *first.shape[d + 1:]), body, names_of(first))


def _fits(a: Tensor, b: Tensor, d: int) -> None:
    if a.ndim != b.ndim:
        raise ShapeError(f"cannot concat {a.name} {show_shape(a.shape)} and {b.name} {show_shape(b.shape)}",
                         f"they have {a.ndim} and {b.ndim} dimensions", "give them the same rank, or use dlc.stack for a new axis")
    for n, (x, y) in enumerate(zip(a.shape, b.shape)):
        if n != d and x != y:
            raise ShapeError(f"cannot concat {a.name} {show_shape(a.shape)} and {b.name} {show_shape(b.shape)} along axis {d}",
                             f"dimension {n} has sizes {x} and {y}", "only the sizes along the axis may differ")


@operation
def cat(tensors: Sequence[Tensor], axis: int = 0) -> Any:
    """As :func:`concat`."""
    return concat(tensors, axis)


@operation
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Any:
    """Tensors of one shape along a new axis.

    Raises:
        ShapeError: shapes differ.
    """
    parts = [tensor(t, "stack") for t in tensors]
    require(bool(parts), "stack of no tensors", remedy="give at least one")
    for t in parts[1:]:
        if t.shape != parts[0].shape:
            raise ShapeError(f"cannot stack {parts[0].name} {show_shape(parts[0].shape)} and {t.name} {show_shape(t.shape)}",
                             "their shapes differ", "broadcast them first: dlc.broadcast_tensors(a, b)")
    d = axis_number(axis, parts[0].ndim + 1, "stack")
    return concat([unsqueeze(t, d) for t in parts], d)


@operation
def hstack(tensors: Sequence[Tensor]) -> Any:
    """One after another along the second axis, vectors along their only one."""
    parts = [reshape(t, (1,)) if not t.ndim else t for t in tensors]
    return concat(parts, 0 if parts[0].ndim == 1 else 1)


@operation
def vstack(tensors: Sequence[Tensor]) -> Any:
    """One after another along the first axis; vectors become rows."""
    return concat([reshape(t, (1, *t.shape)) if t.ndim < 2 else t for t in tensors], 0)


# -- parts ---------------------------------------------------------------------------------------------------------
@operation
def split(x: Tensor, sizes: Any, axis: int = 0) -> Any:
    """A tuple of parts along ``axis``: each of ``sizes`` elements (the last may be shorter), or of the sizes listed.

    Raises:
        ShapeError: the sizes listed do not add up, or the number of parts is not known because the dimension is symbolic.
    """
    t = tensor(x, "split")
    d = axis_number(axis, t.ndim, "split")
    if isinstance(sizes, (tuple, list)):
        lengths = [as_size(s, "a size in split") for s in sizes]
        total = as_term(0)
        for s in lengths:
            total = total + s
        if total != t.shape[d]:
            raise ShapeError(f"split: the sizes {show_shape(lengths)} do not make up dimension {d} of {t}",
                             f"they add up to {total}, it has {t.shape[d]}", "list sizes that add up to it")
        return _parts(t, d, lengths)
    each, whole = static(sizes, "the size of a part"), _known(t, d, "split")
    require(each > 0, f"split into parts of {each} elements", remedy="a positive number")
    return _parts(t, d, [as_term(min(each, whole - n)) for n in range(0, whole, each)] or [as_term(0)])


def _known(t: Tensor, d: int, what: str) -> int:
    if not t.shape[d].is_const:
        raise ShapeError(f"{what}: the number of parts of {t} along axis {d} is not known", f"its size is the symbol {t.shape[d]}",
                         "list the sizes, dlc.split(x, [n, N - n]), or declare the dimension as a number")
    return t.shape[d].const


def _parts(t: Tensor, d: int, lengths: Sequence[Term]) -> tuple[Tensor, ...]:
    out, start = [], as_term(0)
    for s in lengths:
        out.append(part(t, d, start, s))
        start = start + s
    return tuple(out)


@operation
def chunk(x: Tensor, chunks: int, axis: int = 0) -> Any:
    """At most ``chunks`` parts of equal size along ``axis``, the last of which may be shorter, as in torch.

    Raises:
        ShapeError: the dimension is symbolic and not a multiple of ``chunks``.
    """
    t = tensor(x, "chunk")
    d = axis_number(axis, t.ndim, "chunk")
    require(isinstance(chunks, int) and chunks > 0, f"chunk into {chunks!r} parts", remedy="a positive number")
    each = t.shape[d] // chunks
    if each * chunks == t.shape[d] and not t.shape[d].is_const:
        return _parts(t, d, [each] * chunks)
    whole = _known(t, d, "chunk")
    return split(t, max(-(-whole // chunks), 1), d) if whole else _parts(t, d, [as_term(0)] * chunks)


@operation
def tensor_split(x: Tensor, indices_or_sections: Any, axis: int = 0) -> Any:
    """Parts along ``axis``: so many of nearly equal size, or between the positions listed."""
    t = tensor(x, "tensor_split")
    d = axis_number(axis, t.ndim, "tensor_split")
    whole = _known(t, d, "tensor_split")
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        require(n > 0, f"tensor_split into {n} parts", remedy="a positive number")
        return _parts(t, d, [as_term(whole // n + (k < whole % n)) for k in range(n)])
    ends = [0, *(min(max(i + whole if i < 0 else i, 0), whole) for i in indices_or_sections), whole]
    return tuple(part(t, d, a, max(b - a, 0)) for a, b in zip(ends, ends[1:]))


@operation
def unbind(x: Tensor, axis: int = 0) -> Any:
    """A tuple of the slices along ``axis``.

    Raises:
        ShapeError: the dimension is symbolic.
    """
    t = tensor(x, "unbind")
    d = axis_number(axis, t.ndim, "unbind")
    return tuple(select(t, d, n) for n in range(_known(t, d, "unbind")))


@operation
def select(x: Tensor, axis: int, position: Any) -> Any:
    """The slice at one position of an axis, which goes; a negative number counts from the end."""
    t = tensor(x, "select")
    d = axis_number(axis, t.ndim, "select")
    size = t.shape[d]
    at_end = isinstance(position, int) and position < 0
    if isinstance(position, int) and size.is_const:
        require(-size.const <= position < size.const, f"select: position {position} is outside dimension {d} of {t}", f"its size is {size}")
    place = size + position if at_end else position
    names = names_of(t)
    return view(t, "select", [*t.shape[:d], *t.shape[d + 1:]], lambda *at: [*at[:d], place, *at[d:]], [*names[:d], *names[d + 1:]])


@operation
def narrow(x: Tensor, axis: int, start: Any, length: Any) -> Any:
    """``length`` elements along ``axis`` from ``start`` on."""
    t = tensor(x, "narrow")
    d = axis_number(axis, t.ndim, "narrow")
    begin = t.shape[d] + start if isinstance(start, int) and start < 0 else start
    return part(t, d, begin, as_size(length, "the length of narrow"))


@operation
def meshgrid(*tensors: Tensor, indexing: str = "ij") -> Any:
    """The vectors as coordinates of a grid: each with the shape of all, in matrix (``ij``) or plot (``xy``) order."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    vectors = [tensor(t, "meshgrid") for t in given]
    require(indexing in ("ij", "xy"), f"meshgrid: indexing is {indexing!r}", remedy="'ij' or 'xy'")
    for v in vectors:
        if v.ndim > 1:
            raise ShapeError(f"meshgrid of {v}", "coordinates are vectors", "flatten it")
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = order[1], order[0]
    shape = [vectors[n].shape[0] if vectors[n].ndim else ONE for n in order]
    return tuple(view(v, "meshgrid", shape, lambda *at, n=n, v=v: [at[order.index(n)]][:v.ndim]) for n, v in enumerate(vectors))
