"""Array-level indexing: ``x[1:, None, ..., -1]``, slices with steps, gathers by integer tensors, and single elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dsl.dim import ZERO, Term, Var, as_term, cdiv, tmax, tmin
from dsl.dtype import bool_
from dsl.errors import IndexingError, ShapeError
from dsl.expr import Compute, Const, Expr, Index, Tensor, cast, index, where
from dsl.ops.dispatch import axis_names, broadcast, build, default_names, element_at, is_element, names_of, show_shape


def view(t: Tensor, name: str, shape: Sequence[Any], fn: Callable[..., Sequence[Any]], names: Sequence[str] | None = None) -> Compute:
    """The definition ``name[idx] = t[fn(*idx)]``."""
    return build(name, shape, lambda *at: t.read(*fn(*at)), names)


def part(t: Tensor, axis: int, start: Any, size: Any, step: int = 1) -> Compute:
    """``size`` elements of ``t`` along ``axis`` from ``start`` on, ``step`` apart."""
    shape = (*t.shape[:axis], as_term(size), *t.shape[axis + 1:])
    first = as_term(start)
    return view(t, "part", shape, lambda *at: (*at[:axis], index(first) + at[axis] * step, *at[axis + 1:]), names_of(t))


@dataclass(frozen=True)
class _Fixed:
    """An index at one position: a term or an integer expression; it gives no output dimension."""

    at: Any


@dataclass(frozen=True)
class _Range:
    """``start + step * i`` for ``i`` in ``[0, size)``."""

    start: Term
    step: int
    size: Term


@dataclass(frozen=True)
class _New:
    """A new dimension of size 1."""


@dataclass(frozen=True)
class _Gather:
    """A dimension indexed by an integer tensor."""

    by: Tensor


def getitem(t: Tensor, key: Any) -> Any:
    """``t[key]``: one element when every dimension has a scalar index, a new tensor otherwise.

    Args:
        t: the tensor.
        key: ints (negative ones count from the end), index expressions, slices with int or symbolic bounds and any step but 0,
            None, Ellipsis, and integer tensors, which broadcast with each other and gather. Placement of the gathered
            dimensions is torch's: in place when the tensors are adjacent, in front otherwise.

    Raises:
        IndexingError: too many indices, an int out of range, a mask, or an index of ``compute`` beside slices.
    """
    keys = key if isinstance(key, tuple) else (key,)
    scalars = [_scalar_index(k) for k in keys]
    if len(keys) == t.ndim and all(scalars):
        return t.read(*(_position(k, size, t, n) for n, (k, size) in enumerate(zip(keys, t.shape))))
    used = [k for k in keys if is_element(k)]
    if used:
        raise IndexingError(f"{t.name} has {t.ndim} dimensions; inside a compute it is read with one index for each",
                          f"`{used[0]}` is an element index, and the key is {_show_key(keys)}", f"{t.name}[{', '.join(names_of(t))}]")
    return _array(t, [_parse(k, size, t, n) for n, (k, size) in enumerate(_expand(keys, t))])


def _scalar_index(k: Any) -> bool:
    if isinstance(k, Tensor):
        return k.ndim == 0 and k.dtype.is_int
    return isinstance(k, (Expr, Term, Var)) or hasattr(k, "__index__") and not isinstance(k, bool)


def _show_key(keys: Sequence[Any]) -> str:
    def one(k: Any) -> str:
        return ":" if isinstance(k, slice) else "..." if k is Ellipsis else k.name if isinstance(k, Tensor) else str(k)
    return f"[{', '.join(map(one, keys))}]"


def _expand(keys: Sequence[Any], t: Tensor) -> list[tuple[Any, Term]]:
    """Each key with the size of its dimension; Ellipsis and missing keys become full slices."""
    dims = sum(k is not None and k is not Ellipsis for k in keys)
    if sum(k is Ellipsis for k in keys) > 1:
        raise IndexingError(f"{t.name}{_show_key(keys)} has more than one `...`")
    if dims > t.ndim:
        raise IndexingError(f"too many indices for {t.name}", f"{t} has {t.ndim} dimensions and {dims} are indexed")
    full = [slice(None)] * (t.ndim - dims)
    where_at = next((n for n, k in enumerate(keys) if k is Ellipsis), len(keys))
    spread = [*keys[:where_at], *full, *keys[where_at + 1:]]
    sizes = iter(t.shape)
    return [(k, ZERO if k is None else next(sizes)) for k in spread]


def _parse(k: Any, size: Term, t: Tensor, n: int) -> Any:
    if k is None:
        return _New()
    if isinstance(k, slice):
        return _slice(k, size, t)
    if isinstance(k, bool) or isinstance(k, Tensor) and k.dtype is bool_:
        raise IndexingError(f"{t.name} cannot be indexed by a bool or a mask", "the shape of the result would depend on the data",
                          "dlc.where(mask, x, 0)")
    if isinstance(k, Tensor) and k.ndim:
        if not k.dtype.is_int:
            raise IndexingError(f"{t.name} is indexed by `{k.name}`, which is {k.dtype}", remedy="cast the index to i64")
        return _Gather(k)
    if not _scalar_index(k):
        raise IndexingError(f"{t.name} cannot be indexed by a {type(k).__name__}",
                          remedy="ints, slices, None, ..., and integer tensors are possible")
    return _Fixed(_position(k, size, t, n))


def _position(k: Any, size: Term, t: Tensor, n: int) -> Any:
    """A scalar index; a negative int counts from the end."""
    if isinstance(k, Tensor):
        return k.read()
    if isinstance(k, (Expr, Term, Var)) and not isinstance(k, Const):
        return k
    i = int(k.value if isinstance(k, Const) else k)
    if size.is_const and not -size.const <= i < size.const:
        raise IndexingError(f"index {i} is out of range for dimension {n} of {t.name}", f"{t} has size {size} there")
    return i if i >= 0 else size + i


def _bound(value: Any, size: Term, default: Term, low: int, high: Term | None) -> Term:
    """A slice bound with Python's meaning: negative ints count from the end, everything is limited to ``[low, high]``."""
    if value is None:
        return default
    if isinstance(value, Index):
        value = value.term
    if isinstance(value, (Expr, Tensor)) or not (isinstance(value, (Term, Var)) or hasattr(value, "__index__")):
        raise IndexingError(f"a slice bound must be an int or a size, not {value}")
    b = as_term(value)
    least = tmax(size + b if b.is_const and b.const < 0 else b, low)
    return least if high is None else tmin(least, high)


def _slice(k: slice, size: Term, t: Tensor) -> _Range:
    step = 1 if k.step is None else int(k.step)
    if step == 0:
        raise IndexingError(f"the step of a slice of {t.name} is 0")
    if step > 0:
        start = _bound(k.start, size, ZERO, 0, size)
        stop = _bound(k.stop, size, size, 0, size)
        beyond = _bound(k.start, size, ZERO, 0, None)  # past the end nothing is left either way, and x[2:] has max(N - 2, 0) as x[:-2]
        return _Range(start, step, tmax(cdiv(stop - beyond, step), 0))
    start = _bound(k.start, size, size - 1, -1, size - 1)
    stop = _bound(k.stop, size, as_term(-1), -1, size - 1)
    return _Range(start, step, tmax(cdiv(start - stop, -step), 0))


def _array(t: Tensor, items: list[Any]) -> Compute:
    """The tensor of an array-level key."""
    gathers = [i for i in items if isinstance(i, _Gather)]
    if len(gathers) > 1 and not gathers[0].by.shape == gathers[1].by.shape:
        broadcast(*(g.by for g in gathers))
    block = broadcast(*(g.by for g in gathers)) if gathers else ()
    front = gathers and not _adjacent(items)
    shape: list[Term] = list(block) if front else []
    names: list[str] = list(_gather_names(gathers, block)) if front else []
    source = iter(names_of(t))
    base = 0 if front else -1  # where the gathered dimensions begin
    for item in items:
        own = "u" if isinstance(item, _New) else next(source)
        if isinstance(item, _Gather) and base < 0:
            base = len(shape)
            shape += block
            names += _gather_names(gathers, block)
        elif isinstance(item, (_Range, _New)):
            shape.append(item.size if isinstance(item, _Range) else as_term(1))
            names.append(own)
    return view(t, "slice" if not gathers else "gather", shape, lambda *at: _map(items, at, base, len(block), t), distinct(names))


def _adjacent(items: list[Any]) -> bool:
    at = [n for n, i in enumerate(x for x in items if not isinstance(x, _Fixed)) if isinstance(i, _Gather)]
    return at == list(range(at[0], at[0] + len(at)))


def _gather_names(gathers: list[_Gather], block: Sequence[Term]) -> Sequence[str]:
    return axis_names([g.by for g in gathers], tuple(block))


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number after those that occur before."""
    out: list[str] = []
    for n in names:
        out.append(n if n not in out else next(m for m in (f"{n}{k}" for k in range(1, len(names) + 1)) if m not in out))
    return tuple(out)


def _map(items: list[Any], at: Sequence[Any], base: int, rank: int, t: Tensor) -> list[Any]:
    """The source index of the output index ``at``."""
    block = at[base:base + rank] if rank else ()
    rest = iter(at if not rank else [*at[:base], *at[base + rank:]])
    out: list[Any] = []
    for item in items:
        if isinstance(item, _New):
            next(rest)
        elif isinstance(item, _Fixed):
            out.append(item.at)
        elif isinstance(item, _Range):
            out.append(next(rest) * item.step + item.start)
        else:
            out.append(wrapped(element_at(item.by, block), t.shape[len(out)]))
    return out


def wrapped(i: Expr, size: Term) -> Expr:
    """A data-dependent index; negative ones count from the end."""
    return where(i < 0, i + cast(index(size), i.dtype), i) if i.dtype.signed else i


def length(t: Tensor) -> int:
    """``len(t)``: the first size.

    Raises:
        ShapeError: rank 0, or a symbolic size.
    """
    if not t.ndim or not t.shape[0].is_const:
        raise ShapeError(f"{t.name} {show_shape(t.shape)} has no length known now", remedy="use its .shape, whose entries may be symbolic")
    return t.shape[0].const


__all__ = ["default_names", "distinct", "getitem", "length", "part", "view"]
