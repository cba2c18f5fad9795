"""Which definitions share a loop nest: inlining, epilogues, row fusion, sibling outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

from codegen.analysis.access import cost, paired_reads, product_reads, size
from codegen.analysis.arrangement import visits
from codegen.analysis.cycles import cycles, level
from codegen.target.model import Target
from dsl.algebra import reads, walk
from dsl.dim import Div, Term, Var, as_term
from dsl.expr import Read, Reduce, Where
from dsl.nest import Nest, Stage
from dsl.placing import total_extent
from dsl.primitives.axes import part_axis
from dsl.primitives.placement import depends, inline_where, merge, reads_own_point

_PLAIN = ("sum", "prod", "max", "min")  # reductions whose unfinished results are single numbers
_SHORT = 6  # operations on a pair that a register tile repeats for each of its elements
_REPEATED = 32  # operations that may be repeated where somebody asks for it
_CHEAP = 4  # operations that are cheaper to repeat than to store and load again, unless they are slow ones
_IDLE = 1.5  # cycles of arithmetic on a vector that cost nothing beside what is loaded for it
_START = 5000  # cycles of a pass over little
_LONG = 8  # rounds of a loop beside which what stands in front of it costs little


class Choose(Protocol):
    """Where a heuristic asks: see :meth:`codegen.heuristics.decisions.Setting.choose`."""

    def __call__(self, name: str, default: bool, options: Sequence[bool]) -> bool:
        """The value of a choice."""


def fuse_stages(nest: Nest, target: Target, choose: Choose | None = None) -> Nest:
    """Inline what is cheap to repeat, give results the axes of what they finish, and merge pointwise outputs over one box.

    Args:
        nest: what to fuse.
        target: the machine.
        choose: asked where a map could as well be inlined as stored, and siblings merged as not; None takes what seems best.
    """
    nest = _part_results(inline_where(nest, lambda s, consumers: _repeated(s, consumers, target, choose or _best)))
    return _merge_siblings(nest, choose or _best)


def _best(name: str, default: bool, options: Sequence[bool]) -> bool:
    return default


def iterations(stage: Stage) -> int:
    """Points of a stage's full iteration space."""
    out = 1
    for a in (*stage.axes, *stage.bound):
        out *= size(a.extent, 1 << 12)
    return out


def _repeated(s: Stage, consumers: list[Stage], target: Target, choose: Choose) -> bool:
    """Whether the elements of a map are read once, or are made for every read: where that is cheap, if nobody asks for it."""
    points = iterations(s)
    evaluations = sum(visits(c) * len(_reads_of(c, s)) for c in consumers)
    if evaluations <= points:
        return True
    if any(is_contraction(c) for c in consumers) and any(isinstance(e, Where) for t in s.tensors for e in walk(t.body)):
        return False  # a guard evaluated once per element is cheaper than one in the inner loop
    work = max(cost(t.body) for t in s.tensors)
    cheap = work <= _CHEAP or (work <= 2 * _CHEAP and evaluations <= 2 * points)
    return work <= _REPEATED and choose(f"{s.name}.inline", cheap and not _worth_storing(s, consumers, target), (True, False))


def _worth_storing(s: Stage, consumers: list[Stage], target: Target) -> bool:
    """Whether making the elements of a map for every read takes more cycles than a pass that stores them, and loading them.

    What they are made of is loaded either way, which leaves the arithmetic idle for some cycles. What does not change in a loop is made in
    front of it, and what a product multiplies is made once, while it is packed.
    """
    points = iterations(s)
    inside = [c for c in consumers for r in _reads_of(c, s) if not is_contraction(c) and not _stands_still(c, r, s)]
    again = sum(visits(c) for c in inside) - points
    made = max(cycles(t.body, target) for t in s.tensors)
    stored = 2 * target.moves[level(target, points * s.tensors[0].dtype.itemsize)]
    return again * (made - _IDLE - target.moves[0]) > points * stored + _START * target.vector_bits // 32


def _stands_still(consumer: Stage, r: Read, s: Stage) -> bool:
    """Whether what a map computes does not change in the inner loops of a reader: along its last axes, or those it sums over."""
    used = {v for t in s.tensors for v in t.body.free}
    moving = {v for i, a in zip(r.indices, s.axes) if a in used for v in (i.vars if isinstance(i, Term) else i.free)}
    axes = [a for a in (*consumer.axes, *consumer.bound) if size(a.extent) > 1]
    return math.prod(size(a.extent) for a in itertools.takewhile(lambda a: a not in moving, reversed(axes))) >= _LONG


def _reads_of(consumer: Stage, s: Stage) -> list[Read]:
    return [r for t in consumer.tensors for r in reads(t.body) if r.tensor in s.tensors]


def _part_results(nest: Nest) -> Nest:
    """Give a result that takes reductions in other axes, ``y[f // 32, f % 32]`` or ``y[f // 32]``, those axes, so that it finishes them."""
    for s in nest.stages:
        if s.kind != "map" or not nest.is_output(s) or nest.consumers(s):
            continue
        while (found := _parted_axis(nest, nest[s.name])) is not None:
            nest = part_axis(nest, s.name, *found)
    return nest


def _parted_axis(nest: Nest, s: Stage) -> tuple[str, int] | None:
    """An axis, by name, of which a reduction is read at the quotient and at the remainder by a number; or at the quotient alone.

    The latter not of the innermost axis, whose points the lanes are.
    """
    last = next((v for v in reversed(s.axes) if size(v.extent) > 1), None)
    for r in (r for t in s.tensors for r in reads(t.body)):
        made = nest.producer(r.tensor)
        if made is None or made.kind != "reduce":
            continue
        for v, name in s.axis_names().items():
            for one, other, n in zip(r.indices, r.indices[1:], r.tensor.shape[1:]):
                if isinstance(one, Term) and isinstance(other, Term) and n.is_const and n.const > 1 and (
                        one == as_term(v) // n.const and other == as_term(v) % n.const):
                    return name, n.const
            if v is not last and (found := next((k for i in r.indices if isinstance(i, Term) and (k := _divisor(i, v)) > 1), 0)):
                return name, found
    return None


def _divisor(index: Term, v: Var) -> int:
    """The number by which an axis is divided, without a rest, where that is all there is to an index; else 1."""
    dens = (a.den.const for mono in index.parts for a in mono if isinstance(a, Div) and a.den.is_const)
    return next((k for k in dens if index == as_term(v) // k and v.extent is not None and v.extent % k == 0), 1)


def _merge_siblings(nest: Nest, choose: Choose) -> Nest:
    roots = [s.name for s in nest.stages if s.kind == "map" and s.attach is None]
    for n, a in enumerate(roots):
        for b in roots[n + 1:]:
            names = {s.name for s in nest.stages}
            if a in names and b in names and _mergeable(nest, nest[a], nest[b]) and choose(f"{a}.merge", True, (True, False)):
                nest = merge(nest, a, b)
    return nest


def _mergeable(nest: Nest, a: Stage, b: Stage) -> bool:
    same = len(a.axes) == len(b.axes) and all(x.extent == y.extent for x, y in zip(a.axes, b.axes))
    if not same or not _movable(nest, a, b):
        return False
    if reads_own_point(b, a):
        return nest.is_output(a) and not any(p.name != a.name and depends(nest, p, a) for p in made_from(nest, b))
    shared = {t for t in a.sources() if t in b.sources()}
    return bool(shared) and not depends(nest, b, a) and not depends(nest, a, b)


def made_from(nest: Nest, s: Stage) -> list[Stage]:
    """The stages that a stage reads."""
    return [p for t in s.sources() if (p := nest.producer(t)) is not None]


def _movable(nest: Nest, a: Stage, b: Stage) -> bool:
    """Moving ``a`` down to ``b`` passes no reader of ``a``."""
    names = [s.name for s in nest.stages]
    between = nest.stages[names.index(a.name) + 1:names.index(b.name)]
    return not any(depends(nest, s, a) for s in between)


def identity_axes(reader: Stage, s: Stage) -> dict[Var, Var] | None:
    """Axis of ``s`` -> axis of ``reader`` when every read is at the reader's own point; None otherwise."""
    out: dict[Var, Var] = {}
    for t in reader.tensors:
        for r in reads(t.body):
            if r.tensor in s.tensors:
                for axis, i in zip(s.axes, r.indices):
                    v = _single_var(i) if isinstance(i, Term) else None
                    if v is None or out.setdefault(axis, v) is not v:
                        return None
    return out


def _single_var(t: Term) -> Var | None:
    if t.const == 0 and len(t.parts) == 1:
        (mono, c), = t.parts.items()
        if c == 1 and len(mono) == 1 and isinstance(mono[0], Var):
            return mono[0]
    return None


def is_contraction(s: Stage) -> bool:
    """A reduction of pairs in which each factor lacks a spatial axis of some length: its operands are reused.

    A sum of products, first of all; but the same loops serve a sum of squared distances or a maximum of sums.
    """
    if s.kind != "reduce" or not isinstance(s.body, Reduce) or len(s.tensors) != 1:
        return False
    value, name = s.body.args[0], s.body.carrier.name.split(".")[0]  # a sum that is resumed has its state as a second operand
    sides = paired_reads(value, s.bound)
    if sides is None or name not in _PLAIN or (product_reads(value) is None and cost(value) > _SHORT):
        return False
    return all(any(size(a.extent) > 1 and a not in other for a in s.axes) for other in (sides[0].free, sides[1].free))


def computed_by_reader(nest: Nest, s: Stage) -> bool:
    """Whether a map may be computed where a product packs it: nothing is computed inside of it, and no product has it as its epilogue."""
    if s.kind != "map" or nest.is_output(s) or any(other.attach is not None and other.attach[0] == s.name for other in nest.stages):
        return False
    made = [p for p in made_from(nest, s) if is_contraction(p)]
    return not any(len(nest.consumers(p)) == 1 and len(identity_axes(s, p) or ()) == len(s.axes) for p in made)


__all__ = ["computed_by_reader", "depends", "fuse_stages", "identity_axes", "is_contraction", "iterations", "made_from",
           "total_extent"]
