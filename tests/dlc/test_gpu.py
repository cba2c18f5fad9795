"""GPU kernels with no GPU: every case computes the oracle's result under Triton's checked interpreter and compiles without spills."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import dlc
from codegen.target import TARGETS, by_name
from codegen.tile.verify import verify
from dlc import bf16, f32
from dlc.compiler import Plan
from dlc.gpu import GpuCompilation, parameter_names, triton_artifact
from dlc.kernel import Kernel
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_run import interpret
from dsl.errors import TargetError
from dsl.interp import evaluate
from tests.dlc.gpu_cases import CASES, brain_product, chain, cross_entropy, matmul_bias_gelu, softmax
from tests.strategies import random_case

GPUS = [t.name for t in TARGETS.values() if t.kind != "cpu"]
COMPILED = ["matmul + bias + gelu", "softmax", "strided padded conv2d", "attention", "causal attention"]


def interpreted(plan, args):
    """The outputs of a plan's Triton kernels, every access checked."""
    verify(plan.tile)
    artifact = triton_artifact(plan)
    inputs, outputs = parameter_names(plan)
    tensors = dict(zip(inputs, args))
    for name, t in zip(outputs, plan.program.outputs):
        tensors[name] = torch.empty([int(n) for n in t.shape], dtype=torch_dtype(t.dtype))
    if artifact.error:
        tensors[artifact.error] = torch.zeros(1, dtype=torch.int32)
    report = interpret(artifact, tensors)
    assert report.ok, report.findings
    return [report.outputs[n] for n in outputs]


@pytest.mark.parametrize("name", CASES)
def test_interpreted_result_is_the_oracles(name):
    kernel, make = CASES[name]
    torch.manual_seed(0)
    args = make()
    exact = kernel.reference(*args)
    for got, want in zip(interpreted(kernel.plan(*args, target=by_name("sm_90")), args), exact if isinstance(exact, tuple) else (exact,)):
        tolerance = 2e-3 if got.dtype == np.float16 else 2e-6
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=tolerance * max(np.max(np.abs(want)), 1))


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_spills(name, target):
    kernel, make = CASES[name]
    made = kernel.compile(target, *make())
    assert made.launchable and not made.spills, made
    assert all(made.code) and made.assembly and len(made.kernels) == len(made.artifact.kernels)
    assert bool(made.ptx) == target.startswith("sm_")


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_low_precision_products_use_the_matrix_unit(target):
    made = brain_product.compile(target, torch.empty(512, 256, dtype=torch.bfloat16), torch.empty(256, 384, dtype=torch.bfloat16))
    assert made.kernels[0].resources.matrix_instructions > 0
    assert not made.spills


def test_source_reads_well():
    text = softmax.source("sm_90", torch.empty(37, 50))
    assert "# softmax: grid (" in text and "@triton.jit" in text and "tl.sum(" in text
    assert "mask=" not in chain.source("sm_90", torch.empty(64, 2048), torch.empty(2048))


def test_meta_tensors_are_enough():
    args = (torch.empty(50, 37, device="meta"), torch.empty(37, 70, device="meta"), torch.empty(70, device="meta"))
    assert "tl.dot" in matmul_bias_gelu.source("sm_80", *args)


def test_report_is_text_and_json():
    made = chain.compile("sm_80", torch.empty(37, 50), torch.empty(50))
    assert "registers" in str(made) and '"target": "sm_80"' in made.to_json()


def test_a_cpu_is_not_a_gpu():
    with pytest.raises(TargetError, match="x86-64 is a CPU"):
        triton_artifact(chain.plan(torch.empty(37, 50), torch.empty(50), target=by_name("x86-64")))


@pytest.mark.parametrize("name", ["matmul + bias + gelu", "softmax", "layer norm", "column extremes"])
def test_every_decision_gives_the_same_result(name):
    kernel, make = CASES[name]
    torch.manual_seed(0)
    args = make()
    plan = kernel.plan(*args, target=by_name("sm_80"))
    want = interpreted(plan, args)
    for choice in plan.decisions.made.values():
        for value in choice.options[1:3]:
            other = Plan(type(plan.request)(**(vars(plan.request) | {"decisions": {choice.name: value}})))
            for a, b in zip(interpreted(other, args), want):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_compilation_of_a_plan():
    assert GpuCompilation(chain.plan(torch.empty(3, 5), torch.empty(5), target=by_name("gfx942"))).target.name == "gfx942"


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_programs(seed):
    case = random_case(seed, symbolic=False)
    got = interpreted(Kernel.of(case.program).plan(*case.arrays, target=by_name("sm_80")), case.arrays)
    for g, want in zip(got, evaluate(case.program, *case.arrays), strict=True):
        finite = np.abs(want[np.isfinite(want)])
        np.testing.assert_allclose(g, want, rtol=1e-4, atol=1e-4 * max(1.0, finite.max(initial=0.0)))


def test_attention_is_two_dots_in_one_loop():
    kernel, make = CASES["attention"]
    text = kernel.source("sm_90", *make())
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("    for s_b in "))
    body = "\n".join(itertools.takewhile(lambda line: line.startswith("        "), lines[first + 1:]))
    assert body.count("tl.dot(") == 2 and body.count("tl.exp(") == 2 and "tl.load(" in body and "tl.store(" not in body
    assert kernel.explain(*make(), target=by_name("sm_90")).count("rolling") == 2


B, H, M, N, D = dlc.dims("B H M N D")


@dlc.kernel
def low_attention(q: bf16[B, H, M, D], k: bf16[B, H, N, D], v: bf16[B, H, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v)


@dlc.kernel
def low_normed_product(x: bf16[M, D], g: bf16[D], w: bf16[N, D]):
    return dlc.rms_norm(x, (D,), g) @ w.T


@dlc.kernel
def normed_product(x: f32[M, D], g: f32[D], w: f32[N, D]):
    return dlc.layer_norm(x, (D,), g) @ w.T


def low(*shape, device=None):
    return torch.empty(shape, device=device, dtype=torch.bfloat16) if device else torch.randn(shape).bfloat16()


def test_both_products_of_low_precision_attention_use_the_matrix_unit():
    text = low_attention.source("sm_90", *(low(2, 4, 256, 64, device="meta") for _ in range(3)))
    assert text.count("tl.dot(") == 2 and "ieee" not in text and ".to(tl.bfloat16), v_tile" in text


@pytest.mark.parametrize("depth", [64, 128, 256])
@pytest.mark.parametrize("target", GPUS)
def test_low_precision_attention_compiles_without_spills(target, depth):
    made = low_attention.compile(target, *(low(2, 4, 512, depth, device="meta") for _ in range(3)))
    assert made.launchable and not made.spills, made


@pytest.mark.parametrize("target", GPUS)
def test_a_norm_beside_a_product_compiles_without_spills(target):
    made = low_normed_product.compile(target, low(32768, 512, device="meta"), low(512, device="meta"), low(128, 512, device="meta"))
    assert len(made.kernels) == 1 and made.launchable and not made.spills, made


def test_a_norm_beside_a_product_in_the_interpreter():
    torch.manual_seed(0)
    for kernel, args, rtol in ((low_normed_product, (low(70, 100), low(100), low(40, 100)), 8e-3),
                               (normed_product, (torch.randn(70, 100), torch.rand(100), torch.randn(40, 100)), 1e-5)):
        k = Kernel(kernel.fn)
        k.decisions = {"mean_sum.pass": "one", "mean_sum.block": 32, "mean_sum.parts": 1}
        (got,) = interpreted(k.plan(*args, target=by_name("sm_80")), args)
        want = k.reference(*args)
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=rtol, atol=rtol * np.abs(want).max())


def test_long_rows_are_read_once():
    torch.manual_seed(0)
    kernel = Kernel(cross_entropy.fn)
    args = torch.randn(6, 300) * 4, torch.randint(0, 300, (6,))
    kernel.decisions = {"lse.pass": "one", "lse.block": 64, "logsumexp.pass": "one", "logsumexp.block": 64}
    plan = kernel.plan(*args, target=by_name("sm_90"))
    assert any(s.kind == "roll" for s in plan.nest.stages)
    np.testing.assert_allclose(interpreted(plan, args)[0], kernel.reference(*args), rtol=2e-6)


@dlc.kernel
def noise(x: f32[M, N]):
    return dlc.mean(x + dlc.randn(5, (M, N)))


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_sums_of_long_formulas_compile_without_spills(target):
    made = noise.compile(target, torch.empty(200, 300, device="meta"))
    assert made.launchable and not made.spills, made
