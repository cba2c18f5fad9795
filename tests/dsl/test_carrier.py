"""The laws every carrier keeps, evaluated on numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import dtype as dt
from dsl.carrier import CARRIERS, Carrier, highest, lowest
from dsl.dtype import Dtype
from dsl.numerics import NUMPY, NumpyAlgebra, cast_array

A = NumpyAlgebra()
NAMES = sorted(CARRIERS)


def inputs(c: Carrier, rng: np.random.Generator, n: int) -> tuple[tuple[Dtype, ...], tuple[np.ndarray, ...]]:
    if c.name in ("any", "all"):
        return (dt.bool_,), (rng.random(n) < 0.5,)
    x = rng.standard_normal(n)
    return ((dt.f64, dt.i64), (np.round(x), rng.permutation(n).astype(np.int64))) if c.arity == 2 else ((dt.f64,), (x,))


def lifted(c: Carrier, rng: np.random.Generator, n: int = 60) -> tuple[Any, ...]:
    dtypes, values = inputs(c, rng, n)
    return tuple(np.broadcast_to(s, (n,)) for s in c.lift(A, values, c.state(dtypes)))


def check_same(c: Carrier, a: Any, b: Any) -> None:
    with np.errstate(all="ignore"):
        for x, y in zip(c.finalize(A, a), c.finalize(A, b)):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_combine_is_associative(name: str, rng: np.random.Generator) -> None:
    c = CARRIERS[name]
    a, b, d = (lifted(c, rng) for _ in range(3))
    ab_d, a_bd = c.combine(A, c.combine(A, a, b), d), c.combine(A, a, c.combine(A, b, d))
    check_same(c, ab_d, a_bd)


@pytest.mark.parametrize("name", NAMES)
def test_combine_commutes_where_it_says_so(name: str, rng: np.random.Generator) -> None:
    c = CARRIERS[name]
    a, b = lifted(c, rng), lifted(c, rng)
    if c.commutative:
        check_same(c, c.combine(A, a, b), c.combine(A, b, a))


@pytest.mark.parametrize("name", NAMES)
def test_identity_changes_nothing(name: str, rng: np.random.Generator) -> None:
    c = CARRIERS[name]
    a = lifted(c, rng)
    e = tuple(np.broadcast_to(i, (60,)) for i in c.identity(A, c.state(inputs(c, rng, 2)[0])))
    for side in (c.combine(A, a, e), c.combine(A, e, a)):
        for x, y in zip(side, a):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", NAMES)
def test_states_and_results_have_the_declared_dtypes(name: str, rng: np.random.Generator) -> None:
    c = CARRIERS[name]
    for d in (dt.f32, dt.f64, dt.bf16, dt.i32, dt.u8, dt.bool_):
        dtypes = (d, dt.i64)[:c.arity]
        if name in ("logsumexp", "moments") and not d.is_float:
            continue
        state = c.state(dtypes)
        assert not any(s.is_low for s in state)
        values = tuple(cast_array(np.ones(3), t) for t in dtypes)
        assert tuple(A.dtype(np.asarray(s)) for s in c.lift(A, values, state)) == state
        assert tuple(A.dtype(np.asarray(s)) for s in c.identity(A, state)) == state
        assert len(c.result(dtypes)) == len(c.finalize(A, c.lift(A, values, state)))


def test_arg_carriers_prefer_the_first_and_nan() -> None:
    c = CARRIERS["argmax"]
    def best(*values: float) -> int:
        states = [(np.float64(v), np.int64(n)) for n, v in enumerate(values)]
        out = states[0]
        for s in states[1:]:
            out = c.combine(A, tuple(map(np.asarray, out)), tuple(map(np.asarray, s)))
        return int(out[1])

    assert best(1, 3, 3, 2) == 1
    assert best(1, np.nan, 5, np.nan) == 1
    assert best(-np.inf, -np.inf) == 0


def test_logsumexp_of_nothing_and_of_minus_infinity() -> None:
    c = CARRIERS["logsumexp"]
    state = c.identity(A, (dt.f64, dt.f64))
    x = c.lift(A, (np.float64([-np.inf]),), (dt.f64, dt.f64))
    with np.errstate(all="ignore"):
        assert c.finalize(A, c.combine(A, state, x))[0] == -np.inf
        assert c.finalize(A, c.combine(A, x, c.lift(A, (np.float64([700.0]),), (dt.f64, dt.f64))))[0] == 700


def test_moments_of_large_offsets_keep_their_variance(rng: np.random.Generator) -> None:
    c = CARRIERS["moments"]
    x = rng.standard_normal(64) + 1e8
    states = c.lift(A, (x,), (dt.f64,) * 3)
    states = tuple(np.broadcast_to(s, x.shape) for s in states)
    while states[0].size > 1:
        states = tuple(map(np.asarray, c.combine(A, tuple(s[::2] for s in states), tuple(s[1::2] for s in states))))
    mean, variance = c.finalize(A, states)
    np.testing.assert_allclose(variance, x.var(), rtol=1e-7)  # E[x^2] - E[x]^2 would have no digit right
    np.testing.assert_allclose(mean, x.mean(), rtol=1e-12)


def test_least_and_greatest_values() -> None:
    for d in NUMPY:
        if d.is_int:
            info = np.iinfo(NUMPY[d])
            assert (lowest(d), highest(d)) == (info.min, info.max)
    assert (lowest(dt.f32), highest(dt.bool_), lowest(dt.bool_)) == (-np.inf, 1, 0)


def test_which_reorderings_change_no_bit() -> None:
    assert CARRIERS["max"].reorders_exactly((dt.f32,))
    assert CARRIERS["sum"].reorders_exactly((dt.i32,))
    assert not CARRIERS["sum"].reorders_exactly((dt.f32,))
