"""Products of bytes: exact for any values, by instructions for bytes or for 16 bits, summed in 32 bits as long as those hold every sum."""

import numpy as np
import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import f32, i8, i32, u8
from dlc.compiler import Plan
from dlc.runtime.device import host_features, host_target
from dsl.primitives.reduction import adds_within
from tests.codegen.products import K, M, N, instructions, modelled, run_on

NAMES = ("x86-64", "x86-64-avx2", "x86-64-avx512", "x86-64-avx512-bf16", "x86-64-amx")
PRESENT = [t for t in NAMES if set(by_name(t).features) <= host_features()]
MODELLED = {"amx model": ("amx-int8",), "vnni model": ("avx512vnni",)}


@dlc.kernel
def signed(x: i8[M, K], w: i8[K, N]):
    return x @ w


@dlc.kernel
def unsigned(x: u8[M, K], w: u8[K, N]):
    return x @ w


@dlc.kernel
def mixed(x: u8[M, K], w: i8[N, K]):
    return dlc.linear(x, w)


@dlc.kernel
def scaled(x: i8[M, K], w: i8[N, K], s: f32[N]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.cast(dlc.sum(dlc.cast(x[i, k], i32) * dlc.cast(w[j, k], i32), k), f32) * s[j])


def extremes(dtype, *shape):
    """Values at the ends of the range, where sums are largest."""
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    return torch.where(torch.rand(shape) < 0.7, low if low else high, torch.randint(low, high + 1, shape)).to(dtype)


def target_of(name):
    return modelled(*MODELLED[name]) if name in MODELLED else host_target(name)


@pytest.mark.parametrize("target", [*PRESENT, *MODELLED])
@pytest.mark.parametrize("kernel", [signed, unsigned, mixed], ids=["signed", "unsigned", "mixed"])
def test_exact_for_any_values(kernel, target):
    a, b = (torch.int8 if kernel is signed else torch.uint8), (torch.uint8 if kernel is unsigned else torch.int8)
    for m, n, k in [(60, 90, 300), (64, 64, 64), (17, 33, 700), (3, 7, 5)]:
        x, w = extremes(a, m, k), extremes(b, *((n, k) if kernel is mixed else (k, n)))
        plan, (got,) = run_on(target_of(target), kernel, x, w)
        assert torch.equal(got, x.long() @ (w.long().T if kernel is mixed else w.long())) and got.dtype == torch.int64
        assert instructions(plan) or m < 8


@pytest.mark.parametrize("target", [*PRESENT, *MODELLED])
def test_what_finishes_a_product_of_bytes(target):
    x, w, s = extremes(torch.int8, 50, 70), extremes(torch.int8, 90, 70), torch.randn(90)
    _, (got,) = run_on(target_of(target), scaled, x, w, s)
    np.testing.assert_allclose(got.numpy(), (x.long() @ w.long().T).float().numpy() * s.numpy(), rtol=1e-6)


@pytest.mark.parametrize("k, exact", [(131_071, True), (131_072, False)])
def test_sums_that_could_overflow_stay_in_64_bits(k, exact):
    x, w = torch.empty(8, k, dtype=torch.int8), torch.empty(k, 8, dtype=torch.int8)
    (product,) = signed.plan(x, w).unscheduled.stages
    assert adds_within(product.body, i32) is exact


def test_the_code_has_the_instruction():
    x, w = torch.empty(64, 128, dtype=torch.int8), torch.empty(128, 64, dtype=torch.int8)
    for target, name in zip(NAMES, ("pmaddwd", "vpmaddwd", "vpmaddwd", "vpdpwssd", "tdpbssd")):
        text = Plan(signed.plan(x, w).request.on(by_name(target))).assembly()
        assert name in text and "gather" not in text, target
