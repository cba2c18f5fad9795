"""Sums along the rows of a pass: what is made for a block of rows and a block of their axis serves both directions.

A pass reduces ``A[i, j]`` over ``j`` for every row ``i``. Where another reduces elements of the same matrix over ``i`` for every ``j``,
both can be taken from one tile of it: the rows' states go on from block to block of ``j``, those of the columns, in memory, from one block
of rows to the next. ``A @ d`` beside ``A.T @ e`` is such a pair, and so are the gradients of both factors of attention's scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dsl.algebra import reads, substitute
from dsl.carrier import SUM
from dsl.cascade.model import Accumulator, Cascade
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Read
from dsl.nest import Nest, Stage

SUMS = (SUM.name, "sum.partial")


@dataclass(frozen=True)
class Crossing:
    """A cascade that goes along in the loops of another.

    Attributes:
        cascade: the sums.
        at: its rows and its axis, over the rows and axes of the other.
        along: the row of the other that it sums over.
        across: its row that the other reduces.
        sums: its accumulators, their elements over the rows and axes of the other.
    """

    cascade: Cascade
    at: Mapping[Var, Term]
    along: Var
    across: Var
    sums: tuple[Accumulator, ...]


def crossing(nest: Nest, host: Cascade, other: Cascade, axis: Var) -> Crossing | None:
    """How ``other`` goes along in the pass of ``host`` that is cut into blocks of ``axis``; None where it does not.

    It must be made of plain sums over one row axis of the pass, of the same elements, each of its results belong to one point of the
    other rows and of ``axis``, and neither may need results of the other.
    """
    if len(other.axes) != 1 or not all(_plain_sum(a) for a in other.accumulators) or _needs(nest, host, other) or _needs(nest, other, host):
        return None
    wanted = (*other.rows, *other.axes)
    found = _matched(host, other)
    at = None if found is None else {v: as_term(0) for v in wanted if v.extent == 1} | found
    if at is None or not set(wanted) <= set(at):
        return None
    rows = [v for v in (*host.rows, *host.axes) if v is not axis]
    along = next((v for v in host.rows if at[other.axes[0]] == as_term(v) and v.extent == other.axes[0].extent), None)
    across = next((v for v in other.rows if at[v] == as_term(axis) and v.extent == axis.extent), None)
    if along is None or across is None:
        return None
    rest = [at[v] for v in other.rows if v is not across]
    if not _one_to_one(rest, [v for v in rows if v is not along]):
        return None
    sums = tuple(replace(a, inputs=tuple(substitute(e, at) for e in a.inputs)) for a in other.accumulators)
    return Crossing(other, {v: at[v] for v in wanted}, along, across, sums)


def _plain_sum(a: Accumulator) -> bool:
    return a.carrier.name in SUMS and a.weight is None and a.centred is None and not a.guards


def _needs(nest: Nest, c: Cascade, other: Cascade) -> bool:
    """Whether what a cascade is made of depends on the results of another."""
    todo: list[Stage] = [nest[x.stage] for x in c.components]
    gone = {x.stage for x in other.components}
    seen: set[str] = set()
    while todo:
        s = todo.pop()
        if s.name in gone:
            return True
        if s.name not in seen:
            seen.add(s.name)
            todo += [p for t in s.sources() if (p := nest.producer(t)) is not None]
    return False


def _matched(host: Cascade, other: Cascade) -> dict[Var, Term] | None:
    """The axes of ``other`` over those of ``host``, where every element that varies along both of its sides is one of the host's."""
    theirs = _reads(host)
    env: dict[Var, Term] = {}
    sides = (frozenset(other.rows), frozenset(other.axes))
    shared = sorted((r for r in _reads(other) if r.free & (sides[0] | sides[1])), key=lambda r: -len(r.free))
    for r in shared:
        found = next((e for m in theirs if m.tensor is r.tensor and (e := _unified(r, m, env)) is not None), None)
        if found is not None:
            env = found
        elif isinstance(r.tensor, Compute) and all(r.free & s for s in sides):
            return None
    return env


def _reads(c: Cascade) -> list[Read]:
    return list(dict.fromkeys(r for x in c.components for e in x.element for r in reads(e)))


def _unified(r: Read, m: Read, env: Mapping[Var, Term]) -> dict[Var, Term] | None:
    """The renaming that makes one read another, axes that stand alone first; None where there is none."""
    out = dict(env)
    pairs = [(i, j) for i, j in zip(r.indices, m.indices)]
    for i, j in pairs:
        v = _alone(i)
        if v is not None and isinstance(j, Term) and out.setdefault(v, j) != j:
            return None
    same = all(i.subs(out) == j if isinstance(i, Term) and isinstance(j, Term) else isinstance(i, Expr) and i is j for i, j in pairs)
    return out if same else None


def _alone(i: Term | Expr) -> Var | None:
    """The variable that an index is."""
    v = next(iter(i.vars), None) if isinstance(i, Term) and len(i.vars) == 1 else None
    return v if v is not None and i == as_term(v) else None


def _one_to_one(terms: list[Term], rows: list[Var]) -> bool:
    """Whether different points of some rows give different numbers: each in one term, whose factors are those of mixed radices."""
    used = [v for t in terms for v in t.vars]
    if len(used) != len(set(used)) or not {v for v in rows if v.extent != 1} <= set(used):
        return False
    for t in terms:
        reach = 0
        for k, v in sorted(((t.coef(v) or 0, v) for v in t.vars), key=lambda x: x[0]):
            if k <= reach or v.extent is None or not v.extent.is_const:
                return False
            reach += k * (v.extent.const - 1)
    return True
