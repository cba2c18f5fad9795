"""Every pointwise rule, in both modes and twice; kinks and dead branches as in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsl.derivative import vjp
from dsl.dtype import bf16, f32, f64
from dsl.expr import op, where
from dsl.opset import OPS
from dsl.program import compute, dims, trace
from tests.dsl.gradcheck import check, gradients, program_of, reductions

N, M = dims("N M")

UNIT = {"asin", "acos", "atanh"}
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt"}
FLAT = {"floordiv", "sign", "floor", "ceil", "round", "trunc"}
UNARY = [n for n, o in OPS.items() if o.arity == 1 and o.rule in ("float", "num", "same") and n != "detach"]
BINARY = [n for n, o in OPS.items() if o.arity == 2 and o.rule in ("float", "num", "same")]


def domain(name: str, rng: np.random.Generator) -> np.ndarray:
    if name in UNIT:
        return rng.uniform(-0.8, 0.8, 7)
    if name in POSITIVE:
        return rng.uniform(0.3, 3, 7)
    if name == "acosh":
        return rng.uniform(1.3, 3, 7)
    return rng.uniform(0.2, 0.9, 7) * rng.choice([-1, 1], 7)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, rng: np.random.Generator) -> None:
    def kernel(x: f64[N]):
        return compute((N,), lambda i: op(name, x[i] * 1.0))

    tol = 2e-5 if name in ("lgamma", "tan", "erf", "erfc") else 2e-6
    check(kernel, domain(name, rng), rng=rng, order=1 if name in FLAT else 2, tol=tol)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str, rng: np.random.Generator) -> None:
    def kernel(x: f64[N], y: f64[N]):
        return compute((N,), lambda i: op(name, x[i], y[i]))

    x = rng.uniform(0.3, 2, 6)
    y = x + rng.choice([-0.2, 0.3], 6) if name in ("min", "max", "mod", "floordiv") else rng.uniform(0.3, 2, 6)
    check(kernel, x, y, rng=rng, order=1 if name in FLAT else 2, tol=1e-5)


def test_fma_and_constant_powers(rng: np.random.Generator) -> None:
    def kernel(x: f64[N], y: f64[N]):
        return compute((N,), lambda i: op("fma", x[i], y[i], x[i]) + x[i] ** 3 + y[i] ** 2 + x[i] ** 0.5 + x[i] ** -1.5)

    check(kernel, rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5), rng=rng, order=2, tol=1e-5)


TORCH = {
    "abs": (lambda x: op("abs", x), torch.abs), "relu": (lambda x: op("max", x, 0), torch.relu),
    "clamp": (lambda x: op("min", op("max", x, -1.0), 1.0), lambda x: torch.clamp(x, -1, 1)),
    "square": (lambda x: x ** 2, lambda x: x ** 2), "cube": (lambda x: x ** 3, lambda x: x ** 3),
    "zeroth": (lambda x: x ** 0, lambda x: x ** 0), "maximum": (lambda x: op("max", x, x * 0 + 1), lambda x: torch.maximum(x, x * 0 + 1)),
    "sqrt": (lambda x: op("sqrt", op("abs", x) + 1), lambda x: torch.sqrt(x.abs() + 1)),
    "where": (lambda x: where(x > 0, op("log", x), 0 * x), lambda x: torch.where(x > 0, torch.log(torch.where(x > 0, x, 1.0)), 0 * x)),
    "tower": (lambda x: op("pow", op("abs", x), x * x), lambda x: x.abs() ** (x * x)),
}


@pytest.mark.parametrize("name", TORCH)
def test_kinks_follow_torch(name: str, rng: np.random.Generator) -> None:
    mine, theirs = TORCH[name]

    def kernel(x: f64[N]):
        return compute((N,), lambda i: mine(x[i]))

    x = np.array([-2.0, -1, 0, 1, 2, 0.5])
    g = rng.standard_normal(6)
    t = torch.tensor(x, requires_grad=True)
    theirs(t).backward(torch.tensor(g))
    np.testing.assert_allclose(gradients(kernel, x, cotangents=[g])["d_x"], t.grad.numpy(), rtol=1e-12)


def test_digamma_against_torch() -> None:
    def kernel(x: f64[N]):
        return compute((N,), lambda i: op("lgamma", x[i]))

    x = np.array([1e-3, 0.3, 0.5, 1, 1.5, 3, 20, 1e4, -0.3, -1.7, -6.2])
    expected = torch.digamma(torch.tensor(x)).numpy()
    np.testing.assert_allclose(gradients(kernel, x, cotangents=[np.ones(11)])["d_x"], expected, rtol=1e-12)


def test_the_branch_not_taken_gives_no_nan() -> None:
    def kernel(x: f64[N]):
        return compute((N,), lambda i: where(x[i] > 0, op("sqrt", x[i]) / x[i], op("exp", x[i])))

    got = gradients(kernel, np.array([0.0, -1.0, 4.0]), cotangents=[np.ones(3)])["d_x"]
    np.testing.assert_allclose(got, [1, np.exp(-1), -0.5 * 4 ** -1.5])


def test_nested_branches_and_shared_parts(rng: np.random.Generator) -> None:
    def kernel(x: f64[N], y: f64[N]):
        def body(i):
            shared = op("sin", x[i] * y[i])
            inner = where(y[i] > 0, shared * x[i], op("exp", shared))
            return where(x[i] > 0, inner, shared + y[i]) * shared

        return compute((N,), body)

    check(kernel, rng.standard_normal(9), rng.standard_normal(9), rng=rng, order=2, tol=1e-5)


def test_integers_and_bools_stop_the_gradient() -> None:
    from dsl.dtype import i32
    from dsl.expr import cast

    def kernel(x: f64[N]):
        return compute((N,), lambda i: cast(cast(x[i], i32), f64) * x[i])

    np.testing.assert_allclose(gradients(kernel, np.array([2.5, -1.5]), cotangents=[np.ones(2)])["d_x"], [2, -1])


def test_gradients_have_the_dtype_of_the_input() -> None:
    def kernel(x: bf16[N], y: f32[N]):
        return compute((N,), lambda i: x[i] * y[i])

    assert [str(o.dtype) for o in vjp(trace(kernel)).outputs] == ["bf16", "f32"]


def test_gelu_stays_pointwise(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        u = compute((M, N), lambda i, j: x[i, j] * 0.7071)
        e = compute((M, N), lambda i, j: op("erf", u[i, j]) + 1)
        return compute((M, N), lambda i, j: x[i, j] * e[i, j] * 0.5)

    backward = check(kernel, rng.standard_normal((3, 4)), rng=rng, order=2, tol=1e-5)
    assert not reductions(backward)
    assert len([c for c in backward.computes if c.name.startswith("d_")]) == 1
    assert not reductions(vjp(program_of(kernel)))
