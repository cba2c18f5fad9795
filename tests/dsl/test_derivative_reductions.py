"""Reductions and scans of every carrier, in both modes and twice, against torch where torch has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsl.algebra import walk
from dsl.carrier import ALL, ARGMAX, LOGSUMEXP, MAX, MIN, MOMENTS, PROD, RECURRENCE, SUM
from dsl.derivative import vjp
from dsl.dtype import f64
from dsl.errors import DerivativeError
from dsl.expr import Scan, cast, op, scan, where
from dsl.program import axis_of, compute, dims, reduce_axis, reduce_over, trace
from tests.dsl.gradcheck import check, gradients

M, N = dims("M N")


def torch_gradient(fn, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    t = torch.tensor(x, requires_grad=True)
    fn(t).backward(torch.tensor(g))
    return t.grad.numpy()


@pytest.mark.parametrize("carrier", [SUM, PROD, MAX, MIN, LOGSUMEXP])
def test_reductions_of_expressions(carrier, rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N], w: f64[N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: op("sin", reduce_over(carrier, (x[i, k] * w[k] + 0.1,), (k,))) * 2, name="y")

    check(kernel, rng.uniform(0.5, 1.5, (3, 4)), rng.uniform(0.5, 1.5, 4), rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("carrier", [SUM, PROD, MAX, LOGSUMEXP])
def test_reductions_over_two_axes(carrier, rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        i, k = reduce_axis(M, name="i"), reduce_axis(N)
        return compute((), lambda: reduce_over(carrier, (x[i, k],), (i, k)), name="y")

    check(kernel, rng.uniform(0.5, 1.5, (3, 4)), rng=rng, order=2, tol=1e-5)


def test_products_with_zeros_follow_torch(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: reduce_over(PROD, (x[i, k],), (k,)), name="y")

    x = rng.standard_normal((4, 5))
    x[1, 2] = x[2, 0] = x[2, 4] = 0
    g = rng.standard_normal(4)
    np.testing.assert_allclose(gradients(kernel, x, cotangents=[g])["d_x"], torch_gradient(lambda t: t.prod(1), x, g), atol=1e-12)
    check(kernel, x, rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("carrier,fn", [(MAX, torch.amax), (MIN, torch.amin)])
def test_equal_extrema_share_equally(carrier, fn, rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: reduce_over(carrier, (x[i, k],), (k,)), name="y")

    x = np.array([[1.0, 3, 3, -2], [2, 2, 2, 2]])
    g = rng.standard_normal(2)
    np.testing.assert_allclose(gradients(kernel, x, cotangents=[g])["d_x"], torch_gradient(lambda t: fn(t, 1), x, g))


def test_argmax_routes_to_its_position(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: reduce_over(ARGMAX, (x[i, k], k), (k,)), name="y")

    x = np.array([[1.0, 3, 3, -2], [2, 5, 2, 2]])
    g = rng.standard_normal(2)
    np.testing.assert_allclose(gradients(kernel, x, cotangents=[g])["d_x"], torch_gradient(lambda t: t.max(1).values, x, g))
    check(kernel, rng.standard_normal((3, 4)), rng=rng)


def test_fully_masked_rows_have_zero_gradients() -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: reduce_over(LOGSUMEXP, (x[i, k],), (k,)), name="y")

    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    np.testing.assert_array_equal(gradients(kernel, x, cotangents=[np.ones(2)])["d_x"], [[0, 0], [1, 0]])


def test_moments(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k, q = reduce_axis(N), reduce_axis(N)
        mean = compute((M,), lambda i: reduce_over(MOMENTS, (x[i, k],), (k,)), name="mean")
        var = compute((M,), lambda i: reduce_over(MOMENTS, (x[i, q],), (q,), 1), name="var")
        return compute((M,), lambda i: mean[i] * op("rsqrt", var[i] + 1e-3), name="y")

    check(kernel, rng.standard_normal((3, 5)), rng=rng, order=2, tol=1e-5)


def test_logic_has_no_derivative_and_stops_none(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k, q = reduce_axis(N), reduce_axis(N)
        positive = compute((M,), lambda i: reduce_over(ALL, (x[i, k] > -9,), (k,)), name="p")
        return compute((M,), lambda i: where(positive[i], reduce_over(SUM, (x[i, q],), (q,)), 0.0), name="y")

    check(kernel, rng.standard_normal((3, 4)), rng=rng, order=2)


def test_reductions_under_a_condition_stay_in_bounds(rng: np.random.Generator) -> None:
    def kernel(x: f64[N]):
        k = reduce_axis(2, name="k")
        return compute((N,), lambda i: where(i >= 1, reduce_over(MAX, (x[i - k],), (k,)) ** 2, x[i]), name="y")

    check(kernel, rng.standard_normal(6), rng=rng, order=2, tol=1e-5)


# -- scans ---------------------------------------------------------------------------------------------------------
def scanning(carrier, exclusive=False, reverse=False, lift=lambda e: e):
    def kernel(x: f64[M, N]):
        t = axis_of(reduce_axis(N, name="t"))
        return compute((M, N), lambda i, j: scan(carrier, (lift(x[i, t]),), t, j.term, exclusive=exclusive, reverse=reverse) * 1.5,
                       name="y")
    return kernel


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("carrier", [SUM, PROD])
def test_linear_and_multiplicative_scans(carrier, exclusive: bool, reverse: bool, rng: np.random.Generator) -> None:
    x = rng.uniform(0.5, 1.5, (2, 5))
    x[1, 3] = 0
    check(scanning(carrier, exclusive, reverse), x, rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("carrier", [MAX, MIN, LOGSUMEXP])
def test_other_scans(carrier, reverse: bool, rng: np.random.Generator) -> None:
    check(scanning(carrier, False, reverse, lambda e: op("sin", e)), rng.standard_normal((2, 6)), rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("carrier", [SUM, PROD, MAX, LOGSUMEXP], ids=str)
@pytest.mark.parametrize("holds", [lambda j: j % 2 < 1, lambda j: j >= 2, lambda j: j < N - 2, lambda j: (j >= 1) & (j < 4)],
                         ids=["even", "from", "below", "between"])
@pytest.mark.parametrize("outside", [0.0, 1.5])
def test_scans_under_a_condition_on_their_position(carrier, holds, outside: float, rng: np.random.Generator) -> None:
    def selected(x: f64[M, N]):
        t = reduce_axis(N, name="t")
        return compute((M, N), lambda i, j: where(holds(j), scan(carrier, (x[i, t],), axis_of(t), j.term), outside))

    check(selected, rng.standard_normal((2, 6)), rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("carrier", [SUM, PROD], ids=str)
def test_scans_that_are_in_bounds_only_under_their_condition(carrier, rng: np.random.Generator) -> None:
    def ahead(x: f64[N]):
        t = reduce_axis(N, name="t")
        return compute((N,), lambda j: where(j < N - 1, scan(carrier, (where(t < N - 1, x[t + 1], 1.0) * x[t],), axis_of(t), j.term), 0.0))

    check(ahead, rng.standard_normal(5), rng=rng, order=2, tol=1e-5)


@pytest.mark.parametrize("carrier,fn", [
    (SUM, lambda t: t.cumsum(1)), (PROD, lambda t: t.cumprod(1)), (LOGSUMEXP, lambda t: t.logcumsumexp(1)),
    (MAX, lambda t: t.cummax(1).values), (MIN, lambda t: t.cummin(1).values)])
def test_scans_follow_torch(carrier, fn, rng: np.random.Generator) -> None:
    x, g = rng.standard_normal((3, 7)), rng.standard_normal((3, 7))
    x[0, 3] = 0
    np.testing.assert_allclose(gradients(scanning(carrier), x, cotangents=[g])["d_x"],
                               torch_gradient(lambda t: fn(t) * 1.5, x, g), atol=1e-12)


def test_a_scan_is_differentiated_by_scans() -> None:
    for carrier in (SUM, PROD, MAX, LOGSUMEXP):
        backward = vjp(trace(scanning(carrier)))
        assert any(isinstance(e, Scan) for c in backward.computes for e in walk(c.body))


def test_running_argmax(rng: np.random.Generator) -> None:
    def kernel(x: f64[N]):
        t = axis_of(reduce_axis(N, name="t"))
        return compute((N,), lambda j: scan(ARGMAX, (x[t], t), t, j.term) * 2, name="y")

    check(kernel, rng.standard_normal(7), rng=rng)


def test_linear_recurrences(rng: np.random.Generator) -> None:
    def kernel(a: f64[M, N], b: f64[M, N]):
        t = axis_of(reduce_axis(N, name="t"))
        return compute((M, N), lambda i, j: scan(RECURRENCE, (op("sigmoid", a[i, t]), b[i, t]), t, j.term), name="y")

    check(kernel, rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng=rng, order=2, tol=1e-5)


# -- carriers of users ---------------------------------------------------------------------------------------------
NORM = replace(  # the euclidean norm: one number of state
    SUM, name="norm", lift=lambda a, x, s: (a.op("mul", a.cast(x[0], s[0]), a.cast(x[0], s[0])),),
    finalize=lambda a, s: (a.op("sqrt", s[0]),))
SATURATING = replace(SUM, name="saturating", combine=lambda a, x, y: (
    a.op("sub", a.op("add", x[0], y[0]), a.op("mul", x[0], y[0])),))  # 1 - (1-x)(1-y)


@pytest.mark.parametrize("carrier", [NORM, SATURATING, replace(MOMENTS, name="mine"), replace(RECURRENCE, name="mine2")])
def test_carriers_of_users_by_their_formulas(carrier, rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N], y: f64[M, N]):
        k = reduce_axis(N)
        return compute((M,), lambda i: reduce_over(carrier, (x[i, k], y[i, k])[:carrier.arity], (k,)), name="r")

    check(kernel, rng.uniform(0.1, 0.9, (3, 4)), rng.uniform(0.1, 0.9, (3, 4)), rng=rng, tol=1e-5)


def test_carriers_of_users_over_two_axes(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        i, k = reduce_axis(M, name="i"), reduce_axis(N)
        return compute((), lambda: reduce_over(NORM, (x[i, k],), (i, k)), name="r")

    check(kernel, rng.uniform(0.1, 0.9, (3, 4)), rng=rng, tol=1e-5)


def test_scans_of_users(rng: np.random.Generator) -> None:
    check(scanning(SATURATING), rng.uniform(0.1, 0.9, (2, 5)), rng=rng, order=2, tol=1e-5)
    with pytest.raises(DerivativeError, match="no derivative rule"):
        vjp(trace(scanning(MOMENTS)))


def test_what_is_refused() -> None:
    from dsl.dtype import i32

    def kernel(x: f64[N], n: i32[N]):
        return compute((N,), lambda i: x[i] * cast(n[i], f64), name="y")

    with pytest.raises(DerivativeError, match="only floats"):
        vjp(trace(kernel), ["n"])
    with pytest.raises(DerivativeError, match="no input `z`"):
        vjp(trace(kernel), ["z"])
