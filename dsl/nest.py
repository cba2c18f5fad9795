"""The loop nest: what a schedule rearranges.

A :class:`Nest` is a list of stages, producers first. A :class:`Stage` computes one or several tensors over a common box of
axes; its loops are the leaves of a tree of splits and fusions of those axes, in an order, each with a role. A stage is a
*root* with a nest of its own, or *attached* at a loop of a consumer, where it computes just the region that the consumer
needs there. Nothing here is mutable: a primitive makes a new Nest.

Loop extents are never stored; :func:`place` infers them from the outputs inwards, so a later split of a consumer moves
the regions of everything attached to it.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dsl.algebra import reads
from dsl.dim import INF, ONE, ZERO, Term, Var, as_term, cdiv, nonneg
from dsl.errors import InternalError
from dsl.expr import Compute, Expr, Reduce, Scan, Tensor
from dsl.loc import Loc
from dsl.program import Program
from dsl.relation import Fuse, Pad, Relation, Split

TILE_ROLES = frozenset({"unroll", "vectorize", "dot"})
GRID_ROLES = frozenset({"parallel", "grid"})


@dataclass(frozen=True)
class State:
    """What a rolling stage carries from one block of its axis to the next.

    Attributes:
        before: stands for the value that the previous block left: stages attached in the loop read it at the same block and point.
        initial: its value before the first block.
    """

    before: Tensor
    initial: Expr


@dataclass(frozen=True)
class Stage:
    """One or several definitions over a common box, with their loops.

    Attributes:
        name: unique; the first tensor's name.
        tensors: definitions whose bodies are over ``axes``. A reducing stage holds the components of one carrier.
        axes: spatial axes.
        bound: the axes its reduction or scan binds.
        relations: splits, fusions and paddings, in the order they were made.
        order: loop names, outermost first.
        roles: loop name to role; ``serial`` when absent.
        attach: (stage, loop) of the consumer it is computed at; None for a root. The loop ``""`` means inside the
            consumer's parallel loops but before any other.
        layout: storage dimensions of its buffer as terms over ``axes`` counted from the start of the region; None for row-major.
        notes: loop name to an annotation for the emitters (``unroll_by``, ``pipeline``), and stage-wide ones under ``""``.
        states: one for each tensor of a rolling stage. Such a tensor's definition is a read, at the stage's bound axis, of what a stage
            attached in the loop over that axis computes: the tensor is its value at the last block. Axes that have no loop in ``order``
            are a region which the attached stages run over.
    """

    name: str
    tensors: tuple[Compute, ...]
    axes: tuple[Var, ...]
    bound: tuple[Var, ...] = ()
    relations: tuple[Relation, ...] = ()
    order: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    attach: tuple[str, str] | None = None
    layout: tuple[Term, ...] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[State, ...] = ()

    @property
    def body(self) -> Expr:
        """The first tensor's definition."""
        return self.tensors[0].body

    @property
    def kind(self) -> str:
        """``"reduce"``, ``"scan"``, ``"map"`` or ``"roll"``."""
        if self.states:
            return "roll"
        return "reduce" if isinstance(self.body, Reduce) else "scan" if isinstance(self.body, Scan) else "map"

    @property
    def position(self) -> Var | None:
        """The axis that runs over the results of a scan; it has no loop of its own, it goes along with the scanned axis."""
        if not isinstance(self.body, Scan):
            return None
        at: Term = self.body.data[2]
        return next(a for a in self.axes if at == as_term(a))

    def role(self, loop: str) -> str:
        """The role of a loop."""
        return self.roles.get(loop, "serial")

    def sources(self) -> KeysView[Tensor]:
        """Every tensor its bodies read, in the order in which they do."""
        return self._sources

    @cached_property
    def _sources(self) -> KeysView[Tensor]:
        return dict.fromkeys(r.tensor for t in self.tensors for r in reads(t.body)).keys()

    def axis_names(self) -> dict[Var, str]:
        """Loop name of each axis before any split."""
        names: dict[Var, str] = {}
        for v in (*self.axes, *self.bound):
            name, n = v.name, 0
            while name in names.values():
                n += 1
                name = f"{v.name}{n}"
            names[v] = name
        return names

    def reducing(self) -> set[str]:
        """The names of loops that run over a bound axis."""
        names = self.axis_names()
        out = {names[v] for v in self.bound}
        for r in self.relations:
            if isinstance(r, Split) and r.axis in out:
                out |= {r.outer, r.inner}
            elif isinstance(r, Fuse) and r.outer in out:
                out.add(r.fused)
            elif isinstance(r, Pad) and r.axis in out:
                out.add(r.padded)
        return out

    def padded(self) -> set[str]:
        """The axes, by loop name, whose storage reaches to the end of the last tile."""
        return {r.axis for r in self.relations if isinstance(r, Split) and r.tail == "pad"}


@dataclass(frozen=True)
class Step:
    """One primitive that was applied: its name, its arguments as plain data, and the user's line that asked for it (None: a heuristic)."""

    name: str
    args: Mapping[str, Any]
    loc: Loc | None = field(default=None, compare=False)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`of_data` reads it back."""
        out: dict[str, Any] = {"step": self.name, "args": dict(self.args)}
        return out if self.loc is None else out | {"at": f"{self.loc.file}:{self.loc.line}"}

    @staticmethod
    def of_data(data: Mapping[str, Any]) -> Step:
        """The step of :meth:`as_data`.

        Raises:
            KeyError, TypeError, ValueError: it is no such data.
        """
        file, _, line = str(data["at"]).rpartition(":") if data.get("at") else ("", "", "")
        return Step(str(data["step"]), dict(data["args"]), Loc(file, int(line)) if file else None)


@dataclass(frozen=True)
class Nest:
    """Stages, producers first, of one program; ``trace`` lists the primitives that made it out of the unscheduled nest, in order."""

    program: Program
    stages: tuple[Stage, ...]
    trace: tuple[Step, ...] = ()

    def __getitem__(self, name: str) -> Stage:
        for s in self.stages:
            if s.name == name:
                return s
        raise KeyError(name)

    def with_stage(self, stage: Stage) -> Nest:
        """The nest with the stage of that name replaced."""
        return replace(self, stages=tuple(stage if s.name == stage.name else s for s in self.stages))

    def producer(self, tensor: Tensor) -> Stage | None:
        """The stage that defines a tensor; None for an input."""
        return next((s for s in self.stages if tensor in s.tensors), None)

    def consumers(self, stage: Stage) -> list[Stage]:
        """The stages that read any of a stage's tensors."""
        return [s for s in self.stages if any(t in s.sources() for t in stage.tensors)]

    def is_output(self, stage: Stage) -> bool:
        """Whether the program returns one of the stage's tensors."""
        return any(t in self.program.outputs for t in stage.tensors)

    @cached_property
    def _places(self) -> Mapping[str, Placed]:
        out: dict[str, Placed] = {}
        for stage in reversed(self.stages):
            out[stage.name] = _place_again(self, stage, out)
        return out


# -- placement: from names to extents and terms --------------------------------------------------------------------
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
class Placed:
    """A stage where it stands.

    Attributes:
        loops: outermost first.
        value: each axis as a term over loop variables (its own and those of the loops it is attached in).
        start: for each spatial axis, the first point of the region computed.
        extent: for each axis, the number of points of the region.
        guards: terms that are ``>= 0`` on real points; those always true are left out. ``spatial`` ones and ``bound`` ones apart.
    """

    stage: Stage
    loops: tuple[PlacedLoop, ...]
    value: Mapping[Var, Term]
    start: Mapping[Var, Term]
    extent: Mapping[Var, Term]
    spatial: tuple[Term, ...]
    bound: tuple[Term, ...]

    def loop(self, name: str) -> PlacedLoop:
        """The loop called ``name``."""
        return next(x for x in self.loops if x.name == name)


def place(nest: Nest) -> Mapping[str, Placed]:
    """Loop variables, extents and regions of every stage, consumers first; the nest keeps them."""
    return nest._places


def place_anew(nest: Nest) -> dict[str, Placed]:
    """The same with loop variables made in order, whatever was asked of this nest and others before: what is lowered has one form."""
    out: dict[str, Placed] = {}
    for stage in reversed(nest.stages):
        out[stage.name] = _place_stage(stage, _region_of(nest, stage, out))
    return out


def _place_again(nest: Nest, stage: Stage, placed: Mapping[str, Placed]) -> Placed:
    """A stage where it stands; as it was found in another nest, where everything that its place depends on is what it was there.

    A primitive changes one stage or a few, so that most of a nest stays where it was.
    """
    around: list[Placed | None] = []  # None: a reader that comes before, which is an error below
    if stage.attach is not None:
        above: Stage | None = stage
        around += [placed.get(c.name) for c in nest.consumers(stage)]
        while above is not None and above.attach is not None:
            around.append(placed[above.attach[0]])
            above = placed[above.attach[0]].stage
    before: tuple[list[Placed | None], Placed] | None = stage.__dict__.get("_placed")
    if before is not None and len(before[0]) == len(around) and all(a is b for a, b in zip(before[0], around)):
        return before[1]
    found = _place_stage(stage, _region_of(nest, stage, placed))
    stage.__dict__["_placed"] = (around, found)
    return found


def _place_stage(stage: Stage, region: Mapping[Var, tuple[Term, Term]]) -> Placed:
    names = stage.axis_names()
    region = _padded(stage, region, names)
    extent: dict[str, Term] = {names[a]: region[a][1] for a in stage.axes}
    extent |= {names[a]: a.extent for a in stage.bound if a.extent is not None}
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
    checks = _axis_values(stage, value, extent)
    if stage.position is not None:
        (scanned,) = stage.bound
        if stage.body.data[5]:
            value[names[scanned]] = extent[names[scanned]] - 1 - value[names[scanned]]
        value[names[stage.position]] = value[names[scanned]]
    return _placed(stage, loops, value, region, names, checks, reducing)


def _axis_values(stage: Stage, value: dict[str, Term], extent: Mapping[str, Term]) -> list[tuple[str, Term]]:
    """Fill in the values of loops that relations replaced, from those that stand.

    Returns (axis, term that is ``>= 0`` on its real points).
    """
    checks: list[tuple[str, Term]] = []
    for r in reversed(stage.relations):
        if isinstance(r, Fuse):
            inner = extent[r.inner] if extent[r.inner] != 0 else as_term(1)  # no point of an empty loop is visited
            value[r.outer], value[r.inner] = value[r.fused] // inner, value[r.fused] % inner
            continue
        value[r.axis] = value[r.padded] if isinstance(r, Pad) else value[r.outer] * r.factor + value[r.inner]
        if not nonneg(extent[r.axis] - 1 - value[r.axis]):
            checks.append((r.axis, extent[r.axis] - 1 - value[r.axis]))
    return checks


def _padded(stage: Stage, region: Mapping[Var, tuple[Term, Term]], names: Mapping[Var, str]) -> dict[Var, tuple[Term, Term]]:
    """The region with the axes whose storage is padded made larger, to whole tiles."""
    factors = {r.axis: r.factor for r in stage.relations if isinstance(r, Split) and r.tail == "pad"}
    return {a: (at, cdiv(n, factors[names[a]]) * factors[names[a]] if names[a] in factors else n) for a, (at, n) in region.items()}


def _region_point(name: str, extent: Term) -> Term:
    """Any point along an axis that has no loop."""
    return ZERO if extent.is_const and extent.const == 1 else as_term(Var(name, extent))


def _placed(stage: Stage, loops: tuple[PlacedLoop, ...], value: Mapping[str, Term], region: Mapping[Var, tuple[Term, Term]],
            names: Mapping[Var, str], checks: list[tuple[str, Term]], reducing: set[str]) -> Placed:
    terms = {a: region[a][0] + value[names[a]] for a in stage.axes} | {a: value[names[a]] for a in stage.bound}
    spatial = [t for n, t in checks if n not in reducing]
    for a in stage.axes:
        assert a.extent is not None
        spatial += [t for t in (terms[a], a.extent - 1 - terms[a]) if not nonneg(t, spatial)]
    extents = {a: region[a][1] for a in stage.axes} | {a: a.extent for a in stage.bound if a.extent is not None}
    return Placed(stage, loops, terms, {a: region[a][0] for a in stage.axes}, extents,
                  tuple(dict.fromkeys(spatial)), tuple(t for n, t in checks if n in reducing))


def _region_of(nest: Nest, stage: Stage, placed: Mapping[str, Placed]) -> dict[Var, tuple[Term, Term]]:
    """The part of a stage's axes that is computed: all of it, or what is read where it is attached."""
    return _region(nest, stage, placed) if stage.attach is not None else {a: (ZERO, whole(a)) for a in stage.axes}


def _region(nest: Nest, stage: Stage, placed: Mapping[str, Placed]) -> dict[Var, tuple[Term, Term]]:
    """The box of a stage's axes that its consumers read inside the loop it is attached at."""
    assert stage.attach is not None
    outer = _outer_vars(nest, stage.attach, placed)
    boxes: dict[Var, tuple[Term, Term] | None] = {}
    for consumer in nest.consumers(stage):
        p = placed.get(consumer.name)
        if p is None:
            raise InternalError(f"{consumer.name} reads {stage.name} but comes before it")
        for t in consumer.tensors:
            for r in reads(t.body):
                if r.tensor in stage.tensors:
                    for axis, i in zip(stage.axes, r.indices):
                        box = _span(i.subs(p.value), outer) if isinstance(i, Term) else None
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


def _span(t: Term, outer: set[Var]) -> tuple[Term, Term] | None:
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


__all__ = ["GRID_ROLES", "TILE_ROLES", "Fuse", "Nest", "Pad", "Placed", "PlacedLoop", "Relation", "Split", "Stage", "State",
           "Step", "place", "place_anew", "total_extent", "whole"]
