"""Packed copies of a product's factors: the block that a thread works on, in the order in which it is read."""

from __future__ import annotations

from codegen.analysis.access import Strides, size
from codegen.heuristics.decisions import Setting
from codegen.tile.layout import contiguous
from dsl.dim import Term, Var, as_term
from dsl.expr import Read
from dsl.nest import Nest
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.storage import cache_read, compute_at, lay_out

_CHUNK = 16  # elements of a row that are kept together: a cache line of f32


def separable(r: Read, v: Var) -> bool:
    """Whether one index of the read is the axis itself and no other index mentions it: a copy may order it at will."""
    own = [i for i in r.indices if v in (i.vars if isinstance(i, Term) else i.free)]
    return len(own) == 1 and own[0] == as_term(v)


def crosses_panels(factor: Read | None, lane: Var, strides: Strides) -> bool:
    """Whether a row of the lane factor runs on in memory from one panel to the next."""
    return factor is not None and _contiguous(factor, strides) == _dimension(factor, lane)


def pack_lanes(nest: Nest, heavy: str, factor: Read, lane: Var, nr: int, at: tuple[str, str], setting: Setting) -> Nest:
    """Read the lane factor through a copy of the panels in use: the lanes of one register tile side by side."""
    own = _dimension(factor, lane)
    nest, copy, names = _copy(nest, heavy, factor, at)
    order = [n for n in range(factor.tensor.ndim) if n != own]
    nest = lay_out(nest, copy, lambda axes: (as_term(axes[own]) // nr, *(as_term(axes[n]) for n in order), as_term(axes[own]) % nr))
    near = _contiguous(factor, setting.strides)
    if near is None or near == own:
        nest = split(nest, copy, names[own], nr, tail="peel")
        nest = set_role(nest, copy, f"{names[own]}.i", "vectorize")
        return reorder(nest, copy, [*(names[n] for n in order), f"{names[own]}.o", f"{names[own]}.i"])
    width = min(_vector(setting, size(factor.tensor.shape[own])), nr)
    nest = split(nest, copy, names[own], width, tail="peel")
    nest = split(nest, copy, names[near], min(width, _power(size(factor.tensor.shape[near]))), tail="peel")
    nest = set_role(set_role(nest, copy, f"{names[own]}.i", "vectorize"), copy, f"{names[near]}.i", "unroll")
    inner = [names[n] if n != near else f"{names[n]}.o" for n in order]
    return reorder(nest, copy, [*inner, f"{names[own]}.o", f"{names[near]}.i", f"{names[own]}.i"])


def pack_rows(nest: Nest, heavy: str, factor: Read, row: Var, mr: int, at: tuple[str, str], setting: Setting) -> Nest:
    """Read the row factor through a copy of the block in use: the rows of one register tile side by side, in chunks of a cache line."""
    own = _dimension(factor, row)
    near = _contiguous(factor, setting.strides)
    nest, copy, names = _copy(nest, heavy, factor, at)
    others = [n for n in range(factor.tensor.ndim) if n not in (own, near)]
    chunk = min(_vector(setting, size(factor.tensor.shape[near])), _CHUNK) if near is not None and near != own else 0

    def layout(axes: tuple[Var, ...]) -> tuple[Term, ...]:
        r, rest = as_term(axes[own]), tuple(as_term(axes[n]) for n in others)
        if not chunk:
            return (r // mr, *rest, r % mr)
        assert near is not None
        c = as_term(axes[near])
        return (r // mr, *rest, c // chunk, r % mr, c % chunk)

    nest = lay_out(nest, copy, layout)
    nest = split(nest, copy, names[own], mr, tail="peel")
    loops = [f"{names[own]}.o", *(names[n] for n in others)]
    if not chunk:
        return reorder(set_role(nest, copy, f"{names[own]}.i", "vectorize"), copy, [*loops, f"{names[own]}.i"])
    assert near is not None
    nest = split(nest, copy, names[near], chunk, tail="peel")
    nest = set_role(set_role(nest, copy, f"{names[own]}.i", "unroll"), copy, f"{names[near]}.i", "vectorize")
    return reorder(nest, copy, [*loops, f"{names[near]}.o", f"{names[own]}.i", f"{names[near]}.i"])


def _copy(nest: Nest, heavy: str, factor: Read, at: tuple[str, str]) -> tuple[Nest, str, list[str]]:
    """A copy of the factor computed at a loop; its loop names, one per dimension."""
    nest, copy = cache_read(nest, heavy, factor.tensor, f"{factor.tensor.name}.packed")
    names = nest[copy].axis_names()
    return compute_at(nest, copy, *at), copy, [names[a] for a in nest[copy].axes]


def _dimension(factor: Read, axis: Var) -> int:
    return next(n for n, i in enumerate(factor.indices) if isinstance(i, Term) and i == as_term(axis))


def _contiguous(factor: Read, strides: Strides) -> int | None:
    """The dimension whose neighbours are neighbours in memory."""
    steps = strides.get(factor.tensor) or contiguous(factor.tensor.shape)
    return next((n for n, (s, e) in enumerate(zip(steps, factor.tensor.shape)) if s == 1 and size(e) > 1), None)


def _vector(setting: Setting, extent: int) -> int:
    return min(setting.target.vector_bits // 32, _power(extent))


def _power(extent: int) -> int:
    """The least power of two that is no smaller, or 16."""
    width = 16
    while width > 1 and width // 2 >= extent:
        width //= 2
    return width
