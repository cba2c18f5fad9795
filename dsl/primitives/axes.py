"""Primitives that make two axes of one, so that others can be computed inside the loops of either, and one axis of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dsl.algebra import substitute, transform
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Expr, Read, Reduce, Tensor
from dsl.nest import Nest, Stage
from dsl.primitives.bodies import moved_nest, with_bodies
from dsl.primitives.record import primitive


@primitive
def part_axis(nest: Nest, stage: str, axis: str, size: int) -> Nest:
    """Make two axes of one; elements stay where they are in memory.

    before::

        z: for f in 128: z[f] = y[f // 32, f % 32]

    after ``part_axis(z, f, 32)``::

        z: for f_o in 4: for f_i in 32: z[f_o, f_i] = y[f_o, f_i]

    Unlike the loops of a split, the axes are the stage's own: what is computed in their loops knows each by itself, and readers read
    ``z[f // 32, f % 32]``. An axis that a reduction runs over becomes two that it runs over in the same order.

    Raises:
        ScheduleError: no such axis, a size that does not divide its extent, or a stage that has a schedule.
    """
    s = nest[stage]
    own = (*s.axes, *(s.bound if s.kind == "reduce" else ()))
    v = next((v for v, name in s.axis_names().items() if name == axis and v in own), None)
    what = f"part_axis({stage!r}, {axis!r}, {size})"
    if v is None or v is s.position:
        raise ScheduleError(f"{what}: no such axis", remedy="its axes are " + ", ".join(s.axis_names()[a] for a in own))
    if size < 1 or v.extent is None or v.extent % size != 0:
        raise ScheduleError(f"{what}: {v.extent} is no multiple of {size}")
    _check_bare(nest, s, what)
    outer, inner = Var(f"{v.name}_o", v.extent // size), Var(f"{v.name}_i", as_term(size))
    axes, bound = (tuple(a for b in box for a in ((outer, inner) if b is v else (b,))) for box in (s.axes, s.bound))
    parts = {v: as_term(outer) * size + as_term(inner)}
    parted = tuple(Compute(t.name, axes, _over(t.body, bound, parts) if v in s.bound else substitute(t.body, parts), t.loc, t.dtype)
                   for t in s.tensors)
    made = Stage(s.name, parted, axes, bound, attach=s.attach, notes=s.notes)
    made = replace(made, order=tuple(name for a, name in made.axis_names().items() if a is not s.position))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, parted))
    if v in s.bound:
        return moved_nest(nest, tuple(made if x is s else with_bodies(x, moved, {}) for x in nest.stages), moved)
    at = s.axes.index(v)
    return moved_nest(nest, tuple(made if x is s else _reader(x, at, size, moved) for x in nest.stages), moved)


@primitive
def join_axes(nest: Nest, stage: str, outer: str, inner: str) -> Nest:
    """Make one axis of two neighbours that a reduction runs over.

    before::

        y: for i in 4: for j in 50: y += x[i, j]

    after ``join_axes(i, j)``::

        y: for i_j in 200: y += x[i_j // 50, i_j % 50]

    Where both lie in memory as one, addresses take no division, and chunks of the axis are runs of memory. Unlike a fused loop, it can be
    cut into partial results.

    Raises:
        ScheduleError: no such axes of a reduction, not neighbours of one that is not commutative, or a stage that has a schedule.
    """
    s = nest[stage]
    what = f"join_axes({stage!r}, {outer!r}, {inner!r})"
    named = {name: v for v, name in s.axis_names().items() if v in s.bound and s.kind == "reduce"}
    o, i = named.get(outer), named.get(inner)
    if o is None or i is None or o is i or o.extent is None or i.extent is None:
        raise ScheduleError(f"{what}: not two axes that {stage} is reduced over", remedy="those are " + (", ".join(named) or "none"))
    if not s.body.data[0].commutative and s.bound[s.bound.index(o) + 1:][:1] != (i,):
        raise ScheduleError(f"{what}: {stage} combines its elements in order", f"{inner} does not follow {outer}")
    _check_bare(nest, s, what)
    joined = Var(f"{outer}_{inner}", o.extent * i.extent)
    bound = tuple(joined if v is o else v for v in s.bound if v is not i)
    parts = {o: as_term(joined) // i.extent, i: as_term(joined) % i.extent}
    tensors = tuple(Compute(t.name, t.axes, _over(t.body, bound, parts), t.loc, t.dtype) for t in s.tensors)
    made = Stage(s.name, tensors, s.axes, bound, attach=s.attach, notes=s.notes)
    made = replace(made, order=tuple(made.axis_names().values()))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, tensors))
    return moved_nest(nest, tuple(made if x is s else with_bodies(x, moved, {}) for x in nest.stages), moved)


def _check_bare(nest: Nest, s: Stage, what: str) -> None:
    inside = any(x.attach is not None and x.attach[0] == s.name for x in nest.stages)
    if s.relations or s.roles or s.layout is not None or s.states or inside:
        raise ScheduleError(f"{what}: {s.name} has a schedule", remedy="part and join axes first")


def _over(body: Expr, axes: tuple[Var, ...], parts: Mapping[Var, Term]) -> Expr:
    """A reduction over other axes in place of its own."""
    assert isinstance(body, Reduce)
    return Reduce(tuple(substitute(a, parts) for a in body.args), (body.carrier, axes, body.out), body.dtype, body.loc)


def _reader(s: Stage, at: int, size: int, moved: dict[Tensor, Tensor]) -> Stage:
    """A stage that reads the tensors with two dimensions in place of one; ``moved`` grows by its own where they change."""
    parted = dict(moved)

    def one(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or e.tensor not in parted:
            return None
        new = parted[e.tensor]
        if len(new.shape) == len(e.tensor.shape):
            return new.read(*e.indices)
        i = e.indices
        return new.read(*i[:at], i[at] // size, i[at] % size, *i[at + 1:])

    if all(t not in parted for t in s.sources()):
        return s
    tensors = tuple(Compute(t.name, t.axes, transform(t.body, one), t.loc, t.dtype) for t in s.tensors)
    moved.update(zip(s.tensors, tensors))
    return replace(s, tensors=tensors)


__all__ = ["join_axes", "part_axis"]
