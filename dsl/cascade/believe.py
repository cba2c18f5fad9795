"""The guard: a normal form is believed when it agrees with the definition at random points in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dsl.algebra import walk
from dsl.cascade.factored import Mixed, Product
from dsl.expr import Cast, Const, Expr, Index, Op, Read, Where
from dsl.numerics import apply_op, cast_array

_POINTS = 24


def believe_product(arg: Expr, parts: tuple[Product, ...]) -> None:
    """Check a sum of products against the element it stands for.

    Raises:
        Mixed: they differ: the normal form is wrong, and is not used.
    """
    values = _random_leaves(arg)
    want = evaluate(arg, values)
    got = np.zeros(_POINTS)
    for p in parts:
        term = np.ones(_POINTS)
        for f in (*p.scale, *p.data, *p.inside):
            term = term * evaluate(f, values)
        if p.power:
            term = term * getattr(np, p.base)(sum(evaluate(t, values) for t in p.power))
        for parts_ in p.sums:
            term = term * sum(evaluate(t, values) for t in parts_)
        for g in p.guards:
            term = np.where(evaluate(g, values), term, 0.0)
        got = got + term
    _agree(arg, want, got)


def believe_sum(arg: Expr, parts: tuple[Expr, ...]) -> None:
    """Check a sum against the element it stands for.

    Raises:
        Mixed: they differ.
    """
    values = _random_leaves(arg)
    _agree(arg, evaluate(arg, values), sum((evaluate(t, values) for t in parts), np.zeros(_POINTS)))


def _agree(arg: Expr, want: np.ndarray, got: np.ndarray) -> None:
    seen = np.isfinite(want) & np.isfinite(got)
    if not np.allclose(want[seen], got[seen], rtol=1e-9, atol=1e-12) or not (np.isfinite(want) == np.isfinite(got)).all():
        raise Mixed(f"the normal form of `{arg}` does not agree with it at random points")


def _random_leaves(e: Expr) -> dict[Expr, np.ndarray]:
    """A random value for every read and index; the same for the same node."""
    rng = np.random.default_rng(7)
    out: dict[Expr, np.ndarray] = {}
    for n in walk(e):
        if isinstance(n, (Read, Index)):
            out[n] = rng.uniform(0.3, 1.7, _POINTS) if n.dtype.is_float else rng.integers(0, 4, _POINTS)
    return out


def evaluate(e: Expr, values: Mapping[Expr, np.ndarray]) -> np.ndarray:
    """An expression in float64 where the values of its leaves are given; conversions between floats do not round."""
    memo: dict[Expr, np.ndarray] = dict(values)

    def go(n: Expr) -> np.ndarray:
        if n not in memo:
            memo[n] = _evaluated(n, go)
        return memo[n]

    return go(e)


def _evaluated(n: Expr, go: Callable[[Expr], np.ndarray]) -> np.ndarray:
    if isinstance(n, Const):
        return np.asarray(n.value, np.float64 if n.dtype.is_float else None)
    if isinstance(n, Where):
        return np.where(go(n.args[0]), go(n.args[1]), go(n.args[2]))
    if isinstance(n, Cast):
        return go(n.args[0]).astype(np.float64) if n.dtype.is_float else cast_array(go(n.args[0]), n.dtype, float64=True)
    assert isinstance(n, Op)
    args = [go(a) for a in n.args]
    kind = np.result_type(*args)
    return apply_op(n.name, tuple(np.asarray(a, kind) for a in np.broadcast_arrays(*args)))
