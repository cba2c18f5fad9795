"""What a reduction computes of one of its axes alone, in a definition of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsl.algebra import substitute, transform
from dsl.dim import Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Expr, Op, Read, Reduce, Tensor, index
from dsl.nest import Nest, Stage
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.record import primitive


@primitive
def define_terms(nest: Nest, stage: str, axis: str) -> Nest:
    """Give what a reduction computes of one reduced axis alone definitions of their own, so that it is computed once for every point.

    before::

        y: for j: for i: y[j] += x[i, j] * rsqrt(v[i] + 1)

    after ``define_terms(y, i)``::

        y.term: for i: y.term[i] = rsqrt(v[i] + 1)
        y: for j: for i: y[j] += x[i, j] * y.term[i]

    Args:
        nest: the nest.
        stage: a reduction of one tensor.
        axis: one of its reduction axes, by loop name.

    Raises:
        ScheduleError: no such reduction or axis.
    """
    s = nest[stage]
    body, old = s.body, next((v for v, name in s.axis_names().items() if name == axis and v in s.bound), None)
    if not isinstance(body, Reduce) or old is None or len(s.tensors) != 1:
        raise ScheduleError(f"define_terms({stage!r}, {axis!r}): not a reduction axis of one sum", f"{stage} is {body}")
    own, helpers, swaps = {*s.axes, *s.bound}, list[Stage](), dict[Expr, Expr]()
    for e in dict.fromkeys(found for a in body.args for found in _terms(a, own, old)):
        name = unique_stage(replace(nest, stages=(*nest.stages, *helpers)), f"{stage}.term")
        v = Var(old.name, old.extent)
        t = Compute(name, (v,), substitute(e, {old: as_term(v)}), e.loc)
        helpers.append(Stage(name, (t,), (v,), order=(v.name,)))
        swaps[e] = t.read(index(old))
    if not helpers:
        return nest
    was = s.tensors[0]
    args = tuple(transform(a, swaps.get) for a in body.args)
    new = Compute(was.name, was.axes, Reduce(args, body.data, body.dtype, body.loc), was.loc, was.dtype)
    moved: dict[Tensor, Tensor] = {was: new}
    out: list[Stage] = []
    for x in nest.stages:
        out += [*helpers, replace(s, tensors=(new,))] if x.name == stage else [with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(out), moved)


def _terms(e: Expr, own: set[Var], axis: Var) -> Iterator[Expr]:
    """The largest operations in an expression that depend on no axis of the stage but one."""
    if isinstance(e, Op) and e.free & own == {axis} and e.dtype.is_float:
        yield e
    elif not isinstance(e, Read):
        for a in e.args:
            yield from _terms(a, own, axis)


__all__ = ["define_terms"]
