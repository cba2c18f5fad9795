"""The primitive that computes single elements of a reduction again, so that nobody has to keep all of them."""

from __future__ import annotations

from dataclasses import replace

from dsl.algebra import fresh_axes, reads, substitute, substitute_values
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Expr, Read, Reduce, Tensor, index
from dsl.nest import Nest, Stage
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.record import primitive
from dsl.stages import at


@primitive
def recompute(nest: Nest, reader: str, stage: str) -> tuple[Nest, str]:
    """Compute the elements of a reduction that a reader picks by data in a stage of their own.

    before::

        y: for i: for j: y[i, j] = sum[k](x[i, k] * w[j, k])
        z: for i: z[i] = y[i, t[i]]

    after ``recompute(z, y)``::

        y: for i: for j: y[i, j] = sum[k](x[i, k] * w[j, k])      # gone, if nobody else reads it
        y.at: for i: y.at[i] = sum[k](x[i, k] * w[t[i], k])
        z: for i: z[i] = y.at[i]

    Returns:
        The new nest and the name of the new stage.

    Raises:
        ScheduleError: not a reduction of one tensor, or the reader picks nothing of it by data.
    """
    s, c = nest[stage], nest[reader]
    what = f"recompute({reader!r}, {stage!r})"
    if s.kind != "reduce" or len(s.tensors) != 1:
        raise ScheduleError(f"{what}: {stage} is not a reduction of one tensor")
    picked = [r for t in c.tensors for r in reads(t.body) if r.tensor is s.tensors[0] and any(isinstance(i, Expr) for i in r.indices)]
    if not picked:
        raise ScheduleError(f"{what}: {reader} reads no element of {stage} at an index that is data")
    name = unique_stage(nest, f"{stage}.at")
    tensors: dict[Expr, Expr] = {}
    made: list[Stage] = []
    for n, r in enumerate(dict.fromkeys(picked)):
        new, read = _picked(s.tensors[0], r, c.axes, f"{name}{n or ''}")
        made.append(new)
        tensors[r] = read
    bodies = tuple(Compute(t.name, t.axes, substitute_values(t.body, tensors), t.loc, t.dtype) for t in c.tensors)
    moved: dict[Tensor, Tensor] = dict(zip(c.tensors, bodies))
    out: list[Stage] = []
    for x in nest.stages:
        out += [*made, replace(c, tensors=bodies)] if x.name == reader else [with_bodies(x, moved, {})]
    done = moved_nest(nest, tuple(out), moved)
    if not nest.is_output(s) and not done.consumers(s):
        done = replace(done, stages=tuple(x for x in done.stages if x.name != stage))
    return done, name


def _picked(t: Compute, r: Read, axes: tuple[Var, ...], name: str) -> tuple[Stage, Expr]:
    """The stage of the elements picked, over the axes that the pick depends on, and the read of one of them."""
    used = tuple(v for v in axes if v in r.free)
    own = tuple(Var(v.name, v.extent) for v in used)
    env: dict[Var, Term] = {v: as_term(o) for v, o in zip(used, own)}
    body = fresh_axes(at(t, r.indices))
    assert isinstance(body, Reduce)
    args = tuple(substitute(a, env) for a in body.args)
    new = Compute(name, own, Reduce(args, (body.carrier, body.axes, body.out), body.dtype, body.loc), t.loc, t.dtype)
    s = Stage(name, (new,), own, body.axes)
    return replace(s, order=tuple(s.axis_names().values())), new.read(*(index(v) for v in used))


__all__ = ["recompute"]
