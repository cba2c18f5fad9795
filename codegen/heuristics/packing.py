"""Packed copies of a product's factors: the block that a thread works on, in the order in which it is read."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from codegen.analysis.access import Strides, size
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import computed_by_reader, identity_axes
from codegen.tile.layout import contiguous
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype
from dsl.expr import Read
from dsl.nest import Nest
from dsl.primitives.loops import fuse, reorder, set_role, split
from dsl.primitives.storage import cache_read, compute_at, compute_inline, lay_out

_CHUNK = 16  # elements of a row that are kept together: a cache line of f32


def separable(r: Read, v: Var, batch: Collection[Var] = ()) -> bool:
    """Whether one index of the read is the axis itself and no other index mentions it: a copy may order it at will.

    ``batch`` are axes that stand still while a copy is in use; the index may begin at a place of theirs.
    """
    own = [i for i in r.indices if v in (i.vars if isinstance(i, Term) else i.free)]
    return len(own) == 1 and isinstance(own[0], Term) and own[0].coef(v) == 1 and own[0].vars <= {v, *batch}


def crosses_panels(factor: Read | None, lane: Var, strides: Strides) -> bool:
    """Whether a row of the lane factor runs on in memory from one panel to the next."""
    return factor is not None and contiguous_dimension(factor, strides) == dimension(factor, lane)


@dataclass(frozen=True)
class Packing:
    """How factors are packed, whichever side they are on.

    Attributes:
        heavy: the contraction.
        walk: its reduction axes in the order in which they are walked: terms lie in it.
        terms: (reduction axis, how many of its terms a dot instruction takes side by side for each lane, and in all); None for none.
        dtype: what elements are converted to while they are copied; None for what they are.
    """

    heavy: str
    setting: Setting
    walk: tuple[Var, ...]
    terms: tuple[Var, int, int] | None = None
    dtype: Dtype | None = None

    def order(self, factor: Read, *apart: int | None) -> list[int]:
        """The dimensions but those ``apart``: first what the sum does not run over, then as it walks."""
        def place(n: int) -> int:
            index = factor.indices[n]
            return max((self.walk.index(v) for v in index.vars if v in self.walk), default=-1) if isinstance(index, Term) else -1

        return sorted((n for n in range(factor.tensor.ndim) if n not in apart), key=place)

    def pair(self, factor: Read) -> tuple[int, int] | None:
        """(dimension, count) of the terms kept side by side for a lane."""
        return None if self.terms is None else (dimension(factor, self.terms[0]), self.terms[1])

    def line(self, factor: Read) -> tuple[int, int] | None:
        """(dimension, count) of the terms that a row keeps in a line of its own, for an instruction that takes several steps of them."""
        return (dimension(factor, self.terms[0]), self.terms[2]) if self.terms is not None and self.terms[2] > self.terms[1] else None


def pack_lanes(nest: Nest, packing: Packing, factor: Read, lane: Var, nr: int, at: tuple[str, str]) -> Nest:
    """Read the lane factor through a copy of the panels in use: the lanes of one register tile side by side."""
    own, near = dimension(factor, lane), contiguous_dimension(factor, packing.setting.strides)
    nest, copy, names = _copy(nest, packing, factor, at)
    order = packing.order(factor, own)
    pair = packing.pair(factor)

    def layout(axes: tuple[Var, ...]) -> tuple[Term, ...]:
        n, sums = as_term(axes[own]), [as_term(axes[n]) for n in order]
        if pair is None:
            return (n // nr, *sums, n % nr)
        k = as_term(axes[pair[0]])
        return (n // nr, *(t // pair[1] if t == k else t for t in sums), n % nr, k % pair[1])

    nest = lay_out(nest, copy, layout)
    if near is not None and near != own:
        return _turn(nest, packing, factor, copy, (own, near), min(_vector(packing.setting, size(factor.tensor.shape[own])), nr))
    nest = split(nest, copy, names[own], nr, tail="peel")
    nest = set_role(nest, copy, f"{names[own]}.i", "vectorize")
    if pair is None:
        return reorder(nest, copy, [*(names[n] for n in order), f"{names[own]}.o", f"{names[own]}.i"])
    nest = split(nest, copy, names[pair[0]], pair[1], tail="peel")
    nest = set_role(nest, copy, f"{names[pair[0]]}.i", "unroll")
    inner = [names[n] if n != pair[0] else f"{names[n]}.o" for n in order]
    return reorder(nest, copy, [*inner, f"{names[own]}.o", f"{names[pair[0]]}.i", f"{names[own]}.i"])


def _turn(nest: Nest, packing: Packing, factor: Read, copy: str, dims: tuple[int, int], width: int) -> Nest:
    """Lanes along the first of two dimensions, for what lies along the second: blocks are turned in registers.

    Where the sum runs over more dimensions that memory does not tell apart (the window and the channels of a filter), blocks are taken
    from all of them at once, or short dimensions would leave most of a block empty. Terms that stay side by side move as one
    (:mod:`codegen.emit.word_copies`).
    """
    own, near = dims
    names = [nest[copy].axis_names()[a] for a in nest[copy].axes]
    shape = factor.tensor.shape
    run = [near] if packing.terms is not None else _run(factor, near, frozenset(nest[packing.heavy].bound), packing.setting.strides)
    outer = [names[n] for n in range(factor.tensor.ndim) if n != own and n not in run]
    nest = reorder(nest, copy, [names[own], *outer, *(names[n] for n in run)])
    side = names[run[0]]
    for n in run[1:]:
        nest = fuse(nest, copy, side, names[n], f"{side}{names[n]}")
        side = f"{side}{names[n]}"
    deep = min(width, _power(math.prod(size(shape[n]) for n in run))) * _together(packing, factor, own)
    nest = split(nest, copy, side, deep, tail="peel")
    nest = split(nest, copy, names[own], width, tail="peel")
    nest = set_role(set_role(nest, copy, f"{side}.i", "unroll"), copy, f"{names[own]}.i", "vectorize")
    return reorder(nest, copy, [*outer, f"{side}.o", f"{names[own]}.o", f"{side}.i", f"{names[own]}.i"])


def _together(packing: Packing, factor: Read, own: int) -> int:
    """How many terms move as one word: those of a lane, if rows are whole words apart."""
    if packing.terms is None:
        return 1
    apart = (packing.setting.strides.get(factor.tensor) or contiguous(factor.tensor.shape))[own]
    return packing.terms[1] if apart.is_const and apart.const % packing.terms[1] == 0 else 1


def _run(factor: Read, near: int, bound: frozenset[Var], strides: Strides) -> list[int]:
    """The dimensions that only the sum runs over, and that memory does not tell from the contiguous one, outermost first."""
    steps = strides.get(factor.tensor) or contiguous(factor.tensor.shape)
    out = [near]
    for n in reversed(range(near)):
        index, inner = factor.indices[n], out[0]
        if not isinstance(index, Term) or not index.vars <= bound or steps[n] != steps[inner] * factor.tensor.shape[inner]:
            break
        out.insert(0, n)
    return out


def pack_rows(nest: Nest, packing: Packing, factor: Read, row: Var, mr: int, at: tuple[str, str]) -> Nest:
    """Read the row factor through a copy of the block in use: the rows of one register tile side by side, in chunks of a cache line."""
    own, near = dimension(factor, row), contiguous_dimension(factor, packing.setting.strides)
    nest, copy, names = _copy(nest, packing, factor, at)
    pair, line = packing.pair(factor), packing.line(factor)
    if line is not None:
        return _lay_lines(nest, copy, names, factor, (own, mr), line, near == own)
    across = near is not None and near != own
    side, count = ((near, min(_vector(packing.setting, size(factor.tensor.shape[near])), _CHUNK)) if across and near is not None
                   else pair or (None, 0))
    others = packing.order(factor, own, side)

    def layout(axes: tuple[Var, ...]) -> tuple[Term, ...]:
        r, rest = as_term(axes[own]), tuple(as_term(axes[n]) for n in others)
        if side is None:
            return (r // mr, *rest, r % mr)
        c = as_term(axes[side])
        return (r // mr, *rest, c // count, r % mr, c % count)

    nest = lay_out(nest, copy, layout)
    nest = split(nest, copy, names[own], mr, tail="peel")
    loops = [f"{names[own]}.o", *(names[n] for n in others)]
    lanes, unrolled = (names[side], names[own]) if across and side is not None else (names[own], names[side] if side is not None else "")
    if side is not None:
        nest = split(nest, copy, names[side], count, tail="peel")
        loops.append(f"{names[side]}.o")
    nest = set_role(nest, copy, f"{lanes}.i", "vectorize")
    if not unrolled:
        return reorder(nest, copy, [*loops, f"{lanes}.i"])
    nest = set_role(nest, copy, f"{unrolled}.i", "unroll")
    return reorder(nest, copy, [*loops, f"{unrolled}.i", f"{lanes}.i"])


def _lay_lines(nest: Nest, copy: str, names: list[str], factor: Read, rows: tuple[int, int], line: tuple[int, int], turned: bool) -> Nest:
    """Rows of one register tile, a line of terms each, one tile after another.

    A row is copied at a time, or, where rows lie side by side in memory, squares of them are transposed.
    """
    (own, mr), (side, count) = rows, line
    others = [n for n in range(factor.tensor.ndim) if n not in (own, side)]
    nest = lay_out(nest, copy, lambda axes: (as_term(axes[own]) // mr, *(as_term(axes[n]) for n in others), as_term(axes[side]) // count,
                                             as_term(axes[own]) % mr, as_term(axes[side]) % count))
    nest = split(nest, copy, names[own], mr, tail="peel")
    nest = split(nest, copy, names[side], count, tail="peel")
    outer, inner = [f"{names[own]}.o", *(names[n] for n in others), f"{names[side]}.o"], [f"{names[own]}.i", f"{names[side]}.i"]
    for loop, points in zip(inner, (mr, count)) if turned else ():
        if points > _CHUNK and points % _CHUNK == 0:
            nest = split(nest, copy, loop, _CHUNK)
            outer, inner = [*outer, f"{loop}.o"], [f"{loop}.i" if x == loop else x for x in inner]
    nest = reorder(nest, copy, [*outer, *inner])
    nest = set_role(nest, copy, inner[1], "vectorize")
    return set_role(nest, copy, inner[0], "unroll") if turned else nest


def _copy(nest: Nest, packing: Packing, factor: Read, at: tuple[str, str]) -> tuple[Nest, str, list[str]]:
    """A copy of the factor computed at a loop; its loop names, one per dimension."""
    nest, copy = cache_read(nest, packing.heavy, factor.tensor, f"{factor.tensor.name}.packed", dtype=packing.dtype, only=factor)
    while (producer := _made_for(nest, copy)) is not None:
        nest = compute_inline(nest, producer)
    names = nest[copy].axis_names()
    return compute_at(nest, copy, *at), copy, [names[a] for a in nest[copy].axes]


def _made_for(nest: Nest, copy: str) -> str | None:
    """A definition that nothing but the copy reads, each element once: it is computed while it is copied."""
    for t in nest[copy].sources():
        s = nest.producer(t)
        direct = identity_axes(nest[copy], s) if s is not None else None
        if s is not None and direct is not None and len(direct) == len(nest[copy].axes) and computed_by_reader(nest, s):
            if nest.consumers(s) == [nest[copy]]:
                return s.name
    return None


def dimension(factor: Read, axis: Var) -> int:
    """The dimension of a separable axis."""
    return next(n for n, i in enumerate(factor.indices) if isinstance(i, Term) and axis in i.vars)


def contiguous_dimension(factor: Read, strides: Strides) -> int | None:
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
