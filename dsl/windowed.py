"""Sums through strided and padded windows, in the form that schedules know: dense loops over padded operands.

The gradient of a convolution is, element by element, a sum over the results that the element went into::

    dx[c, i] = sum[f, r](where((i // 2 - r >= 0) & (i // 2 - r < N), dy[f, i // 2 - r] * w[f, c, 2*r + i % 2], 0))

Which elements of ``w`` take part depends on the remainder of ``i``, and near the ends some terms are missing. :func:`dense` gives each
remainder an axis of its own, and reads ``dy`` from a copy with zeros around it, so that what is left is a plain product::

    dy.padded[f, j] = where((j - 1 >= 0) & (j - 1 < N), dy[f, j - 1], 0)
    dx.parts[p, c, i] = sum[f, r](dy.padded[f, i - r + 1] * w[f, c, 2*r + p])
    dx[c, i] = dx.parts[i % 2, c, i // 2]

A term that was missing becomes zero times the other factor: as with the zeros around the input of a convolution, a weight that is not
finite shows there.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsl.algebra import divisions, index_condition, index_terms, inputs_and_computes, reads, substitute, substitute_values, walk
from dsl.carrier import SUM
from dsl.dim import INF, ONE, ZERO, Term, Var, as_term, cdiv, nonneg
from dsl.expr import Cast, Compute, Const, Expr, Op, Read, Reduce, Tensor, Where, const, index, op, where

_MOST, _FEW = 4, 64  # times the size of a tensor that a copy with zeros around it may have, and elements that it may always have


def dense_windows(outputs: Sequence[Tensor], kept: Iterable[Tensor] = ()) -> list[Tensor]:
    """The outputs with every definition that they depend on in dense form, but for those in ``kept``, which stay what they are."""
    fixed, new = set(kept), dict[Tensor, Tensor]()
    for c in inputs_and_computes(tuple(outputs))[1]:
        if c not in fixed:
            body = substitute(c.body, {}, new)
            made = dense(c if body is c.body else Compute(c.name, c.axes, body, c.loc, c.dtype))
            if made is not c:
                new[c] = made
    return [new.get(t, t) for t in outputs]


def dense(c: Compute) -> Compute:
    """A definition with the same values, whose sum runs over dense windows of padded operands.

    What cannot be written so is returned as it is: a body that is no single sum, conditions about more than which places of the factors
    exist, axes that are seen through remainders of several numbers.
    """
    parted = _parted(c)
    if parted is None:
        body = _padded(c.body)
        return c if body is c.body else Compute(c.name, c.axes, body, c.loc, c.dtype)
    axes, body, slots = parted
    parts = Compute(f"{c.name}_parts", axes, _padded(body), c.loc, c.dtype)
    element = parts.read(*slots)
    if isinstance(c.body, Where):
        element = c.body.rebuild((c.body.args[0], element, c.body.args[2]))
    return Compute(c.name, c.axes, element, c.loc, c.dtype)


def _is_sum(e: Expr) -> bool:
    return isinstance(e, Reduce) and e.carrier == SUM and len(e.args) == 1


# -- remainders ----------------------------------------------------------------------------------------------------
def _parted(c: Compute) -> tuple[tuple[Var, ...], Expr, list[Expr]] | None:
    """An axis for each remainder: (axes, body, where an element of ``c`` lies) with ``s*i + i_p`` for an axis ``i`` seen modulo ``s``.

    Where only some remainders have a sum (a window narrower than its steps), the axis has those alone.
    """
    conds, core = _guarded(c.body)
    periods = {v: n for v in c.axes if (n := _period(c.body, v))} if _is_sum(core) else {}
    first = {v: m for v, n in periods.items() for t in conds if 0 < (m := (t + as_term(v) % n).const + 1) and t == m - 1 - as_term(v) % n}
    if not periods or len(first) < len(conds):
        return None
    parts = {v: Var(f"{v.name}_p", first.get(v, n)) for v, n in periods.items()}
    rests = {v: Var(v.name, cdiv(v.extent or ZERO, n)) for v, n in periods.items()}
    env: dict[Var, Term] = {v: as_term(rests[v]) * n + as_term(parts[v]) for v, n in periods.items()}
    body = substitute(core, env)
    bound = body.axes if isinstance(body, Reduce) else ()
    if any(_period(body, v) for v in rests.values()):
        return None
    beyond = [op("lt", index(env[v]), index(v.extent or ZERO)) for v, n in periods.items() if (v.extent or ZERO) % n != 0]
    if beyond and not _reads_inside(body):
        (value,) = body.args[0:1]
        inside = functools.reduce(lambda a, b: op("and", a, b), beyond)
        body = body.rebuild((where(inside, value, const(0, value.dtype)),))
    known = all(v.extent is not None and v.extent.is_const for v in (*c.axes, *bound))  # then bounds are decided point by point
    if not known and not _reads_inside(body):
        return None
    axes = (*parts.values(), *(rests.get(v, v) for v in c.axes))
    at = [*(as_term(v) % n for v, n in periods.items()), *(as_term(v) // periods[v] if v in periods else as_term(v) for v in c.axes)]
    return axes, body, [index(t) for t in at]


def _period(body: Expr, v: Var) -> int | None:
    """The number modulo which a body sees an axis; None when it does not, or sees it modulo several."""
    found = {d.den.const for t in index_terms(body) for d in divisions(t) if v in d.num.vars and d.den.is_const}
    return found.pop() if len(found) == 1 else None


def _reads_inside(body: Expr) -> bool:
    """Whether every read of a sum is in bounds, under the conditions around its terms."""
    facts, value = _guarded(body.args[0])
    return all(nonneg(i, facts) and nonneg(n - 1 - i, facts)
               for r in walk(value) if isinstance(r, Read) for i, n in zip(r.indices, r.tensor.shape) if isinstance(i, Term))


# -- missing terms -------------------------------------------------------------------------------------------------
def _guarded(e: Expr) -> tuple[tuple[Term, ...], Expr]:
    """The terms that are ``>= 0`` where ``e`` is not zero, and its value there."""
    if isinstance(e, Where) and isinstance(e.args[2], Const) and e.args[2].value == 0:
        terms = index_condition(e.args[0])
        if terms is not None:
            return terms, e.args[1]
    return (), e


@dataclass(frozen=True)
class _Edges:
    """What the conditions around a read say of the places that it may ask for.

    Attributes:
        met: those of the conditions that hold wherever the place exists.
        spans: by dimension that they are about, the least and the greatest index asked for.
    """

    met: tuple[Term, ...]
    spans: dict[int, tuple[Term, Term]]


def _padded(body: Expr) -> Expr:
    """A sum under conditions that places exist, as one over operands that have zeros around them, which make the other terms zero."""
    if not _is_sum(body):
        return body
    conds, value = _guarded(body.args[0])
    if not conds or any(r.args for r in reads(value)):
        return body
    edges = {r: found for r in reads(value) if (found := _edges(r, conds)) is not None}
    met = {t for r in _vanishing(value) if r in edges for t in edges[r].met}
    left = [t for t in conds if t not in met]
    if not met or (left and isinstance(value, Op)):
        return body
    copies: dict[Expr, Expr] = {r: _surrounded(r, found) for r, found in edges.items()}
    summed = substitute_values(value, copies)
    if left:
        holds = functools.reduce(lambda a, b: op("and", a, b), (op("ge", index(t), 0) for t in left))
        summed = where(holds, summed, const(0, summed.dtype))
    made = body.rebuild((summed,))
    return made if _reads_inside(made) else body


def _vanishing(e: Expr) -> list[Read]:
    """The reads without which a value is zero: if one of them is zero, so is the value, or it is no number."""
    if isinstance(e, Read):
        return [e]
    if isinstance(e, Cast):
        return _vanishing(e.args[0])
    if isinstance(e, Op) and e.name in ("mul", "neg"):
        return [r for a in e.args for r in _vanishing(a)]
    if isinstance(e, Where) and isinstance(e.args[2], Const) and e.args[2].value == 0:
        return _vanishing(e.args[1])
    return []


def _edges(read: Read, conds: Sequence[Term]) -> _Edges | None:
    """The conditions that say that a place read exists; None when there are none, or a copy with zeros around it would be mostly zeros."""
    met: list[Term] = []
    spans: dict[int, tuple[Term, Term]] = {}
    for d, (i, n) in enumerate(zip(read.indices, read.tensor.shape)):
        here = [t for t in (i, n - ONE - i) if t in conds] if isinstance(i, Term) else []
        span = _span(i) if isinstance(i, Term) and here else None
        if span is not None:
            met += here
            spans[d] = span
    asked, there = (functools.reduce(operator.mul, map(_guess, sizes), 1)
                    for sizes in ([high - low + 1 for low, high in spans.values()], [read.tensor.shape[d] for d in spans]))
    return _Edges(tuple(met), spans) if spans and asked <= _MOST * max(there, 1) + _FEW else None


def _guess(n: Term) -> int:
    """A size; every unknown one is taken for a middling number."""
    return int(n.eval({v: 16 for v in n.vars}))


def _span(t: Term) -> tuple[Term, Term] | None:
    """The least and the greatest value of a term, in terms of sizes; None when they are not known."""
    low = high = as_term(t.const)
    for mono, c in t.parts.items():
        v, part = mono[0], Term({mono: c}, 0)
        if len(mono) == 1 and isinstance(v, Var) and v.kind == "axis" and v.extent is not None:
            first, last = (ZERO, (v.extent - 1) * c) if c > 0 else ((v.extent - 1) * c, ZERO)
        elif not any(x.kind == "axis" for x in part.vars):
            first = last = part
        elif max(map(abs, part.bounds)) < INF:
            first, last = (as_term(int(end)) for end in part.bounds)
        else:
            return None
        low, high = low + first, high + last
    return low, high


def _surrounded(read: Read, edges: _Edges) -> Expr:
    """The read from a copy of its tensor that has every place it may ask for, zero where there was none."""
    t = read.tensor
    names = [v.name for v in t.axes] if isinstance(t, Compute) else [f"i{d}" for d in range(t.ndim)]
    start = {d: low for d, (low, _) in edges.spans.items()}
    sizes = {d: high - low + 1 for d, (low, high) in edges.spans.items()}
    axes = tuple(Var(name, sizes.get(d, n)) for d, (name, n) in enumerate(zip(names, t.shape)))
    places = [as_term(v) + start.get(d, ZERO) for d, v in enumerate(axes)]
    conds = [op("ge", index(bound), 0) for d in start for bound in (places[d], t.shape[d] - ONE - places[d]) if not nonneg(bound)]
    element = t.read(*map(index, places))
    if conds:
        element = where(functools.reduce(lambda a, b: op("and", a, b), conds), element, const(0, t.dtype))
    copy = Compute(f"{t.name}_padded", axes, element, t.loc, t.dtype)
    return copy.read(*(index(i - start.get(d, ZERO)) for d, i in enumerate(read.indices) if isinstance(i, Term)))
