"""The primitive that parts an axis of a stage in two, so that others can be computed inside the loops of either."""

from __future__ import annotations

from dataclasses import replace

from dsl.algebra import substitute, transform
from dsl.dim import Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Expr, Read, Tensor
from dsl.nest import Nest, Stage
from dsl.primitives.bodies import moved_nest
from dsl.primitives.record import primitive


@primitive
def part_axis(nest: Nest, stage: str, axis: str, size: int) -> Nest:
    """Make two axes of one; elements stay where they are in memory.

    before::

        z: for f in 128: z[f] = y[f // 32, f % 32]

    after ``part_axis(z, f, 32)``::

        z: for f_o in 4: for f_i in 32: z[f_o, f_i] = y[f_o, f_i]

    Unlike the loops of a split, the axes are the stage's own: what is computed in their loops knows each by itself, and readers read
    ``z[f // 32, f % 32]``.

    Raises:
        ScheduleError: no such axis, a size that does not divide its extent, or a stage that has a schedule.
    """
    s = nest[stage]
    v = next((v for v, name in s.axis_names().items() if name == axis and v in s.axes), None)
    what = f"part_axis({stage!r}, {axis!r}, {size})"
    if v is None or v is s.position:
        raise ScheduleError(f"{what}: no such axis", remedy="its axes are " + ", ".join(s.axis_names()[a] for a in s.axes))
    if size < 1 or v.extent is None or v.extent % size != 0:
        raise ScheduleError(f"{what}: {v.extent} is no multiple of {size}")
    inside = any(x.attach is not None and x.attach[0] == stage for x in nest.stages)
    if s.relations or s.roles or s.layout is not None or s.states or inside:
        raise ScheduleError(f"{what}: {stage} has a schedule", remedy="part axes first")
    outer, inner = Var(f"{v.name}_o", v.extent // size), Var(f"{v.name}_i", as_term(size))
    at = s.axes.index(v)
    axes = (*s.axes[:at], outer, inner, *s.axes[at + 1:])
    own = {v: as_term(outer) * size + as_term(inner)}
    parted = tuple(Compute(t.name, axes, substitute(t.body, own), t.loc, t.dtype) for t in s.tensors)
    made = Stage(s.name, parted, axes, s.bound, attach=s.attach, notes=s.notes)
    made = replace(made, order=tuple(name for a, name in made.axis_names().items() if a is not s.position))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, parted))
    stages = tuple(made if x is s else _reader(x, at, size, moved) for x in nest.stages)
    return moved_nest(nest, stages, moved)


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


__all__ = ["part_axis"]
