"""Backward kernels in one loop over blocks of a matrix that is never stored: against float64, ragged, masked, on CPUs and for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlc
from codegen.heuristics import pick_again
from dlc import bf16, f32, i64
from dlc.kernel import Kernel
from dsl.cascade import derive
from dsl.derivative import forward_with_saves, vjp

B, H, M, N, D, E = dlc.dims("B H M N D E")
NEG = float("-inf")


def plain(q: f32[M, D], k: f32[N, D], v: f32[N, E]):
    return dlc.scaled_dot_product_attention(q, k, v)


def causal(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D], m: dlc.bool_[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, m)


def biased(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D], m: f32[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, m)


def grouped(q: f32[B, 6, M, D], k: f32[B, 2, N, D], v: f32[B, 2, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def capped(q: f32[M, D], k: f32[N, D], v: f32[N, E]):
    return dlc.softmax(20.0 * dlc.tanh(q @ k.T * 0.015)) @ v


def window(q: f32[H, M, D], k: f32[H, N, D], v: f32[H, N, D]):
    r = dlc.reduce_axis(D)
    s = dlc.compute((H, M, N), lambda h, i, j: dlc.where((j <= i) & (j + 30 > i), dlc.sum(q[h, i, r] * k[h, j, r], r) * 0.3, NEG))
    return dlc.softmax(s) @ v


def alibi(q: f32[H, M, D], k: f32[H, N, D], v: f32[H, N, D], slope: f32[H]):
    r = dlc.reduce_axis(D)
    s = dlc.compute((H, M, N), lambda h, i, j: dlc.where(j <= i, dlc.sum(q[h, i, r] * k[h, j, r], r) * 0.3 + slope[h] * (j - i), NEG))
    return dlc.softmax(s) @ v


def documents(q: f32[M, D], k: f32[N, D], v: f32[N, E], a: i64[M], b: i64[N]):
    r = dlc.reduce_axis(D)
    s = dlc.compute((M, N), lambda i, j: dlc.where(a[i] == b[j], dlc.sum(q[i, r] * k[j, r], r) * 0.3, NEG))
    return dlc.softmax(s) @ v


def projected_cross_entropy(h: f32[M, D], w: f32[N, D], t: i64[M]):
    logits = h @ w.T
    lse = dlc.logsumexp(logits, axis=-1)
    return dlc.compute((M,), lambda i: lse[i] - logits[i, t[i]])


def r(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


def stacks(m: int = 70, n: int = 90, heads: int = 2) -> tuple[torch.Tensor, ...]:
    return r(2, heads, m, 16), r(2, heads, n, 16), r(2, heads, n, 16)


CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "plain": (plain, lambda: (r(70, 16), r(90, 16), r(90, 24))),
    "causal": (causal, stacks),
    "masked": (masked, lambda: (*stacks(), (torch.rand(70, 90) > 0.5) & (torch.arange(70) != 7)[:, None])),
    "biased": (biased, lambda: (*stacks(), r(70, 90))),
    "grouped heads": (grouped, lambda: (r(2, 6, 70, 16), r(2, 2, 90, 16), r(2, 2, 90, 16))),
    "soft-capped": (capped, lambda: (r(70, 16), r(90, 16), r(90, 16))),
    "window": (window, lambda: (r(3, 100, 16), r(3, 100, 16), r(3, 100, 16))),
    "alibi": (alibi, lambda: (r(3, 100, 16), r(3, 100, 16), r(3, 100, 16), torch.tensor([0.5, 0.25, 0.125]))),
    "documents": (documents, lambda: (r(70, 16), r(90, 16), r(90, 24), torch.arange(70) // 20, torch.arange(90) // 20)),
    "cross-entropy of a projection": (projected_cross_entropy, lambda: (r(70, 16), r(500, 16), torch.randint(0, 500, (70,)))),
}


def backward_of(fn: Callable[..., Any], args: tuple[Any, ...], saved: tuple[str, ...] = ()) -> tuple[Kernel, list[Any]]:
    """The backward by everything but masks, and its arguments."""
    forward = dlc.kernel(fn)
    wrt = [t.name for t in forward.program.inputs if t.dtype.is_float and t.name != "m"]
    back = Kernel.of(vjp(forward.program, wrt, saved))
    values = dict(zip((t.name for t in forward.program.inputs), args))
    if saved:
        with_saves = Kernel.of(forward_with_saves(forward.program, saved))
        values |= dict(zip((t.name for t in with_saves.program.outputs), with_saves(*args)))
    out = forward(*args)
    return back, [values[t.name] if t.name in values else torch.randn_like(out) for t in back.program.inputs]


def one_pass(k: Kernel, args: list[Any], block: int = 32, along: bool = False) -> int:
    """Every chain and product in a loop over blocks, both directions of a matrix in one or each in its own; how many loops there are."""
    found = derive(pick_again(k.plan(*args).unscheduled)).cascades
    wanted = (("pass", "one"), ("block", block), ("along", along))
    k.decisions = {f"{c.components[0].stage}.{name}": value for c in found for name, value in wanted}
    return sum(s.kind == "roll" for s in k.plan(*args).nest.stages)


def largest_kept(k: Kernel, args: list[Any]) -> int:
    tile = k.plan(*args).tile
    kept = [b for b in (*tile.buffers, *(b for p in tile.phases for b in p.scratch)) if b.scope in ("workspace", "scratch")]
    return max(int(np.prod([s.const for s in b.shape])) for b in kept)


@pytest.mark.parametrize("name", CASES)
def test_on_this_cpu(name: str) -> None:
    torch.manual_seed(0)
    fn, make = CASES[name]
    k, args = backward_of(fn, make())
    assert one_pass(k, args) == (2 if "cross" in name else 3)
    for got, want in zip(k(*args), k.reference(*args)):
        assert np.isfinite(want).all()
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * abs(want).max())


def test_nothing_of_the_size_of_the_scores_is_kept() -> None:
    torch.manual_seed(0)
    k, args = backward_of(plain, (r(500, 16), r(450, 16), r(450, 16)), ("top", "total", "attention"))
    assert one_pass(k, args) == 2
    assert largest_kept(k, args) < 500 * 450 / 4
    for got, want in zip(k(*args), k.reference(*args)):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * abs(want).max())


def test_long_rows_are_recomputed_by_themselves() -> None:
    q = torch.empty(1 << 14, 64)
    assert dlc.kernel(plain).vjp.explain(q, q, q, q).count("one pass: ") == 3
    short = torch.empty(128, 64)
    assert dlc.kernel(plain).vjp.explain(short, short, short, short).count("is kept") == 2


@pytest.mark.parametrize("fn", [causal, masked, grouped])
def test_long_heads_keep_no_scores(fn: Callable[..., Any]) -> None:
    """By the default schedule of the backward that makes the statistics anew."""
    n, heads = 4096, 6 if fn is grouped else 2
    shapes = [(1, heads, n, 64), *[(1, 2, n, 64)] * 2]
    args = [torch.empty(s, device="meta") for s in shapes] + ([torch.empty(n, n, device="meta", dtype=torch.bool)] if fn is masked else [])
    k = dlc.kernel(fn)
    named = dict(zip((t.name for t in k.program.inputs), args))
    assert largest_kept(k.vjp, [named.get(t.name, args[0]) for t in k.vjp.program.inputs]) < n * n


def test_blocks_that_a_mask_leaves_nothing_of_are_not_run() -> None:
    k, args = backward_of(causal, stacks(heads=1))
    one_pass(k, args)
    hosts = [s for s in k.plan(*args).nest.stages if s.kind == "roll"]
    assert all(len(s.notes["guards"]) == 2 for s in hosts), [s.notes for s in hosts]


def test_ragged_blocks_of_rows_under_a_mask() -> None:
    torch.manual_seed(0)
    k, args = backward_of(causal, tuple(r(1, 1, 512, 16) for _ in range(3)), ("top", "total", "attention"))
    one_pass(k, args, 256)
    for got, want in zip(k(*args), k.reference(*args)):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * abs(want).max())


def test_a_row_that_sees_nothing_has_no_gradient() -> None:
    torch.manual_seed(0)
    args = (r(2, 150, 8), r(2, 100, 8), r(2, 100, 8))
    k, args = backward_of(window, args)
    one_pass(k, args)
    d_q, d_k, d_v = k(*args)
    assert all(torch.isfinite(d).all() for d in (d_q, d_k, d_v)) and not d_q[:, 129:].any() and d_q[:, :129].any()


def test_runs_repeat_every_bit() -> None:
    torch.manual_seed(0)
    k, args = backward_of(causal, stacks(heads=1))
    one_pass(k, args)
    first = k(*args)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(k(*args), first))


def test_statistics_of_a_low_dtype_are_saved_as_they_are_held() -> None:
    def low(q: bf16[M, D], k: bf16[N, D], v: bf16[N, D]):
        return dlc.scaled_dot_product_attention(q, k, v)

    torch.manual_seed(0)
    args = tuple((r(n, 16) * 3).bfloat16() for n in (40, 60, 60))
    k, given = backward_of(low, args, ("top", "total", "attention"))
    assert {t.name: t.dtype.name for t in k.program.inputs}["total"] == "f32"
    exact, values = backward_of(low, args)
    values[-1] = given[-1]
    for got, want in zip(k(*given), exact.reference(*values)):
        assert abs(got.float().numpy() - want).max() < 0.02 * abs(want).max()


# -- GPUs that are not here --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["causal", "grouped heads"])
def test_in_the_checked_interpreter(name: str) -> None:
    torch.manual_seed(0)
    fn, make = CASES[name]
    k, args = backward_of(fn, tuple(a[:1, :, :40].contiguous() for a in make()))
    one_pass(k, args)
    seen = dlc.emulate(k, *args, target="gfx942")
    assert seen.ok, seen


def low_causal(q: bf16[B, H, M, D], k: bf16[B, H, N, D], v: bf16[B, H, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


GPU = [(low_causal, "gfx942", 64),
       *(pytest.param(fn, target, d, marks=pytest.mark.slow) for fn in (causal, low_causal) for d in (64, 128)
         for target in ("sm_80", "sm_90", "sm_100", "gfx942"))]


@pytest.mark.parametrize("fn,target,d", GPU)
def test_compiles_without_spills(fn: Callable[..., Any], target: str, d: int) -> None:
    k = Kernel.of(vjp(dlc.kernel(fn).program, None, ("top", "total", "attention")))
    low = torch.bfloat16 if fn is low_causal else torch.float32
    args = [torch.empty(2, 4, 2048, d, device="meta", dtype=low) if t.ndim == 4 else torch.empty(2, 4, 2048, device="meta")
            for t in k.program.inputs]
    made = k.compile(target, *args)
    assert made.launchable and not made.spills, made
    source = k.source(target, *args)
    assert source.count("tl.dot(") >= 7, source
