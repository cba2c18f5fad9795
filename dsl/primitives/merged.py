"""The end of a pass that was parted: partial states of every part, brought to the merged earlier results and combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dsl.algebra import EXPRS, substitute, substitute_values
from dsl.carrier import MAX, MIN, PROD, SUM, Carrier, merging, partial
from dsl.cascade.merge import action, base_of, moved
from dsl.cascade.model import Accumulator, Cascade
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Reduce, index, op
from dsl.nest import Stage

_PLAIN = (SUM, PROD, MAX, MIN)


def merge_parts(c: Cascade, part: Var, parts: Mapping[Expr, Expr], name: str) -> tuple[list[Stage], dict[Expr, Expr]]:
    """``a = (+) over the parts of A(D of the part, D) . a of the part``, accumulators in their order.

    Args:
        c: the cascade.
        part: the axis of the parts.
        parts: the read of every state's placeholder -> its value in a part, over ``part``, rows and extra axes.
        name: what the stages' names begin with.

    Returns:
        The stages, and the read of every placeholder -> the read of its merged state.
    """
    stages: list[Stage] = []
    known: dict[Expr, Expr] = {k: v for k, v in parts.items() if part not in v.free}
    for acc in c.accumulators:
        if all(acc.read(c.rows, n) in known for n in range(len(acc.state))):
            continue  # the same in all parts
        reads = [acc.read(c.rows, n) for n in range(len(acc.state))]
        values = [parts[r] for r in reads]
        carrier: Carrier = acc.carrier if acc.carrier in _PLAIN else partial(merging(acc.carrier))
        if acc.weight is not None or acc.centred is not None:
            values = [_brought(acc, c, values[0], parts, known)]
        axes = (*c.rows, *acc.extra)
        made = [Reduce(tuple(values), (carrier, (part,), n), t.dtype, acc.loc) for n, t in enumerate(acc.state)]
        s = _stage(f"{name}.{acc.name}", acc, axes, part, made)
        stages.append(s)
        known |= {r: t.read(*(index(v) for v in axes)) for r, t in zip(reads, s.tensors)}
    return stages, known


def _brought(acc: Accumulator, c: Cascade, value: Expr, parts: Mapping[Expr, Expr], known: Mapping[Expr, Expr]) -> Expr:
    """A part's state at the merged earlier results."""
    if acc.centred is not None:
        centre = c.resolve(acc.centred.earlier)
        step = moved(EXPRS, substitute_values(centre, parts), substitute_values(centre, known))
        value = op("add", value, op("mul", step, parts[base_of(acc, c).read(c.rows)]))
    w = acc.weight
    if w is None:
        return value
    e = c.resolve(w.earlier)
    return op("mul", value, action(EXPRS, w, e, substitute_values(e, parts), substitute_values(e, known)))


def _stage(name: str, acc: Accumulator, axes: Sequence[Var], part: Var, bodies: Sequence[Reduce]) -> Stage:
    own = tuple(Var(v.name, v.extent) for v in axes)
    along = Var(part.name, part.extent)
    env: dict[Var, Term] = {v: as_term(o) for v, o in zip((*axes, part), (*own, along))}
    tensors = tuple(
        Compute(name if len(bodies) == 1 else f"{name}{n}", own,
                Reduce(tuple(substitute(a, env) for a in b.args), (b.carrier, (along,), b.out), b.dtype, b.loc), acc.loc)
        for n, b in enumerate(bodies))
    s = Stage(name, tensors, own, (along,))
    return replace(s, order=tuple(s.axis_names().values()))
