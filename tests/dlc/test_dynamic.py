"""One kernel for every value of some sizes.

Symbolic extents and strides on the CPU and on GPUs, against the oracle at sizes it was not made for.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import torch

import dlc
from codegen.target import by_name
from codegen.tile.text import show
from dlc import bf16, f32
from dlc.compiler import Plan
from dlc.gpu import parameter_names, triton_artifact
from dlc.kernel import Kernel
from dlc.runtime.arguments import give_back, torch_dtype
from dlc.runtime.cpu import load_object
from dlc.runtime.triton_run import interpret
from dsl.bind import bind_sizes
from dsl.interp import evaluate
from tests.dlc import gpu_cases
from tests.strategies import random_case

M, N, K = dlc.dims("M N K")
CASES = ["chain of views", "transposed", "matmul + bias + gelu", "f16 product", "softmax", "softmax down", "layer norm", "total", "argmax",
         "strided padded conv2d", "gather", "backward of a linear layer"]


def dynamic(kernel: Kernel, args, names=None, target: str = "") -> Plan:
    """A plan in which the named sizes (all of them when None) are symbolic."""
    request = kernel.plan(*args, target=by_name(target) if target else None).request
    return Plan(replace(request, dynamic=frozenset(v.name for v in kernel.program.dims) if names is None else frozenset(names)))


def call(plan: Plan, args) -> list[torch.Tensor]:
    """Run a plan's machine code: pointers, then the sizes, in one array."""
    sizes = plan.sizes_for([a.shape for a in args], [a.stride() for a in args])
    assert sizes is not None
    values = dict(zip(plan.tile.sizes, sizes))
    dims = bind_sizes(plan.program, [a.shape for a in args])
    outs = [torch.full([int(s.eval(dims)) for s in t.shape], 99, dtype=torch_dtype(t.dtype)) for t in plan.program.outputs]
    spaces = [torch.full([int(s.eval(values)) for s in b.shape], 77, dtype=torch_dtype(b.dtype)) for b in plan.module.workspaces]
    pointers = [t.data_ptr() for t in (*args, *outs, *spaces)]
    scratch = torch.empty(2 * int(plan.module.scratch.eval(values)) + 64, dtype=torch.uint8)
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        load_object(plan.object_code, plan.request.target, plan.module.entry))
    assert entry((ctypes.c_int64 * (len(pointers) + len(sizes)))(*pointers, *sizes), scratch.data_ptr(), 2) == 0
    return outs


def agree(got, want, tolerance: float) -> None:
    for g, w in zip(got, want, strict=True):
        w = np.asarray(give_back(w, True) if isinstance(w, torch.Tensor) else w).astype(np.float64)
        finite = np.abs(w[np.isfinite(w)])
        assert tuple(g.shape) == w.shape
        np.testing.assert_allclose(g.double().numpy(), w, rtol=tolerance, atol=tolerance * max(1.0, finite.max(initial=0.0)))


def resized(kernel: Kernel, args, rng: np.random.Generator):
    """Arguments like ``args`` for other sizes: small, odd and one."""
    old = bind_sizes(kernel.program, [a.shape for a in args])
    new = {v: int(rng.choice([1, 2, 3, 5, 8, 17, 33])) for v in old}
    out = []
    for t, a in zip(kernel.program.inputs, args):
        shape = [int(s.eval(new)) for s in t.shape]
        out.append(torch.randint(0, 1, shape).to(a.dtype) if t.dtype.is_int else torch.from_numpy(rng.standard_normal(shape)).to(a.dtype))
    return out


@pytest.mark.parametrize("name", CASES)
def test_one_kernel_for_all_sizes(name: str, rng: np.random.Generator) -> None:
    kernel, make = gpu_cases.CASES[name]
    args = make()
    plan = dynamic(kernel, args)
    assert not plan.made.notes
    tolerance = 3e-3 if "f16" in name else 1e-4
    agree(call(plan, args), evaluate(kernel.program, *(a.numpy() for a in args)), tolerance)
    if "views" in name or "backward" in name:
        return
    for _ in range(3):
        others = resized(kernel, args, rng)
        agree(call(plan, others), evaluate(kernel.program, *(a.numpy() for a in others)), tolerance)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_programs(seed: int, rng: np.random.Generator) -> None:
    case = random_case(seed, dtypes=(f32, bf16) if seed % 3 == 0 else (f32,))
    kernel = Kernel.of(case.program)
    args = [torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype.name == "bfloat16" else torch.from_numpy(a)
            for a in case.arrays]
    plan = dynamic(kernel, args)
    others = resized(kernel, args, rng)
    for given in (args, others):
        agree(call(plan, given), evaluate(case.program, *(give_back(a, True) for a in given)), 2e-2 if seed % 3 == 0 else 1e-4)


@pytest.mark.parametrize("name", ["chain", "matmul + bias + gelu", "softmax", "gather"])
def test_on_a_gpu(name: str, rng: np.random.Generator) -> None:
    kernel, make = gpu_cases.CASES[name]
    plan = dynamic(kernel, make(), target="sm_90")
    artifact = triton_artifact(plan)
    for args in (make(), resized(kernel, make(), rng)):
        sizes = plan.sizes_for([a.shape for a in args], [a.stride() for a in args])
        dims = bind_sizes(plan.program, [a.shape for a in args])
        inputs, outputs = parameter_names(plan)
        tensors = dict(zip(inputs, args)) | {n: torch.empty([int(s.eval(dims)) for s in t.shape], dtype=torch_dtype(t.dtype))
                                             for n, t in zip(outputs, plan.program.outputs)}
        if artifact.error:
            tensors[artifact.error] = torch.zeros(1, dtype=torch.int32)
        report = interpret(artifact, tensors, {v.name: n for v, n in zip(plan.tile.sizes, sizes)})
        assert report.ok, report.findings
        agree([torch.from_numpy(report.outputs[n]) for n in outputs], evaluate(kernel.program, *(a.numpy() for a in args)), 1e-4)


@dlc.kernel
def shifted(x: f32[M, N], y: f32[N]):
    return x + y


def test_some_sizes_stay_known() -> None:
    plan = dynamic(shifted, (torch.randn(5, 64), torch.randn(64)), {"M"})
    assert [v.name for v in plan.tile.sizes] == ["M"]
    assert "mask" not in show(plan.tile, False)
    x, y = torch.randn(77, 64), torch.randn(64)
    agree(call(plan, (x, y)), (x + y,), 1e-6)


def test_what_a_kernel_serves() -> None:
    plan = dynamic(shifted, (torch.randn(5, 48), torch.randn(48)), {"M"})
    assert plan.sizes_for([(9, 48), (48,)], [(48, 1), (1,)]) == (9,)
    assert plan.sizes_for([(9, 47), (47,)], [(47, 1), (1,)]) is None  # N is known
    assert plan.sizes_for([(0, 48), (48,)], [(48, 1), (1,)]) is None  # no symbolic size is zero
    assert plan.sizes_for([(9, 48), (48,)], [(96, 1), (1,)]) is None  # rows are taken to follow one another
    assert plan.sizes_for([(1, 48), (48,)], [(96, 1), (1,)]) == (1,)  # the stride of a single row does not matter


def test_strides_are_sizes_where_rows_do_not_follow() -> None:
    x, y = torch.randn(9, 96)[:, :48], torch.randn(48)
    plan = dynamic(shifted, (x, y), {"M"})
    assert [v.name for v in plan.tile.sizes] == ["M", "x_stride0"]
    agree(call(plan, (x, y)), (x + y,), 1e-6)
    wider = torch.randn(4, 200)[:, 3:51]
    agree(call(plan, (wider, y)), (wider + y,), 1e-6)


@dlc.kernel
def strided(x: f32[N, 3, M, 8], w: f32[5, 3, 3, 3]):
    return dlc.conv2d(x, w, stride=2, padding=1)


def test_sizes_that_are_one_when_they_begin_to_vary() -> None:
    w = torch.randn(5, 3, 3, 3)
    plan = dynamic(strided, (torch.randn(1, 3, 16, 8), w))
    for n, m in ((1, 16), (4, 3), (2, 1)):
        x = torch.randn(n, 3, m, 8)
        agree(call(plan, (x, w)), (torch.nn.functional.conv2d(x, w, stride=2, padding=1),), 1e-5)


def test_conditions_between_two_sizes_that_vary() -> None:
    """The loop over one ends where the condition could hold for the best point of the other, whose extent is unknown."""
    @dlc.kernel
    def lower(x: f32[N, N]):
        i, j = dlc.reduce_axis(N), dlc.reduce_axis(N)
        return dlc.sum(dlc.where(j >= i, x[j - i, i], 0.0), i, j)

    for n in (33, 1, 8, 40):
        x = torch.randn(n, n)
        run = dynamic(lower, (torch.zeros(33, 33),)).launcher()
        want = sum(x[:n - i, i].double().sum() for i in range(n))
        torch.testing.assert_close(run((x,))[0].double(), want, rtol=1e-4, atol=1e-4)


def test_empty_dimensions_beside_sizes_that_vary() -> None:
    """The strides of what is empty mean nothing: the kernel serves it whatever they are."""
    @dlc.kernel
    def beside(x: f32[M, 2 * N, M], y: f32[N]):
        i = dlc.reduce_axis(M)
        return dlc.compute((N,), lambda j: dlc.sum(x[i, j, i], i) + y[j])

    run = dynamic(beside, (torch.zeros(0, 8, 0), torch.zeros(4)), "N").launcher()
    for n in (4, 5):
        y = torch.randn(n)
        for x in (torch.zeros(0, 2 * n, 0), torch.zeros(3, 4 * n, 8)[:0, ::2, :0]):
            assert torch.equal(run((x, y))[0], y)


@pytest.mark.parametrize("sizes", [(20, 0), (0, 20), (0, 0), (1, 1), (1, 7), (7, 1)])
def test_reductions_over_nothing_and_over_one(sizes) -> None:
    @dlc.kernel
    def pair(x: f32[M, N], y: f32[N, M, N]):
        i, j, a, b, c = (dlc.reduce_axis(v) for v in (M, N, N, M, N))
        every = dlc.compute((M,), lambda r: dlc.sum(dlc.maximum(x[i, j], x[r, j]), i, j))
        rows = dlc.compute((M, 9), lambda r, s: x.sum() * dlc.tanh(dlc.max(y[c, b, a], a, b, c)) + dlc.sum(y[c, b, a] * r, a, b, c))
        return every, rows, dlc.sum(dlc.where(i < M, x[i, j], 1.0), i, j)

    m, n = sizes
    x, y = torch.randn(m, n), torch.randn(n, m, n)
    top = y.amax() if y.numel() else torch.tensor(-float("inf"))
    scaled = (x.sum() * top.tanh() + y.sum() * torch.arange(m)[:, None]).expand(m, 9)
    want = (torch.maximum(x[None], x[:, None]).sum((1, 2)), scaled, x.sum())
    for got, w in zip(pair(x, y), want):
        torch.testing.assert_close(got, w, rtol=1e-4, atol=1e-4)
