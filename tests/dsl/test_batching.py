"""A program over a batch computes what it computes for each element."""

from __future__ import annotations

import numpy as np
import pytest

import dlc
from dlc import f64, i64
from dsl.batching import batched
from dsl.check import prove_bounds, verify
from dsl.interp import evaluate
from dsl.program import trace

M, N, K = dlc.dims("M N K")


def linear(x: f64[M, K], w: f64[N, K]):
    return dlc.linear(x, w)


def softmax_and_sum(x: f64[M, K], w: f64[N, K]):
    return dlc.softmax(x), dlc.cumsum(w, 1)


def picked(x: f64[M, K], at: i64[M]):
    return dlc.compute((M,), lambda i: x[i, at[i]]), dlc.argmax(x, 1)


@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("fn", [linear, softmax_and_sum, picked], ids=lambda f: f.__name__)
def test_every_element(fn, mapped: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    program = trace(fn)
    new = batched(program, mapped)
    verify(new)
    prove_bounds(new)
    second = rng.integers(0, 5, (3, 4)) if fn is picked else rng.standard_normal((3, 6, 5))
    given = [a if own else a[0] for a, own in zip((rng.standard_normal((3, 4, 5)), second), mapped)]
    got = evaluate(new, *given, float64=True)
    for n in range(3):
        want = evaluate(program, *(a[n] if own else a for a, own in zip(given, mapped)), float64=True)
        for g, w in zip(got, want):
            assert g.shape[0] == 3
            np.testing.assert_allclose(g[n], w)


def test_the_new_size_has_a_name_of_its_own() -> None:
    batch = dlc.dims("batch")

    def double(x: f64[batch]):
        return x * 2

    assert [str(t) for t in batched(trace(double), (True,)).inputs] == ["x: f64[batch_, batch]"]
