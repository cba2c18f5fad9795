"""Sums along the rows of a pass, in its loops: they go on, in the memory of their results, from one block of rows to the next."""

from __future__ import annotations

from collections.abc import Mapping

from dsl.algebra import substitute
from dsl.carrier import SUM, resuming
from dsl.cascade.crossing import Crossing
from dsl.cascade.model import Accumulator, Component
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Reduce, Tensor, index, op
from dsl.nest import State
from dsl.primitives.roll_pass import Crossed, Pass
from dsl.primitives.rolled import parted, point_of, without_casts


def sum_across(p: Pass, x: Crossing, acc: Accumulator, initial: Expr) -> None:
    """The stage of a block: over the rows that the pass is at, for every point of the block and of the other rows."""
    points = (*(v for v in p.rows if v is not x.along), p.inner)
    axes, t = (*points, *acc.extra), acc.state[0]
    before = Tensor(f"{t.name}.before", tuple(v.extent for v in (p.at, *axes) if v.extent is not None), t.dtype, acc.loc)
    element = _element(p, acc)
    body = Reduce((element, p.read(before, axes)), (resuming(SUM, (element.dtype,)), (x.along,), 0), t.dtype, acc.loc)
    (after,) = p.define(f"{x.cascade.components[0].stage}.new", axes, body)
    alone = next((c for c in x.cascade.components if _is_state(c, acc, x)), None)
    places = alone.axes if alone is not None else (*x.cascade.rows, *acc.extra)
    here: dict[Var, Term] = {v: as_term(o) for v, o in zip((p.at, *axes), after.axes)}
    slots = tuple(x.at.get(v, as_term(v)).subs({p.axis: p.point}).subs(here) for v in places)
    own = {v: Var(v.name, v.extent) for v in places}
    value = after.read(index(p.at), *(point_of(v) for v in points), *(point_of(own[v]) for v in acc.extra))
    p.crossed.append(Crossed(x, acc, State(before, initial, slots), after, tuple(places), tuple(own.values()), value, alone))


def _element(p: Pass, acc: Accumulator) -> Expr:
    """What is summed: a product with the tile that lacks the sum's own axes, which other sums take too."""
    shared, rest = parted(acc.inputs[0], frozenset(acc.extra))
    if shared is None or (rest is None and acc.extra):
        return p.local(acc.inputs[0])
    core, around = without_casts(shared)
    tile = around(p.tiles["factor", id(core)])
    return tile if rest is None else op("mul", tile, p.local(rest))


def _is_state(c: Component, acc: Accumulator, x: Crossing) -> bool:
    """Whether a result is the state itself."""
    return c.value is acc.read(x.cascade.rows) and c.tensor.dtype == acc.state[0].dtype


def final_sums(p: Pass, host: Mapping[Var, Term]) -> list[Compute]:
    """The results, as what the last block leaves: over axes of their own, read at the axes of the rolling stage."""
    return [Compute(k.alone.tensor.name if k.alone is not None else k.acc.state[0].name, k.axes, substitute(k.value, host), k.acc.loc)
            for k in p.crossed]
