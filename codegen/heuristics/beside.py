"""Sums over the rows of a matrix, made along with a pass over those rows: the gradients of a weight and a bias beside that of the input.

A map goes over rows that sums over all rows read too. In passes of their own both would fetch them from memory; here a thread takes a
block of rows that stays in its cache: it computes the map, with what it needs of every row, then the partial sums of the block. Partial
sums of all blocks are added up in the end. How many rows make a block depends on the shapes and the machine alone, so the order of
summation has a name like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from codegen.analysis.access import accesses, size
from codegen.heuristics.cascade_cpu import schedule_inside
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import depends, is_contraction, made_from
from codegen.heuristics.lanes import span
from dsl.algebra import reads
from dsl.dependence import within
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Expr, Tensor
from dsl.nest import GRID_ROLES, Nest, Stage
from dsl.placing import place
from dsl.primitives.beside import compute_beside
from dsl.primitives.loops import annotate, set_role, split
from dsl.primitives.placement import compute_at
from dsl.primitives.reduction import rfactor
from dsl.primitives.terms import define_terms

_SUMS = ("sum", "prod", "max", "min")
_BLOCKS = 4  # for each thread, so that unequal ones even out
_LARGE = 2  # times what the threads' second caches hold: what is smaller is found there by a second pass
_SLIGHT = 8  # times the bytes of a sum that a map moves beside which a pass of its own for the sum costs nothing
_PARTIAL = 4  # bytes of a block for each byte of its partial sums, which are written and read once more


@dataclass(frozen=True)
class Rows:
    """What goes over the same rows.

    Attributes:
        anchor: the map.
        axis: its axis over rows, by loop name.
        sums: the reductions over those rows -> the axis, by loop name.
        block: rows of a block.
    """

    anchor: str
    axis: str
    sums: dict[str, str]
    block: int


@dataclass(frozen=True)
class Pass:
    """A pass over blocks of rows.

    Attributes:
        rows: what goes over them.
        parts: the stages of partial sums of a block; in the loop over blocks of the first, the rest is computed.
        inside: the stages besides the map that can be, readers first.
        shared: those of them that the partial sums need too, so that they are computed for a whole block.
        together: whether there is such a loop; else the sums are made apart, since what is made of some is needed for the others.
    """

    rows: Rows
    parts: tuple[str, ...]
    inside: tuple[str, ...]
    shared: tuple[str, ...]
    together: bool

    @property
    def own(self) -> set[str]:
        """The stages that are scheduled with the pass."""
        return {*self.parts, *self.shared}


def find_rows(nest: Nest, setting: Setting) -> list[Rows]:
    """The maps of a fused nest with the sums that can be made along with each; every sum with one map at most."""
    sums = [s for s in nest.stages if s.kind == "reduce" and s.attach is None and len(s.tensors) == 1 and not is_contraction(s)
            and s.body.data[0].name in _SUMS]
    out: list[Rows] = []
    taken: set[str] = set()
    for m in reversed(nest.stages) if sums else ():
        rows = next((v for v in m.axes if size(v.extent) > 1), None)
        if m.kind != "map" or m.attach is not None or rows is None or any(is_contraction(p) for p in made_from(nest, m)):
            continue
        mine = {c.name: w for c in sums if c.name not in taken and (w := _same_rows(nest, m, rows, c)) is not None
                and _moved(c, setting) * _SLIGHT > _moved(m, setting)}
        if mine and (block := _block(nest, m, rows, mine, setting)):
            taken |= mine.keys()
            names = {name: nest[name].axis_names()[w] for name, w in mine.items()}
            out.append(Rows(m.name, m.axis_names()[rows], names, block))
    return out


def _same_rows(nest: Nest, m: Stage, rows: Var, c: Stage) -> Var | None:
    """The axis of a reduction along which it goes over the rows of what a map reads or makes; None where they share none."""
    places: dict[Tensor, int] = {t: m.axes.index(rows) for t in m.tensors}
    places |= {r.tensor: n for t in m.tensors for r in reads(t.body) for n, i in enumerate(r.indices) if _is(i, rows)}
    indices = [r.indices[places[r.tensor]] for t in c.tensors for r in reads(t.body) if r.tensor in places]
    w = next((v for v in c.bound if indices and all(_is(i, v) for i in indices)), None)
    if w is None or w.extent != rows.extent or depends(nest, m, c) or _follows(nest, c):
        return None
    return w if any(t in c.sources() for t in m.tensors) or not depends(nest, c, m) else None


def _moved(s: Stage, setting: Setting) -> int:
    """Bytes that a stage reads and writes."""
    return sum(span(x, s) * x.dtype.itemsize for x in accesses(s, setting.strides))


def _is(index: Term | Expr, axis: Var) -> bool:
    return isinstance(index, Term) and index == as_term(axis)


def _follows(nest: Nest, c: Stage) -> bool:
    """Whether a reduction needs the result of another over the same points: the pass that makes both is another affair."""
    def box(s: Stage) -> list[list[int]]:
        return [[n for v in axes if (n := size(v.extent)) != 1] for axes in (s.axes, s.bound)]

    return any(p.kind == "reduce" and p.name != c.name and box(p) == box(c) and depends(nest, c, p) for p in nest.stages)


def _block(nest: Nest, m: Stage, rows: Var, sums: Mapping[str, Var], setting: Setting) -> int:
    """Rows of a block: so many that half of a core's second cache holds what is read and made of them; 0 where apart is as good."""
    total, target, along = size(rows.extent), setting.target, [(m, rows), *((nest[name], v) for name, v in sums.items())]
    if any(v.extent is None or not v.extent.is_const for s, _ in along for v in (*s.axes, *s.bound)):
        return 0
    spans: dict[Tensor, int] = {}
    for s, v in along:
        for x in (x for x in accesses(s, setting.strides) if x.uses(v)):
            spans[x.tensor] = max(spans.get(x.tensor, 0), span(x, s) // total * x.dtype.itemsize)
            if x.stride(v) == 1 and span(x, s) > total:
                return 0  # rows lie side by side in memory
    each = sum(spans.values())
    partial = sum(math.prod(size(v.extent) for v in nest[name].axes) * nest[name].tensors[0].dtype.itemsize for name in sums)
    most = min(target.caches[1] // 2 // max(each, 1), total // (_BLOCKS * target.threads))
    default = _even(total, most) if most * each >= _PARTIAL * partial and total * each > _LARGE * target.threads * target.caches[1] else 0
    return setting.choose(f"{m.name}.beside", default, (0, *(n for n in (8, 16, 32, 64) if n <= most)))


def _even(total: int, most: int) -> int:
    """The greatest number of rows up to ``most`` that divides all, whole vectors of them if there is such; else just whole vectors."""
    found = [n for n in range(most, most // 2, -1) if total % n == 0]
    return next((n for n in found if n % 8 == 0), found[0] if found else most // 8 * 8 or most)


def part_rows(nest: Nest, found: Sequence[Rows], done: AbstractSet[str], setting: Setting) -> tuple[Nest, list[Pass]]:
    """Make every sum from partial sums of blocks of rows, unless it or the map is ``done``, and say what each pass is made of."""
    found = [r for r in found if not done & {r.anchor, *r.sums}]
    parts: list[list[str]] = [[] for _ in found]
    for r, mine in zip(found, parts):
        for name, loop in r.sums.items():
            nest = define_terms(nest, name, loop)
            nest, part = rfactor(split(nest, name, loop, r.block), name, f"{loop}.o")
            mine.append(part)
    tried, out = nest, list[Pass]()
    for r, mine in zip(found, parts):
        try:
            tried, inside, shared = _gathered(_beside(tried, r, mine), mine, setting)
        except ScheduleError:
            out.append(Pass(r, tuple(mine), (), (), False))
        else:
            out.append(Pass(r, tuple(mine), tuple(inside), tuple(shared), True))
    return nest, out


def _gathered(nest: Nest, parts: Sequence[str], setting: Setting) -> tuple[Nest, list[str], list[str]]:
    """Bring into the loop over blocks what depends on the rows, is small for a block, and is needed there alone.

    Returns the nest, those stages, and those of them that the partial sums need.
    """
    host, loop = parts[0], _first(nest[parts[0]])
    inside, shared = list[str](), list[str]()
    for s in reversed(nest.stages):
        readers = nest.consumers(s)
        if (s.attach is not None or nest.is_output(s) or s.kind not in ("map", "reduce") or is_contraction(s) or s.name == host
                or not readers or not all(within(nest, c, host, loop) for c in readers)):
            continue
        made = compute_at(nest, s.name, host, loop)
        here = place(made)[s.name]
        room = math.prod(size(here.extent[v]) for v in s.axes) * s.tensors[0].dtype.itemsize
        if any(t.vars for t in here.start.values()) and room <= setting.target.caches[1] // 2:
            nest = made
            inside.append(s.name)
            shared += [s.name] if any(c.name in (*parts, *shared) for c in readers) else []
    return nest, inside, shared


def _beside(nest: Nest, r: Rows, parts: Sequence[str]) -> Nest:
    """The map and the other partial sums in the loop over blocks of the first."""
    host, loop = parts[0], _first(nest[parts[0]])
    nest = compute_beside(nest, r.anchor, host, loop, r.axis, r.block)
    for p in parts[1:]:
        nest = compute_beside(nest, p, host, loop, _first(nest[p]), 1)
    return nest


def join_rows(nest: Nest, p: Pass, setting: Setting) -> Nest:
    """Bring a map, which has its schedule, into the loop over blocks of the first of its partial sums, and schedule the rest of the block.

    Where the map has become part of a product's schedule, or there is no such loop, what is left is scheduled apart.
    """
    m, host = next((s for s in nest.stages if s.name == p.rows.anchor), None), p.parts[0]
    loop = _first(nest[host])
    if m is not None and m.attach is None and p.together:
        nest = _serial(nest, m.name)
        if any(t in nest[name].sources() for name in p.parts for t in m.tensors):
            nest = annotate(nest, m.name, "streaming", False)  # it is read at once
        nest = _beside(nest, p.rows, p.parts)
        for name in (name for name in p.inside if nest[name].attach is None):
            nest = compute_at(_serial(nest, name), name, host, loop)
    for name in (*p.shared, *p.parts):
        nest = schedule_inside(nest, name, setting)
        if nest[name].attach is None:
            nest = set_role(nest, name, loop if name == host else nest[name].order[0], "parallel")
    return nest


def _first(part: Stage) -> str:
    """The loop over the blocks of partial sums."""
    return part.axis_names()[part.axes[0]]


def _serial(nest: Nest, name: str) -> Nest:
    for x in reversed(nest[name].order):
        if nest[name].role(x) in GRID_ROLES:
            nest = set_role(nest, name, x, "serial")
    return nest
