"""Searching for a point that breaks a claim: symbolic corners of the box first, then numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dsl.dim import Term, Var, as_term, nonneg

SIZES = (1, 2, 3, 4, 5, 8)
MOST_POINTS = 4096

Point = dict[Var, Term]


def find_witness(claim: Term, facts: Sequence[Term]) -> Point | None:
    """A point of the box where every fact is ``>= 0`` and the claim is not; None when the search ends without one.

    The values are terms over the symbolic sizes when that is enough (``i = M - 1``), else numbers, sizes included.
    """
    variables = {v for t in (claim, *facts) for v in t.vars}
    while new := {w for v in variables if v.extent is not None for w in v.extent.vars} - variables:
        variables |= new
    sizes = sorted((v for v in variables if v.kind == "dim"), key=lambda v: v.uid)
    axes = sorted((v for v in variables if v.kind != "dim"), key=lambda v: v.uid)
    if sizes and (corner := _symbolic_corner(claim, facts, axes)) is not None:
        return corner
    for env in _sizes(sizes, [claim, *facts]):
        point = _concrete(claim, facts, axes, env)
        if point is not None:
            return {v: as_term(n) for v, n in point.items()}
    return None


def _symbolic_corner(claim: Term, facts: Sequence[Term], axes: Sequence[Var]) -> Point | None:
    """Each axis at 0 or at its last value, as terms."""
    for ends in itertools.islice(itertools.product((False, True), repeat=len(axes)), 64):
        point: Point = {}
        for v, last in zip(axes, ends):
            assert v.extent is not None
            point[v] = v.extent.subs(point) - 1 if last else as_term(0)
        inside = all(nonneg(p) and nonneg(v.extent.subs(point) - 1 - p) for v, p in point.items() if v.extent is not None)
        if inside and nonneg(-1 - claim.subs(point)) and all(nonneg(f.subs(point)) for f in facts):
            return point
    return None


def _sizes(sizes: Sequence[Var], terms: Iterable[Term]) -> Iterator[dict[Var, int]]:
    """Small sizes, and those beside the constants that occur."""
    near = sorted({c for t in terms for c in (abs(t.const) - 1, abs(t.const), abs(t.const) + 1) if 1 <= c <= 64} - set(SIZES))
    choices = (*SIZES, *near)
    for values in itertools.islice(sorted(itertools.product(choices, repeat=min(len(sizes), 3)), key=lambda v: max(v, default=0)), 300):
        yield {v: values[min(n, len(values) - 1)] for n, v in enumerate(sizes)}


def _concrete(claim: Term, facts: Sequence[Term], axes: Sequence[Var], env: Mapping[Var, int]) -> dict[Var, int] | None:
    """A witness for these sizes: every point of a small box, else points near its corners and near where a fact turns."""
    fixed = [t.subs(dict(env)) for t in (claim, *facts)]
    for point in itertools.islice(_points(fixed, axes, dict(env)), MOST_POINTS):
        if fixed[0].eval(point) < 0 and all(f.eval(point) >= 0 for f in fixed[1:]):
            return point
    return None


def _points(terms: Sequence[Term], axes: Sequence[Var], env: dict[Var, int]) -> Iterator[dict[Var, int]]:
    if not axes:
        yield env
        return
    v, *rest = axes
    assert v.extent is not None
    later = v.extent.vars - set(env)
    if later and rest:
        yield from _points(terms, [*rest, v], env)
        return
    n = int(v.extent.eval(env))
    for value in _values(v, n, terms):
        yield from _points(terms, rest, {**env, v: value})


def _values(v: Var, n: int, terms: Sequence[Term]) -> list[int]:
    if n <= 8:
        return list(range(n))
    out = {0, 1, 2, n - 1, n - 2, n - 3, n // 2}
    for t in terms:
        c = t.coef(v)
        if c:
            rest = t - as_term(v) * c
            roots = [-end / c for end in (rest.const, *rest.bounds) if abs(end) != float("inf")]
            out |= {int(r) + k for r in roots for k in (-1, 0, 1)}
    return sorted(x for x in out if 0 <= x < n)
