"""The meaning of a program point by point, in float64: slow, short, and written apart from the interpreter it judges."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Scan, Where
from dsl.numerics import NumpyAlgebra, cast_array, numpy_dtype
from dsl.program import Program

A = NumpyAlgebra(float64=True)


def naive(program: Program, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """What ``evaluate(program, *arrays, float64=True)`` must return, up to the order of sums."""
    sizes = bind_sizes(program, [a.shape for a in arrays])
    values: dict[Any, np.ndarray] = {t: cast_array(a, t.dtype, True) for t, a in zip(program.inputs, arrays)}
    with np.errstate(all="ignore"):
        for c in program.computes:
            values[c] = _tensor(c, sizes, values)
    return tuple(values[c] for c in program.outputs)


def _tensor(c: Compute, sizes: dict[Var, int], values: dict[Any, np.ndarray]) -> np.ndarray:
    out = np.empty(tuple(_size(a, sizes) for a in c.axes), numpy_dtype(c.dtype, True))
    for point in np.ndindex(out.shape):
        out[point] = _value(c.body, {**sizes, **dict(zip(c.axes, point))}, values)
    return out


def _size(a: Var, env: dict[Var, int]) -> int:
    assert a.extent is not None
    return max(int(a.extent.eval(env)), 0)


def _value(e: Expr, env: dict[Var, int], values: dict[Any, np.ndarray]) -> Any:
    if isinstance(e, Const):
        return A.const(e.value, e.dtype)
    if isinstance(e, Index):
        return np.asarray(int(e.term.eval(env)), np.int64)
    if isinstance(e, Where):
        return _value(e.args[1] if _value(e.args[0], env, values) else e.args[2], env, values)
    if isinstance(e, (Reduce, Scan)):
        return _folded(e, env, values)
    args = [_value(a, env, values) for a in e.args]
    if isinstance(e, Read):
        rest = iter(args)
        at = tuple(int(next(rest)) if s is None else int(s.eval(env)) for s in e.data[1])
        assert all(0 <= i < n for i, n in zip(at, values[e.tensor].shape)), (e, at)
        return np.asarray(values[e.tensor][at])
    if isinstance(e, Cast):
        return A.cast(args[0], e.dtype)
    assert isinstance(e, Op)
    return A.op(e.name, *args)


def _folded(e: Reduce | Scan, env: dict[Var, int], values: dict[Any, np.ndarray]) -> Any:
    carrier, dtypes = e.data[0], tuple(a.dtype for a in e.args)
    state = carrier.identity(A, carrier.state(dtypes))
    for point in _points(e, env):
        inputs = tuple(_value(a, {**env, **point}, values) for a in e.args)
        state = carrier.combine(A, state, carrier.lift(A, inputs, carrier.state(dtypes)))
    out = e.out if isinstance(e, Reduce) else e.data[3]
    return A.cast(np.asarray(carrier.finalize(A, state)[out]), e.dtype)


def _points(e: Reduce | Scan, env: dict[Var, int]) -> Any:
    if isinstance(e, Reduce):
        for point in itertools.product(*(range(_size(a, env)) for a in e.axes)):
            yield dict(zip(e.axes, point))
        return
    _, axis, at, _, exclusive, reverse = e.data
    here, n = int(at.eval(env)), _size(axis, env)
    inside = range(here + exclusive, n) if reverse else range(0, here + 1 - exclusive)
    yield from ({axis: k} for k in inside)
