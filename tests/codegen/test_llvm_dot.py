"""Products of low-precision factors: by a dot instruction where the target has one, converted while they are packed where not.

The schedules for dot instructions run everywhere with the instructions spelled out in software, and on processors that have them.
"""

import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import bf16, f16, f32
from dlc.runtime.device import host_features, host_target
from tests.codegen.products import K, M, N, exact, instructions, modelled, operands, planned, run_on

TORCH = {"bf16": torch.bfloat16, "f16": torch.float16}
PRESENT = [t for t in ("x86-64", "x86-64-avx2", "x86-64-avx512", "x86-64-avx512-bf16") if set(by_name(t).features) <= host_features()]
TARGETS = [*PRESENT, "model"]
HAS_DOTS = pytest.mark.skipif("x86-64-avx512-bf16" not in PRESENT, reason="needs AVX512_BF16")


def product(kind: str, dtype, out=f32):
    x_shape, w_shape = ((M, K) if kind[0] == "n" else (K, M)), ((K, N) if kind[1] == "n" else (N, K))

    @dlc.kernel
    def low(x: dtype[x_shape], w: dtype[w_shape]):
        k = dlc.reduce_axis(K)
        y = dlc.compute((M, N), lambda i, j: dlc.sum(dlc.cast(x[i, k] if kind[0] == "n" else x[k, i], f32)
                                                     * (w[k, j] if kind[1] == "n" else w[j, k]), k))
        return dlc.cast(y, out) if out is not f32 else y

    return low


def error(got, kind, x, w):
    expected = exact(kind, x, w)
    return float((got.double() - expected).abs().max()) / float(expected.abs().max())


def target_of(name):
    return modelled("avx512bf16") if name == "model" else host_target(name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_orientations_and_ragged_edges(dtype, kind, target):
    kernel = product(kind, dtype)
    for m, n, k in [(1, 9, 3), (5, 16, 2), (30, 33, 31), (64, 64, 64), (57, 130, 77), (100, 200, 1)]:
        x, w = (v.to(TORCH[str(dtype)]) for v in operands(kind, m, n, k))
        plan, (got,) = run_on(target_of(target), kernel, x, w)
        assert error(got, kind, x, w) < 2e-6
        if target in ("model", "x86-64-avx512-bf16") and dtype is bf16 and k > 30:
            assert instructions(plan) == {"vdpbf16ps"}


@pytest.mark.parametrize("kind", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("k", [64, 65])
def test_the_instruction_is_used(kind, k):
    x, w = (v.bfloat16() for v in operands(kind, 70, 80, k))
    text = planned(product(kind, bf16), x, w, target="x86-64-avx512-bf16").assembly()
    assert "vdpbf16ps" in text and "gather" not in text


@pytest.mark.parametrize("target", ["model", pytest.param("x86-64-avx512-bf16", marks=HAS_DOTS)])
def test_the_instruction_is_a_choice(target):
    x, w = (v.bfloat16() for v in operands("nn", 70, 80, 64))
    plan, (got,) = run_on(target_of(target), product("nn", bf16), x, w, decisions={"instruction": ""})
    assert instructions(plan) == {""} and error(got, "nn", x, w) < 2e-6


def test_results_rounded_once():
    x, w = (v.bfloat16() for v in operands("nt", 40, 50, 60))
    got = product("nt", bf16, bf16)(x, w)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact("nt", x, w), rtol=2 ** -8, atol=1e-3)
