"""Loops of pointwise stages, cut where a condition on indices changes, so that inside each piece every read is a plain one.

``where(j < 500, x[i, j], y[i, j - 500])`` becomes a loop over ``x`` and one over ``y``, with at most one tile of both kinds between them;
``x[i, (j - 7) % 1000]`` a tile around 7 and a loop in which nothing wraps around. Conditions that no loop inside decides, such as those
on the row of a parallel loop, are asked once around the loops instead of for every element.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from codegen.lower.context import Context
from dsl.algebra import index_condition, reads, walk
from dsl.dim import INF, ZERO, Div, MinMax, Term, Var, as_term, nonneg, tile_bound, tmax, tmin, without_quotient
from dsl.expr import Where
from dsl.nest import GRID_ROLES, Stage
from dsl.placing import Placed, PlacedLoop

_PERIODS = 3  # places at which a remainder starts anew, up to which a loop is cut there
_CUTS = 8  # places at which one loop is cut at most
_BRANCHES = 2  # conditions asked around the loops at most: each doubles the code


@dataclass(frozen=True)
class Piece:
    """Iterations ``lo .. hi - 1`` of ``var``, in which the loop's own variable is ``value`` and the ``facts`` are ``>= 0``."""

    var: Var
    lo: Term
    hi: Term
    value: Term
    facts: tuple[Term, ...]


def cut(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, piece: Piece, inner: set[Var]) -> list[Piece]:
    """The piece in parts, in each of which a switch of the stage is surely on, surely off, or left to masks.

    Args:
        cx: where the loop is opened.
        stage: a pointwise stage.
        p: where it stands.
        x: the loop.
        piece: its iterations.
        inner: the variables that run inside of the loop.
    """
    here = {x.var: piece.value}
    zones = [z for t in _conditions(stage) if (z := _zone(cx, cx.term(t, p).subs(here), piece, inner)) is not None]
    fixed = [z for z in zones if z.fixed]
    if piece.lo.is_const and piece.hi.is_const:
        last = all(y is x or y.tile or y.var in cx.env or y.role in GRID_ROLES for y in p.loops)
        turns = [t for t in _periods(cx, stage, p, here) if last or t.vars & inner]  # a remainder once a row costs nothing
        fixed += [z for t in turns if (z := _zone(cx, t, piece, inner)) is not None and z.fixed]
        if fixed:
            return _cut_fixed(piece, fixed[:_CUTS // 2])
    return _cut_moving(piece, zones[0]) if zones else [piece]


def branches(cx: Context, stage: Stage, p: Placed) -> list[Term]:
    """The conditions that no loop or lane inside this place takes part in: they hold at every point still to come, or at none."""
    opened = [without_quotient(cx.term(t, p)) for t in _conditions(stage)]
    free = cx.tile | {x.var for x in p.loops if x.var not in cx.env and x.role not in GRID_ROLES}
    left = [t for t in dict.fromkeys(opened) if not t.vars & free and not cx.holds(t) and not cx.holds(-1 - t)]
    return left if len(left) <= _BRANCHES else []


# -- what changes along a loop -------------------------------------------------------------------------------------
def _conditions(stage: Stage) -> tuple[Term, ...]:
    """The terms whose signs choose between the values of a stage."""
    found = (index_condition(e.args[0]) for t in stage.tensors for e in walk(t.body) if isinstance(e, Where))
    return tuple(dict.fromkeys(t for terms in found if terms is not None for t in terms))


def _periods(cx: Context, stage: Stage, p: Placed, here: dict[Var, Term]) -> Iterator[Term]:
    """Terms that change sign where a remainder or quotient in an index starts anew, or a limit is met."""
    terms = [cx.term(i, p).subs(here) for t in stage.tensors for r in reads(t.body) for i in r.indices if isinstance(i, Term)]
    for atom in dict.fromkeys(a for t in terms for mono in t.parts for a in mono):
        if isinstance(atom, MinMax):
            yield atom.a - atom.b
        elif isinstance(atom, Div) and atom.den.is_const:
            lo, hi = atom.num.bounds
            if -INF < lo and hi < INF and hi // atom.den.const - lo // atom.den.const <= _PERIODS:
                yield from (atom.num - k * atom.den.const for k in range(int(lo // atom.den.const) + 1, int(hi // atom.den.const) + 1))


@dataclass(frozen=True)
class _Zone:
    """A switch along a loop: ``first`` and ``last`` bound the iterations in which it is both on and off; it is on before or after them."""

    switch: Term
    first: Term
    last: Term
    rising: bool

    @property
    def fixed(self) -> bool:
        """Whether it changes at the same iterations wherever the loop stands."""
        return self.first.is_const and self.last.is_const

    def fact(self, part: int) -> tuple[Term, ...]:
        """What holds before (0), among (1) and after (2) the iterations in which the switch is both."""
        before, after = (-1 - self.switch, self.switch) if self.rising else (self.switch, -1 - self.switch)
        return ((before,), (), (after,))[part]


def _zone(cx: Context, t: Term, piece: Piece, inner: set[Var]) -> _Zone | None:
    """Where a switch changes along the loop; None where it does not, or not at one place."""
    t = without_quotient(t)
    step = t.coef(piece.var)
    if not step or cx.holds(t) or cx.holds(-1 - t):
        return None
    rest = t.subs({piece.var: ZERO})
    least, most = (tile_bound(rest, inner, best) for best in (False, True))
    if any(v in inner for bound in (least, most) for v in bound.vars):
        return None
    if step > 0:  # off while step*x + most < 0, on from step*x + least >= 0
        return _Zone(t, -(most // step), -(least // step), True)
    return _Zone(t, least // -step + 1, most // -step + 1, False)


# -- the parts -----------------------------------------------------------------------------------------------------
def _cut_fixed(piece: Piece, zones: list[_Zone]) -> list[Piece]:
    """Cut at known iterations; the variable of every part counts from 0, so that its range is known exactly."""
    lo, hi = piece.lo.const, piece.hi.const
    places = sorted({min(max(at.const, lo), hi) for z in zones for at in (z.first, z.last)} | {lo, hi})
    out = []
    for start, end in itertools.pairwise(places):
        var = Var(piece.var.name, end - start)
        here: dict[Var, Term | int] = {piece.var: as_term(var) + start}
        facts = (*piece.facts, *(f for z in zones for f in z.fact(0 if end <= z.first.const else 2 if start >= z.last.const else 1)))
        out.append(Piece(var, ZERO, as_term(end - start), piece.value.subs(here), tuple(f.subs(here) for f in facts)))
    return out


def _cut_moving(piece: Piece, zone: _Zone) -> list[Piece]:
    """Cut where one switch changes, which depends on where the loop stands."""
    lo, hi = piece.lo, piece.hi
    out = []
    for n, (start, end) in enumerate(((lo, tmin(zone.first, hi)), (tmax(zone.first, lo), tmin(zone.last, hi)), (tmax(zone.last, lo), hi))):
        if not nonneg(start - end):  # a part that begins past its end has no iterations
            var = Var(piece.var.name, piece.var.extent)
            facts = (*piece.facts, as_term(piece.var) - start, end - 1 - as_term(piece.var), *zone.fact(n))
            out.append(Piece(var, start, end, piece.value.subs({piece.var: as_term(var)}),
                             tuple(f.subs({piece.var: as_term(var)}) for f in facts)))
    return out
