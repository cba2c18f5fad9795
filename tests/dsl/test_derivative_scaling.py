"""Adjoints by homogeneity: where they are taken, and that they are the derivative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import dlc
from dlc import f64
from dsl.derivative import vjp
from dsl.program import Program, trace
from tests.dsl.gradcheck import check

M, N, D = dlc.dims("M N D")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def scaled(program: Program) -> list[str]:
    """The sums whose adjoint comes from what they scale."""
    return [c.name for c in vjp(program).computes if c.name.endswith("_scaled")]


def attention(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    return dlc.softmax(q @ k.T) @ v


def fused(q: f64[2, M, D], k: f64[1, N, D], v: f64[1, N, D], mask: f64[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)


def projected(q: f64[M, D], k: f64[N, D], v: f64[N, D], w: f64[D, D]):
    return dlc.tanh((dlc.softmax(q @ k.T) @ v) @ w)


def two_results(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    p = dlc.softmax(q @ k.T)
    return p @ v, dlc.softmax(q @ k.T) @ (v * v)


def sizes(*shapes: tuple[int, ...]):
    return shapes


CASES = {
    "attention": (attention, sizes((3, 2), (5, 2), (5, 2))),
    "masked, shared heads": (fused, sizes((2, 3, 2), (1, 5, 2), (1, 5, 2), (3, 5))),
    "behind a projection": (projected, sizes((3, 2), (5, 2), (5, 2), (2, 2))),
    "two results": (two_results, sizes((3, 2), (5, 2), (5, 2))),
}


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_of_the_sum_comes_from_the_result(name: str, rng: np.random.Generator) -> None:
    fn, shapes = CASES[name]
    assert scaled(trace(fn))
    check(fn, *(rng.standard_normal(s) for s in shapes), rng=rng, order=2, tol=2e-5)


def softmax(x: f64[M, N]):
    return dlc.softmax(x)


def returned(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    e = dlc.exp(q @ k.T)
    n = dlc.sum(e, axis=-1, keepdims=True)
    return (e / n) @ v, n


def added(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    e = dlc.exp(q @ k.T)
    n = dlc.sum(e, axis=-1, keepdims=True)
    return (e / (n + 1.0)) @ v


def chained(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    e = dlc.exp(q @ k.T)
    n = dlc.sum(e, axis=-1, keepdims=True)
    y = (e / n) @ v
    return y, y / n


@pytest.mark.parametrize("fn", [softmax, returned, added, chained], ids=lambda f: f.__name__)
def test_the_plain_rule_elsewhere(fn, rng: np.random.Generator) -> None:
    """Nothing is behind a reduction, or the sum reaches the results in another way too."""
    program = trace(fn)
    assert not scaled(program)
    shapes = [(3, 4)] if fn is softmax else [(3, 2), (5, 2), (5, 2)]
    check(fn, *(rng.standard_normal(s) for s in shapes), rng=rng, tol=2e-5)


def test_a_row_in_which_nothing_is_left_has_no_gradient(rng: np.random.Generator) -> None:
    mask = np.zeros((3, 5))
    mask[1] = -np.inf
    arrays = [rng.standard_normal(s) for s in ((2, 3, 2), (1, 5, 2), (1, 5, 2))]
    k = dlc.kernel(fused)
    back = k._backward(("q", "k", "v"))
    d_q, d_k, d_v = back.reference(*arrays, mask, rng.standard_normal((2, 3, 2)))
    assert not d_q[:, 1].any() and d_q[:, 0].any() and all(np.isfinite(d).all() for d in (d_q, d_k, d_v))


def weighed(x: f64[M, N], v: f64[M, D]):
    return dlc.sum(dlc.sum(x, -1, keepdims=True) * v, -1)


def decayed(x: f64[M, N]):
    return dlc.exp(-dlc.sum(x, -1) * 0.1)


@pytest.mark.parametrize("fn", [weighed, decayed])
def test_a_sum_that_multiplies_keeps_its_plain_adjoint(fn: Callable[..., object], rng: np.random.Generator) -> None:
    """A factor of zero has a derivative that the results, being zero, know nothing of."""
    assert not scaled(trace(fn))
    x = rng.standard_normal((3, 4))
    x[1] = [1.0, -1.0, 2.0, -2.0]
    check(fn, x, *([rng.standard_normal((3, 5))] if fn is weighed else []), rng=rng, order=2, tol=2e-5)
