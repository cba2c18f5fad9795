"""Means, squared deviations and products of deviations of a block, merged into those of the blocks before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsl.algebra import EXPRS, substitute
from dsl.carrier import SUM
from dsl.cascade.model import Accumulator
from dsl.dim import Term, Var, as_term, product, tmax, tmin
from dsl.expr import Compute, Expr, Reduce, cast, const, index, op, where
from dsl.nest import Stage
from dsl.primitives.roll_pass import Pass


def merge_moments(p: Pass, acc: Accumulator) -> None:
    """Two sweeps over the block, the means and then the deviations from them; the counts are known.

    A state that is a mean goes on from ``mean.before``, the last state of the carrier from the sum of deviations before.
    """
    rows, dtype = (*p.rows, *acc.extra), acc.state[-1].dtype
    means = range(1, len(acc.state) - 1)
    before = {n: p.state(acc, n, const(0.0, dtype)) for n in (*means, len(acc.state) - 1)}
    seen, here, all_of_part = (cast(index(n), dtype) for n in _counts(p))
    local = [_mean(p, acc, x, op("max", here, const(1.0, dtype))) for x in acc.inputs]
    away = [op("sub", cast(p.local(x), dtype), p.read(t, rows)) for x, t in zip(acc.inputs, local)]
    product_of = op("mul", away[0], away[-1])
    part, = p.define(f"{acc.name}.square", rows, Reduce((p.inside(product_of, const(0.0, dtype)),), (SUM, p.bound, 0), dtype, acc.loc))
    mine = tuple(p.read(t, rows) for t in (*local, part))
    merged = acc.carrier.combine(EXPRS, (seen, *before.values()), (here, *mine))
    for n in reversed(before):
        new, = p.define(f"{acc.name}.new", rows, merged[n])
        p.becomes(acc, n, new)
    placeholder = acc.read(p.c.rows, 0)
    p.fixed[placeholder] = p.before[placeholder] = p.after[placeholder] = all_of_part


def _mean(p: Pass, acc: Accumulator, x: Expr, count: Expr) -> Compute:
    """The mean of one input over the block, made once for all accumulators."""
    rows, dtype = (*p.rows, *acc.extra), acc.state[-1].dtype
    key = ("mean", id(x), dtype, acc.extra)
    if key not in p.means:
        element = p.inside(cast(p.local(x), dtype), const(0.0, dtype))
        total, = p.define(f"{acc.name}.sum", rows, Reduce((element,), (SUM, p.bound, 0), dtype, acc.loc))
        p.means[key], = p.define(f"{acc.name}.mean", rows, op("div", p.read(total, rows), count))
    return p.means[key]


def _counts(p: Pass) -> tuple[Term, Term, Term]:
    """(elements of the part before the block, in the block, in the whole part); a block past the end has none."""
    assert p.axis.extent is not None
    others = product(v.extent for v in p.c.axes if v is not p.axis and v.extent is not None)
    left = p.axis.extent - (as_term(p.part) * p.each * p.block if p.parts > 1 else 0)
    before = as_term(p.at) * p.block
    if p.parts == 1:
        return before * others, tmin(as_term(p.block), left - before) * others, left * others
    zero = as_term(0)
    return (tmax(tmin(before, left), zero) * others, tmax(tmin(as_term(p.block), left - before), zero) * others,
            tmax(tmin(as_term(p.each * p.block), left), zero) * others)


def sum_by_blocks(p: Pass, acc: Accumulator) -> None:
    """What every row adds up alike, before each block and in a whole part, as definitions outside of the pass."""
    placeholder = acc.read(p.c.rows)
    lead = (p.part,) if p.parts > 1 else ()
    if p.each * p.parts == 1:
        p.before[placeholder] = const(0.0, acc.state[0].dtype)
        return
    element = p.inside(p.local(acc.inputs[0]), const(0.0, acc.inputs[0].dtype))
    block = _define(p, f"{acc.name}.block", (*lead, p.at, *acc.extra), element, p.bound)
    other = Var(p.at.name, p.at.extent)
    there = block.read(*(index(v) for v in (*lead, other, *acc.extra)))
    earlier = where(op("lt", index(other), index(p.at)), there, const(0.0, block.dtype))
    before = _define(p, f"{acc.name}.before", (*lead, p.at, *acc.extra), earlier, (other,))
    p.before[placeholder] = before.read(*(index(v) for v in (*lead, p.at, *acc.extra)))
    if p.parts > 1:
        whole = _define(p, f"{acc.name}.part", (*lead, *acc.extra), there, (other,))
        p.fixed[placeholder] = p.after[placeholder] = whole.read(*(index(v) for v in (*lead, *acc.extra)))


def _define(p: Pass, name: str, axes: Sequence[Var], element: Expr, bound: Sequence[Var]) -> Compute:
    """A sum of its own outside of the pass, with variables of its own."""
    own, fresh = (tuple(Var(v.name, v.extent) for v in vs) for vs in (axes, bound))
    env: dict[Var, Term] = {v: as_term(o) for v, o in zip((*axes, *bound), (*own, *fresh))}
    unique = p.unique(f"{p.name}.{name}")
    t = Compute(unique, own, Reduce((substitute(element, env),), (SUM, fresh, 0), element.dtype.accumulator), p.c.components[0].tensor.loc)
    s = Stage(unique, (t,), own, fresh)
    p.aside.append(replace(s, order=tuple(s.axis_names().values())))
    return t
