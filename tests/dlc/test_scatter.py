"""Gradients of gathers, and scatters written out, beside torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import dlc
from codegen.target import TARGETS, by_name
from codegen.tile.text import show
from codegen.tile.text_parse import parse
from codegen.tile.verify import verify
from dlc import bf16, f16, f32, f64, i32, i64
from dlc.compiler import Plan
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.triton_run import interpret

B, C, D, H, K, V = dlc.dims("B C D H K V")
F = torch.nn.functional


def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)


def seeks(kernel: dlc.Kernel, *args: torch.Tensor) -> bool:
    return "# seek" in str(kernel.schedule("cpu", *args))


def grads(fn, x: torch.Tensor, *rest: torch.Tensor, g: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A cubic of the result, so that there is a second derivative."""
    x = x.clone().requires_grad_()
    y = fn(x, *rest)
    (first,) = torch.autograd.grad((y * y * y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum(), x)
    return first, second


@dlc.kernel
def select(x: f32[V, D], i: i64[B]):
    return dlc.compute((B, D), lambda b, d: x[i[b], d])


@dlc.kernel
def select_i32(x: f32[V, D], i: i32[B]):
    return dlc.compute((B, D), lambda b, d: x[i[b], d])


@dlc.kernel
def padded(x: f32[V, D], i: i64[B, K]):
    return dlc.embedding(i, x, padding_idx=2)


@dlc.kernel
def added(x: f32[V, D], i: i64[B, K], p: f32[K, D]):
    return dlc.tanh(dlc.embedding(i, x) * 2.0 + p)


@dlc.kernel
def clamped(x: f32[V, D], i: i64[B]):
    return dlc.compute((B, D), lambda b, d: x[dlc.clamp(i[b], 0, V - 1), d])


@dlc.kernel
def along0(x: f32[V, D], i: i64[K, D]):
    return dlc.take_along_dim(x, i, 0)


@dlc.kernel
def along1(x: f32[B, V, D], i: i64[B, K, D]):
    return dlc.take_along_dim(x, i, 1)


@dlc.kernel
def along_broadcast(x: f32[B, V, D], i: i64[B, K, 1]):
    return dlc.take_along_dim(x, i, 1)


@dlc.kernel
def last(x: f32[B, V], i: i64[B, K]):
    return dlc.gather(x, 1, i)


@dlc.kernel
def columns(x: f32[B, V], i: i64[K]):
    return dlc.index_select(x, 1, i)


@dlc.kernel
def flat(x: f32[V, D], i: i64[B]):
    return dlc.take(x, i)


@dlc.kernel
def two(x: f32[V, D], i: i64[B], j: i64[B]):
    return dlc.compute((B,), lambda b: x[i[b], j[b]])


@dlc.kernel
def twice(x: f32[V, D], i: i64[B], j: i64[V]):
    return dlc.compute((B, D), lambda b, d: x[j[i[b]], d] + x[i[b], d])


CASES = {
    "rows": (select, lambda x, i: x[i], (normal(60, 33), integers(0, 60, 90))),
    "rows, i32": (select_i32, lambda x, i: x[i.long()], (normal(60, 33), integers(0, 60, 90, dtype=torch.int32))),
    "rows, all the same": (select, lambda x, i: x[i], (normal(60, 33), torch.full((90,), 7))),
    "rows, many": (select, lambda x, i: x[i], (normal(40, 24), integers(0, 40, 20_000))),
    "padding": (padded, lambda x, i: F.embedding(i, x, padding_idx=2), (normal(60, 33), integers(0, 9, 5, 7))),
    "positions": (added, lambda x, i, p: torch.tanh(F.embedding(i, x) * 2 + p), (normal(60, 33), integers(0, 60, 5, 7), normal(7, 33))),
    "clamped": (clamped, lambda x, i: x[i.clamp(0, x.shape[0] - 1)], (normal(60, 33), integers(-20, 90, 90))),
    "along 0": (along0, lambda x, i: torch.take_along_dim(x, i, 0), (normal(70, 33), integers(-70, 70, 20, 33))),
    "along 1": (along1, lambda x, i: torch.take_along_dim(x, i, 1), (normal(3, 70, 9), integers(-70, 70, 3, 20, 9))),
    "along 1, broadcast": (along_broadcast, lambda x, i: torch.take_along_dim(x, i, 1), (normal(3, 70, 9), integers(0, 70, 3, 20, 1))),
    "gather": (last, lambda x, i: torch.gather(x, 1, i), (normal(5, 70), integers(0, 70, 5, 90))),
    "columns": (columns, lambda x, i: x[:, i], (normal(5, 70), integers(0, 70, 90))),
    "flat": (flat, torch.take, (normal(9, 33), integers(-297, 297, 400))),
    "pairs": (two, lambda x, i, j: x[i, j], (normal(9, 33), integers(0, 9, 400), integers(0, 33, 400))),
    "indices of indices": (twice, lambda x, i, j: x[j[i]] + x[i], (normal(60, 33), integers(0, 60, 90), integers(0, 60, 60))),
}


@pytest.mark.parametrize("name", CASES)
def test_first_and_second_derivative(name: str) -> None:
    kernel, fn, args = CASES[name]
    given = dict(zip((t.name for t in kernel.program.inputs), args))
    assert seeks(kernel.vjp, *(given.get(t.name, fn(*args)) for t in kernel.vjp.program.inputs))
    for got, want in zip(grads(kernel, *args), grads(fn, *args)):
        torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-4)


@pytest.mark.parametrize(("dtype", "named", "tolerance"), [
    (torch.float64, f64, 1e-12), (torch.bfloat16, bf16, 0.02), (torch.float16, f16, 0.004)], ids=["f64", "bf16", "f16"])
def test_dtypes(dtype: torch.dtype, named, tolerance: float) -> None:
    """Low floats are added up in f32 and rounded once."""
    @dlc.kernel
    def rows(x: named[V, D], i: i64[B]):
        return dlc.compute((B, D), lambda b, d: x[i[b], d])

    x, i, g = normal(60, 33, dtype=dtype).requires_grad_(), integers(0, 60, 400), normal(400, 33, dtype=dtype)
    assert seeks(rows.vjp, x, i, g)
    (got,) = torch.autograd.grad(rows(x, i), x, g)
    want = torch.zeros(60, 33, dtype=torch.float64).index_add_(0, i, g.double())
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(60, 33, 0), (60, 0, 90), (0, 33, 0), (1, 33, 90), (60, 1, 1)], ids=str)
def test_sizes_of_zero_and_one(shape: tuple[int, int, int]) -> None:
    v, d, n = shape
    x, i = normal(v, d), integers(0, max(v, 1), n)
    for got, want in zip(grads(select, x, i), grads(lambda x, i: x[i], x, i)):
        torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-4)


def test_what_is_not_a_number_stays_in_its_row() -> None:
    x, i, g = normal(60, 33).requires_grad_(), integers(0, 60, 90), normal(90, 33)
    g[5, 3], g[6, 4] = float("nan"), float("inf")
    (got,) = torch.autograd.grad(select(x, i), x, g)
    (want,) = torch.autograd.grad(x[i], x, g)
    torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("name", ["rows", "rows, many", "along 0", "gather", "pairs"])
def test_bits_of_any_number_of_threads(name: str) -> None:
    kernel, fn, args = CASES[name]
    g = normal(*fn(*args).shape)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(kernel.vjp(*args, g))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(r, results[0]) for r in results)


# -- written out ---------------------------------------------------------------------------------------------------
@dlc.kernel
def histogram(i: i64[K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((100,), lambda r: dlc.sum(dlc.cast(i[k] == r, i64), k))


@dlc.kernel
def segments(x: f32[K, D], i: i64[K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((100, D), lambda r, d: dlc.sum(dlc.where(i[k] == r, x[k, d], 0.0), k))


@dlc.kernel
def highest(x: f32[K, D], i: i64[K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((100, D), lambda r, d: dlc.max(dlc.where(i[k] == r, x[k, d], -float("inf")), k))


@dlc.kernel
def weighted(x: f32[K, D], w: f32[K], m: f32[K], i: i64[K]):
    k = dlc.reduce_axis(K)

    def body(r, d):
        return 2.0 * dlc.sum(dlc.where(m[k] > 0.0, dlc.where(i[k] == r, dlc.exp(x[k, d]) * w[k], 0.0), 0.0), k)
    return dlc.compute((100, D), body)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("n", [1, 300, 40_000])
def test_written_out(n: int) -> None:
    x, i, w, m = normal(n, 17), integers(-3, 103, n), normal(n), normal(n) - 0.2
    inside = (i >= 0) & (i < 100)
    assert seeks(histogram, i) and seeks(segments, x, i) and seeks(highest, x, i) and seeks(weighted, x, w, m, i)
    assert torch.equal(histogram(i), torch.bincount(i[inside], minlength=100))
    sums = torch.zeros(100, 17).index_add_(0, i[inside], x[inside])
    torch.testing.assert_close(segments(x, i), sums, rtol=1e-4, atol=1e-4)
    most = torch.full((100, 17), -float("inf")).index_reduce_(0, i[inside], x[inside], "amax")
    assert torch.equal(highest(x, i), most)
    kept = inside & (m > 0)
    want = 2 * torch.zeros(100, 17).index_add_(0, i[kept], x[kept].exp() * w[kept, None])
    torch.testing.assert_close(weighted(x, w, m, i), want, rtol=1e-4, atol=1e-3)


def test_the_derivative_of_a_scatter() -> None:
    x, i = normal(300, 17), integers(0, 100, 300)

    def fn(x, i):
        return torch.zeros(100, 17).index_add(0, i, x)
    for got, want in zip(grads(segments, x, i), grads(fn, x, i)):
        torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-3)


# -- on a GPU ------------------------------------------------------------------------------------------------------
GPU = {
    "rows": (select.vjp, (normal(60, 40), integers(0, 60, 150), normal(150, 40))),
    "rows, i32": (select_i32.vjp, (normal(60, 40), integers(0, 60, 150, dtype=torch.int32), normal(150, 40))),
    "segments": (segments, (normal(150, 40), integers(-3, 103, 150))),
    "greatest": (highest, (normal(150, 40), integers(-3, 103, 150))),
    "several columns of indices": (padded.vjp, (normal(60, 33), integers(0, 60, 5, 30), normal(5, 30, 33))),
}


def small_gpu(kernel: dlc.Kernel, args: tuple[torch.Tensor, ...]):
    """A plan for a GPU so small that the arrays at hand occupy it, that seeks whether it pays or not."""
    plan = kernel.plan(*args, target=replace(by_name("sm_90"), threads=1))
    assert plan.nest.stages
    return Plan(replace(plan.request, decisions={name: True for name in plan.decisions.made if name.endswith(".seek")}))


@pytest.mark.parametrize("name", GPU)
def test_in_the_checked_interpreter(name: str) -> None:
    kernel, args = GPU[name]
    plan = small_gpu(kernel, args)
    assert " in seek(" in show(plan.tile) and "if guard([], conds=[" in show(plan.tile)
    verify(plan.tile)
    assert show(parse(show(plan.tile, places=False)), places=False) == show(plan.tile, places=False)
    artifact = triton_artifact(plan)
    inputs, outputs = parameter_names(plan)
    tensors = dict(zip(inputs, args)) | {n: torch.full([int(n) for n in t.shape], 7.0) for n, t in zip(outputs, plan.program.outputs)}
    report = interpret(artifact, tensors)
    assert report.ok, report.findings
    (got,) = (torch.as_tensor(report.outputs[n]) for n in outputs)
    assert torch.equal(got, kernel(*args))  # the order of the terms, so the bits of a CPU


@pytest.mark.parametrize("target", [t.name for t in TARGETS.values() if t.kind != "cpu"])
def test_compiles_for_a_gpu(target: str) -> None:
    table, i, g = (torch.empty(s, device="meta", dtype=d) for s, d in (
        ((50_000, 256), torch.float32), ((4096,), torch.int64), ((4096, 256), torch.float32)))
    assert "# seek" in str(select.vjp.schedule(target, table, i, g))
    made = select.vjp.compile(target, table, i, g)
    assert made.launchable and not made.spills, made


def test_few_comparisons_stay_dense_on_a_gpu() -> None:
    assert "# seek" not in str(select.vjp.schedule("sm_90", normal(60, 40), integers(0, 60, 150), normal(150, 40)))
    assert "# seek" not in str(last.vjp.schedule("sm_90", normal(64, 1000), integers(0, 1000, 64, 100), normal(64, 100)))
