"""The instruction that a product gets: by its dtypes, its sizes, the target, and how the factors lie."""

import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import bf16, f16, f32
from dlc.compiler import Plan
from tests.codegen.products import K, M, N, instructions


def product(dtype):
    @dlc.kernel
    def low(x: dtype[M, K], w: dtype[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(dlc.cast(x[i, k], f32) * w[k, j], k))
    return low


def plan(target, dtype=bf16, size=(64, 64, 64), **views):
    m, n, k = size
    t = {bf16: torch.bfloat16, f16: torch.float16, f32: torch.float32}[dtype]
    x, w = views.get("x", torch.empty(m, k, dtype=t)), views.get("w", torch.empty(k, n, dtype=t))
    return Plan(product(dtype).plan(x, w).request.on(by_name(target)))


@pytest.mark.parametrize("target, dtype, size, name", [
    ("x86-64-amx", bf16, (64, 64, 64), "tdpbf16ps"), ("x86-64-amx", bf16, (64, 64, 4), "vdpbf16ps"),
    ("x86-64-amx", f16, (64, 64, 64), None),
    ("x86-64-amx-fp16", f16, (64, 64, 64), "tdpfp16ps"), ("x86-64-avx512-bf16", bf16, (64, 64, 64), "vdpbf16ps"),
    ("x86-64-amx", bf16, (3, 64, 64), "vdpbf16ps"), ("x86-64-amx", bf16, (64, 64, 1), None), ("x86-64-avx512", bf16, (64, 64, 64), None),
    ("x86-64-avx2", bf16, (64, 64, 64), None), ("aarch64-neon", bf16, (64, 64, 64), None), ("x86-64-amx", f32, (64, 64, 64), None),
])
def test_by_dtype_size_and_target(target, dtype, size, name):
    assert instructions(plan(target, dtype, size)) == ({name} if name else set())


def test_every_instruction_is_a_choice_and_none_is_too():
    p = plan("x86-64-amx")
    assert p.nest
    (made,) = (c for n, c in p.decisions.made.items() if n.endswith(".instruction"))
    assert made.options == ("tdpbf16ps", "", "vdpbf16ps")


def test_a_sum_that_is_no_multiple_of_the_terms_runs_on_over_zeros():
    for target, k, whole in [("x86-64-amx", 67, 96), ("x86-64-avx512-bf16", 67, 68), ("x86-64-amx", 64, 64), ("x86-64-amx", 20, 20)]:
        p = plan(target, size=(64, 64, k))
        (heavy,) = (s for s in p.nest.stages if s.kind == "reduce")
        assert int(heavy.bound[0].extent) == whole
        own = ".padded" if whole != k else ""
        assert {s.name for s in p.nest.stages} == {"t", f"x{own}.packed", f"w{own}.packed"}


def test_factors_in_which_nothing_is_near_are_packed_one_by_one():
    base = torch.empty(64, 64, 64, dtype=torch.bfloat16)
    assert instructions(plan("x86-64-amx", x=base[:, :, 0], w=base[:, :, 1])) == {"tdpbf16ps"}
