"""Bounds of rounding errors hold, and are not absurdly wide, for generated code in the order it has."""

import numpy as np
import pytest
import torch

import dlc
from codegen.micro.maths import MAX_ULP
from dlc import bf16, f32, f64, i32
from dsl.error_bound import Roundings, Unbounded, error_bound, unit
from dsl.interp import evaluate
from dsl.order import chain_lengths

M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    k = dlc.reduce_axis(K)
    return dlc.gelu(dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k) + b[j]))


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def variance(x: f32[M, N]):
    mean = dlc.mean(x, 1)
    return dlc.compute((M,), lambda i: dlc.sqrt(dlc.abs(mean[i])) / (mean[i] * mean[i] + 1))


@dlc.kernel
def product(x: f32[M, N]):
    return dlc.prod(dlc.exp(x * 0.1), 1)


@dlc.kernel
def prefix(x: f32[M, N]):
    return dlc.cumsum(x, 1)


@dlc.kernel
def rounded(x: bf16[M, N]):
    return dlc.log_softmax(x * 3, 1)


@dlc.kernel
def double(x: f64[M, N]):
    return dlc.sum(dlc.sin(x) * dlc.cos(x), 1)


@dlc.kernel
def chain(x: f32[M, N]):
    return dlc.where(x > 0, dlc.log1p(dlc.abs(x)), dlc.tanh(x) - 0.5) * dlc.maximum(x, 0.1)


@dlc.kernel
def normed(x: f32[M, N]):
    return dlc.rms_norm(x)


CASES = {
    "linear_gelu": (linear_gelu, [(9, 70), (11, 70), (11,)]), "softmax": (softmax, [(7, 100)]), "variance": (variance, [(5, 33)]),
    "product": (product, [(4, 50)]), "prefix": (prefix, [(3, 40)]), "rounded": (rounded, [(6, 45)]), "double": (double, [(4, 60)]),
    "chain": (chain, [(8, 31)]), "normed": (normed, [(6, 64)]),
}


def arguments(kernel, shapes, seed: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    kinds = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}
    return [(torch.randn(s, generator=g) * 3).to(kinds[t.dtype.name]) for s, t in zip(shapes, kernel.program.inputs)]


def bounds(kernel, args: list[torch.Tensor]) -> np.ndarray:
    plan = kernel.plan(*args)
    reductions = [s.name for s in plan.unscheduled.stages if s.kind != "map"]
    roundings = Roundings(chain_lengths(plan.nest, reductions), {n: max(v.values()) for n, v in MAX_ULP.items()})
    arrays = [a.float().numpy() if a.dtype is torch.bfloat16 else a.numpy() for a in args]
    return evaluate(error_bound(plan.unscheduled, roundings), *arrays, float64=True)[0]


@pytest.mark.parametrize("name", CASES)
def test_no_error_is_beyond_its_bound(name: str) -> None:
    kernel, shapes = CASES[name]
    share = 0.0
    for seed in range(3):
        args = arguments(kernel, shapes, seed)
        off = np.abs(kernel(*args).double().numpy() - kernel.reference(*args))
        bound = bounds(kernel, args)
        assert (off <= bound).all()
        share = max(share, float((off / bound).max()))
    assert share > 1e-3, "the bound says nothing"


def test_a_bound_grows_with_the_length_of_the_chains() -> None:
    x = torch.ones(2, 64).numpy()
    plan = softmax.plan(torch.ones(2, 64))
    names = [s.name for s in plan.unscheduled.stages if s.kind != "map"]
    short, long = (evaluate(error_bound(plan.unscheduled, Roundings(dict.fromkeys(names, d))), x, float64=True)[0].max() for d in (6, 64))
    assert long > 3 * short


def test_exact_results_have_a_bound_of_nothing() -> None:
    @dlc.kernel
    def exact(x: f32[M, N], n: i32[M]):
        return dlc.max(dlc.relu(-x), 1), dlc.cast(dlc.sum(n, 0), f32) * 0.0

    x, n = torch.randn(3, 5), torch.arange(3, dtype=torch.int32)
    plan = exact.plan(x, n)
    first = evaluate(error_bound(plan.unscheduled, Roundings()), x.numpy(), n.numpy(), float64=True)[0]
    assert first.max() == 0


def test_infinite_weights_of_no_error_stay_out() -> None:
    @dlc.kernel
    def logs(x: f32[N]):
        return dlc.log(x)

    x = np.array([0.0, 1.0, 4.0], np.float32)
    plan = logs.plan(torch.from_numpy(x))
    assert np.isfinite(evaluate(error_bound(plan.unscheduled, Roundings()), x, float64=True)[0][1:]).all()


def test_reductions_without_a_bound_say_so() -> None:
    @dlc.kernel
    def wild(a: f32[N], b: f32[N]):
        return dlc.cumprod(a * b, 0)

    plan = wild.plan(torch.ones(3), torch.ones(3))
    with pytest.raises(Unbounded, match="no error bound"):
        error_bound(plan.unscheduled, Roundings())


def test_units() -> None:
    assert unit(f32) == 2.0**-24 and unit(bf16) == 2.0**-8 and unit(f64) == 2.0**-53
