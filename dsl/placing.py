"""Where the stages of a nest stand: from names of loops to extents, regions and terms.

Extents are inferred from the outputs inwards, so a later split of a consumer moves the regions of everything attached to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

from dsl.algebra import reads
from dsl.dim import INF, ONE, ZERO, Term, Var, as_term, cdiv, nonneg
from dsl.errors import InternalError
from dsl.nest import GRID_ROLES, TILE_ROLES, Fuse, Nest, Pad, Split, Stage


@dataclass(frozen=True)
class PlacedLoop:
    """A loop with its variable; ``reduce`` when it runs over a bound axis, ``tail`` from the split that made it."""

    name: str
    var: Var
    extent: Term
    role: str
    reduce: bool
    tail: str = "mask"

    @property
    def tile(self) -> bool:
        """Whether the loop is an axis of the tile instead of a loop of the program; one of a single iteration is neither."""
        return self.role in TILE_ROLES and not (self.extent.is_const and self.extent.const == 1)


@dataclass(frozen=True)
class Guards:
    """What holds on the real points of a stage, proved or not; which of it is not proved is found when it is first asked for.

    Attributes:
        stage: the stage.
        terms: each axis as a term over loop variables.
        limits: loops that relations made longer: name of the axis, its extent, its value.
        counting: what holds, of bound axes, at the points whose terms count.
    """

    stage: Stage
    terms: Mapping[Var, Term]
    limits: tuple[tuple[str, Term, Term], ...]
    counting: tuple[Term, ...] = ()

    @cached_property
    def sides(self) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
        """The terms that are ``>= 0`` on real points and not everywhere, of spatial axes and of bound ones."""
        s, reducing = self.stage, self.stage.reducing() if self.limits else set()
        sides: tuple[list[Term], list[Term]] = ([], [])
        for name, extent, value in self.limits:
            left = extent - 1 - value
            if not nonneg(left):
                sides[name in reducing].append(left)
        for a in (*s.axes, *s.along):
            known = sides[a in s.bound]
            known += [t for t in (self.terms[a], whole(a) - 1 - self.terms[a]) if not nonneg(t, known)]
        return tuple(dict.fromkeys(sides[0])), tuple(dict.fromkeys((*sides[1], *self.counting)))


@dataclass(frozen=True)
class Placed:
    """A stage where it stands.

    Attributes:
        loops: outermost first.
        value: each axis as a term over loop variables (its own and those of the loops it is attached in).
        start: for each axis, the first point of the region computed.
        extent: for each axis, the number of points of the region.
        guards: terms that are ``>= 0`` on real points; those always true are left out.
    """

    stage: Stage
    loops: tuple[PlacedLoop, ...]
    value: Mapping[Var, Term]
    start: Mapping[Var, Term]
    extent: Mapping[Var, Term]
    guards: Guards

    @property
    def spatial(self) -> tuple[Term, ...]:
        """The guards of spatial axes."""
        return self.guards.sides[0]

    @property
    def bound(self) -> tuple[Term, ...]:
        """The guards of bound axes."""
        return self.guards.sides[1]

    @cached_property
    def region(self) -> frozenset[Var]:
        """The points of a rolling stage's region: they stand for what has no loop."""
        if not self.stage.states:
            return frozenset()
        return frozenset(v for a in self.stage.axes for v in (self.value[a] - self.start[a]).vars) - {x.var for x in self.loops}

    def loop(self, name: str) -> PlacedLoop:
        """The loop called ``name``."""
        return next(x for x in self.loops if x.name == name)


class Places(Mapping[str, Placed]):
    """The stages of a nest where they stand; each is placed when it is first asked for, after those that its place depends on."""

    def __init__(self, nest: Nest) -> None:
        self._nest = nest
        self._found: dict[str, Placed] = {}

    def __getitem__(self, name: str) -> Placed:
        pending = [name]
        while pending:
            stage = self._nest[pending[-1]]
            around = _around(self._nest, stage)
            if missing := [n for n in around if n not in self._found]:
                pending += missing
            else:
                self._found[pending.pop()] = _place_again(self._nest, stage, [self._found[n] for n in around], self._found)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return (s.name for s in reversed(self._nest.stages))

    def __len__(self) -> int:
        return len(self._nest.stages)


def place(nest: Nest) -> Places:
    """Loop variables, extents and regions of every stage; the nest keeps them."""
    found: Places | None = nest.__dict__.get("_placed")
    if found is None:
        found = nest.__dict__["_placed"] = Places(nest)
    return found


def place_anew(nest: Nest) -> dict[str, Placed]:
    """The same with loop variables made in order, whatever was asked of this nest and others before: what is lowered has one form."""
    out: dict[str, Placed] = {}
    for stage in reversed(nest.stages):
        out[stage.name] = _place_stage(stage, _region_of(nest, stage, out))
    return out


def _around(nest: Nest, stage: Stage) -> list[str]:
    """The stages that the place of a stage depends on: its readers, and those it is attached in."""
    if stage.attach is None:
        return []
    names = [c.name for c in nest.consumers(stage)]
    above = stage
    while above.attach is not None:
        names.append(above.attach[0])
        above = nest[above.attach[0]]
    return names


def _place_again(nest: Nest, stage: Stage, around: list[Placed], placed: Mapping[str, Placed]) -> Placed:
    """A stage where it stands; as it was found in another nest, where everything that its place depends on is what it was there.

    A primitive changes one stage or a few, so that most of a nest stays where it was.
    """
    before: tuple[list[Placed], Placed] | None = stage.__dict__.get("_placed")
    if before is not None and len(before[0]) == len(around) and all(a is b for a, b in zip(before[0], around)):
        return before[1]
    found = _place_stage(stage, _region_of(nest, stage, placed))
    stage.__dict__["_placed"] = (around, found)
    return found


def _place_stage(stage: Stage, region: Mapping[Var, tuple[Term, Term]]) -> Placed:
    names = stage.axis_names()
    region = _padded(stage, region, names)
    extent: dict[str, Term] = {names[a]: region[a][1] for a in stage.axes}
    extent |= {names[a]: region[a][1] for a in stage.bound}
    tails: dict[str, str] = {}
    for r in stage.relations:
        if isinstance(r, Split):
            extent[r.outer], extent[r.inner] = cdiv(extent[r.axis], r.factor), as_term(r.factor)
            if r.axis in tails:  # a part of a peeled loop is peeled too
                tails[r.inner] = tails.pop(r.axis)
            tails[r.outer] = r.tail
        elif isinstance(r, Pad):
            extent[r.padded] = cdiv(extent[r.axis], r.multiple) * r.multiple
        else:
            extent[r.fused] = extent[r.outer] * extent[r.inner]
    reducing = stage.reducing()
    loops = tuple(PlacedLoop(n, Var(n, extent[n]), extent[n], stage.role(n), n in reducing, tails.get(n, "mask")) for n in stage.order)
    value = {x.name: as_term(x.var) if not (x.extent.is_const and x.extent.const == 1) else ZERO for x in loops}
    parted = {n for r in stage.relations for n in ((r.outer, r.inner) if isinstance(r, Fuse) else (r.axis,))}
    value |= {n: _region_point(n, e) for n, e in extent.items() if n not in value and n not in parted}
    limits = _axis_values(stage, value, extent)
    if stage.position is not None:
        (scanned,) = stage.bound
        if stage.body.data[5]:
            value[names[scanned]] = extent[names[scanned]] - 1 - value[names[scanned]]
        value[names[stage.position]] = value[names[scanned]]
    terms = {a: at + value[names[a]] for a, (at, _) in region.items()}
    return Placed(stage, loops, terms, {a: at for a, (at, _) in region.items()}, {a: n for a, (_, n) in region.items()},
                  Guards(stage, terms, limits))


def _axis_values(stage: Stage, value: dict[str, Term], extent: Mapping[str, Term]) -> tuple[tuple[str, Term, Term], ...]:
    """Fill in the values of loops that relations replaced, from those that stand; returns the loops that may be longer than they should.

    For each its name, its extent and its value.
    """
    limits: list[tuple[str, Term, Term]] = []
    for r in reversed(stage.relations):
        if isinstance(r, Fuse):
            inner = extent[r.inner] if extent[r.inner] != 0 else as_term(1)  # no point of an empty loop is visited
            value[r.outer], value[r.inner] = value[r.fused] // inner, value[r.fused] % inner
            continue
        value[r.axis] = value[r.padded] if isinstance(r, Pad) else value[r.outer] * r.factor + value[r.inner]
        limits.append((r.axis, extent[r.axis], value[r.axis]))
    return tuple(limits)


def _padded(stage: Stage, region: Mapping[Var, tuple[Term, Term]], names: Mapping[Var, str]) -> dict[Var, tuple[Term, Term]]:
    """The region with the axes whose storage is padded made larger, to whole tiles."""
    factors = {r.axis: r.factor for r in stage.relations if isinstance(r, Split) and r.tail == "pad"}
    return {a: (at, cdiv(n, factors[names[a]]) * factors[names[a]] if a in stage.axes and names[a] in factors else n)
            for a, (at, n) in region.items()}


def _region_point(name: str, extent: Term) -> Term:
    """Any point along an axis that has no loop."""
    return ZERO if extent.is_const and extent.const == 1 else as_term(Var(name, extent))


def _region_of(nest: Nest, stage: Stage, placed: Mapping[str, Placed]) -> dict[Var, tuple[Term, Term]]:
    """The part of a stage's axes that is computed: all of it, or what is read where it is attached, and what its host is at.

    Beside its host it is a round's share of some axes.
    """
    bound = {a: (ZERO, whole(a)) for a in stage.bound}
    if stage.attach is None or stage.beside:
        return {a: (ZERO, whole(a)) for a in stage.axes} | bound | _share(stage, placed)
    outer, host = _outer_vars(nest, stage.attach, placed), placed[stage.attach[0]]
    mine = region(nest, stage, placed, nest.consumers(stage)) | bound
    return mine | {a: span(host.value[v], outer) or bound[a] for a, v in stage.along.items()}


def _share(stage: Stage, placed: Mapping[str, Placed]) -> dict[Var, tuple[Term, Term]]:
    """The points of its axes that a stage beside another computes in a round."""
    if stage.attach is None:
        return {}
    host, axes = placed[stage.attach[0]], {name: a for a, name in stage.axis_names().items()}
    rounds = [(host.loop(loop), axes[axis], points) for loop, axis, points in stage.beside]
    return {mine: (ZERO if x.extent == 1 else as_term(x.var) * points, as_term(points)) for x, mine, points in rounds}


def region(nest: Nest, stage: Stage, placed: Mapping[str, Placed], readers: Iterable[Stage]) -> dict[Var, tuple[Term, Term]]:
    """The box of a stage's axes that some readers read inside the loop it is attached at."""
    assert stage.attach is not None
    outer = _outer_vars(nest, stage.attach, placed)
    boxes: dict[Var, tuple[Term, Term] | None] = {}
    for consumer in readers:
        p = placed.get(consumer.name)
        if p is None:
            raise InternalError(f"{consumer.name} reads {stage.name} but comes before it")
        for t in consumer.tensors:
            for r in reads(t.body):
                if r.tensor in stage.tensors:
                    for axis, i in zip(stage.axes, r.indices):
                        box = span(i.subs(p.value), outer) if isinstance(i, Term) else None
                        boxes[axis] = box if axis not in boxes else _union(boxes[axis], box)
    return {a: _clip(boxes.get(a), a) or (ZERO, whole(a)) for a in stage.axes if a is not stage.position} | _whole_scan(stage)


def _whole_scan(stage: Stage) -> dict[Var, tuple[Term, Term]]:
    """Prefixes begin with the first element, wherever the results begin that somebody reads."""
    return {} if stage.position is None else {stage.position: (ZERO, whole(stage.position))}


def whole(axis: Var) -> Term:
    """The extent of an axis that has one, as every axis of a stage does."""
    assert axis.extent is not None
    return axis.extent


def _clip(box: tuple[Term, Term] | None, axis: Var) -> tuple[Term, Term] | None:
    """A region as large as the whole axis is the whole axis."""
    if box is None or axis.extent is None:
        return None
    if box[0] == 0 and nonneg(box[1] - axis.extent) and not box[1].is_const:
        return None
    return box


def _outer_vars(nest: Nest, attach: tuple[str, str], placed: Mapping[str, Placed]) -> set[Var]:
    """Variables of the loops that enclose the attachment point; tile axes lie inside everything, wherever they stand."""
    stage, loop = attach
    p = placed[stage]
    out: set[Var] = set()
    for x in p.loops:
        if loop == "" and x.role not in GRID_ROLES:
            break
        if not x.tile:
            out.add(x.var)
        if x.name == loop:
            break
    above = nest[stage].attach
    return out | (_outer_vars(nest, above, placed) if above else set())


def span(t: Term, outer: AbstractSet[Var]) -> tuple[Term, Term] | None:
    """(first, extent) of the values of ``t`` as the variables not in ``outer`` run over their ranges."""
    inner = {v: 0 for v in t.vars if v.kind == "axis" and v not in outer}
    base = t.subs(inner)
    delta = t - base
    if any(v in outer for v in delta.vars):
        return None
    lo, hi = delta.bounds
    if abs(lo) == INF or abs(hi) == INF:
        return None
    return base + int(lo), as_term(int(hi - lo) + 1)


def _union(a: tuple[Term, Term] | None, b: tuple[Term, Term] | None) -> tuple[Term, Term] | None:
    if a is None or b is None or not (b[0] - a[0]).is_const:
        return None
    shift = (b[0] - a[0]).const
    lo, hi = min(0, shift), max(a[1].const, shift + b[1].const)
    return a[0] + lo, as_term(hi - lo)


def total_extent(loops: Iterable[PlacedLoop]) -> Term:
    """The number of iterations of some loops."""
    out = ONE
    for x in loops:
        out = out * x.extent
    return out


__all__ = ["Placed", "PlacedLoop", "Places", "place", "place_anew", "region", "span", "total_extent", "whole"]
