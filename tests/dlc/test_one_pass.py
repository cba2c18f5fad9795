"""Derived one-pass kernels on this CPU, from plain definitions: against float64, on ragged shapes, with rows that hold nothing."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlc
from dlc import f32, i64
from dlc.kernel import Kernel
from dsl.cascade import derive

B, H, G, M, N, D, C = dlc.dims("B H G M N D C")
NEG = float("-inf")


def forced(fn: Callable[..., Any], *args: Any, block: int = 64, **statics: Any) -> Kernel:
    """The kernel with every chain that has a one-pass form computed in it, in small blocks."""
    k = dlc.kernel(**statics)(fn)
    names = [c.components[0].stage for c in derive(k.plan(*args).unscheduled).cascades]
    assert names
    k.decisions = {f"{n}.pass": "one" for n in names} | {f"{n}.block": block for n in names}
    return k


def rolled(k: Kernel, *args: Any) -> int:
    return sum(1 for s in k.plan(*args).nest.stages if s.kind == "roll")


def check(k: Kernel, *args: Any, rtol: float = 2e-6, passes: int = 1) -> None:
    assert rolled(k, *args) == passes
    got, want = k(*args), k.reference(*args)
    for g, w in zip(*((got, want) if isinstance(got, tuple) else ((got,), (want,)))):
        np.testing.assert_allclose(np.asarray(g), w, rtol=rtol, atol=rtol * max(1.0, float(np.abs(w[np.isfinite(w)]).max(initial=0.0))))


# -- rows ----------------------------------------------------------------------------------------------------------
def softmax(x: f32[M, N]):
    return dlc.softmax(x)


def log_softmax(x: f32[M, N]):
    return dlc.log_softmax(x)


def entropy(x: f32[M, N]):
    return -dlc.sum(dlc.softmax(x) * dlc.log_softmax(x), axis=-1)


def layer_norm(x: f32[M, N]):
    return dlc.layer_norm(x)


def rms_norm_and_mean(x: f32[M, N]):
    return dlc.rms_norm(x) * dlc.mean(x, axis=-1, keepdims=True)


def moments(x: f32[M, N]):
    return dlc.mean(x, axis=-1), dlc.var(x, axis=-1)


def top(x: f32[M, N]):
    return dlc.max(x, axis=-1), dlc.argmax(x, axis=-1)


def temperature(x: f32[M, N]):
    return dlc.softmax(x * 0.125 + 3.0)


def covariance(x: f32[M, N]):
    dx = x - dlc.mean(x, axis=-1, keepdims=True)
    y = dlc.exp(x * 0.1)
    return dlc.mean(dx * (y - dlc.mean(y, axis=-1, keepdims=True)), axis=-1), dlc.mean(x, axis=-1)


def weighted_mean(x: f32[M, N]):
    return dlc.sum(dlc.softmax(x) * dlc.sin(x) * x, axis=-1)


def logsumexp(x: f32[M, N]):
    return dlc.logsumexp(x, axis=-1)


ROWS = [covariance, weighted_mean, logsumexp, softmax, log_softmax, entropy, layer_norm, rms_norm_and_mean, moments, top, temperature]


@pytest.mark.parametrize("fn", ROWS, ids=lambda f: f.__name__)
def test_rows(fn: Callable[..., Any]) -> None:
    x = torch.randn(5, 200, generator=torch.Generator().manual_seed(1)) * 4 + 2
    check(forced(fn, x), x)


@pytest.mark.parametrize("shape", [(3, 64), (2, 1001), (1, 1)])
def test_other_shapes(shape: tuple[int, int]) -> None:
    x = torch.randn(shape) * 4 + 2
    check(forced(softmax, x), x)


def smoothed_cross_entropy(x: f32[M, C], t: i64[M]):
    lse = dlc.logsumexp(x, axis=-1)
    mean = dlc.mean(x, axis=-1)
    return dlc.compute((M,), lambda i: lse[i] - 0.9 * x[i, t[i]] - 0.1 * mean[i] + 1e-4 * lse[i] * lse[i])


def divergence(x: f32[M, C], y: f32[M, C]):
    return dlc.sum(dlc.softmax(x) * (dlc.log_softmax(x) - dlc.log_softmax(y)), axis=-1)


def test_cross_entropy_with_smoothing_and_z_loss() -> None:
    x, t = torch.randn(4, 777) * 5, torch.randint(0, 777, (4,))
    check(forced(smoothed_cross_entropy, x, t), x, t)


def projected_cross_entropy(h: f32[M, D], w: f32[C, D], t: i64[M]):
    logits = h @ w.T
    lse = dlc.logsumexp(logits, axis=-1)
    return dlc.compute((M,), lambda i: lse[i] - logits[i, t[i]])


def test_cross_entropy_of_a_projection_keeps_no_logits() -> None:
    h, w, t = torch.randn(50, 24), torch.randn(1000, 24), torch.randint(0, 1000, (50,))
    k = dlc.kernel(projected_cross_entropy)
    check(k, h, w, t)
    assert "matmul is never stored" in k.explain(h, w, t)
    tile = k.plan(h, w, t).tile
    kept = [b for b in (*tile.buffers, *(b for p in tile.phases for b in p.scratch)) if b.scope in ("workspace", "scratch")]
    assert max(np.prod([s.const for s in b.shape]) for b in kept) < 50 * 1000
    with pytest.raises(Exception, match="outside"):
        k(h, w, torch.full((50,), 1000))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_divergence_of_two_distributions(offset: float) -> None:
    x, y = torch.randn(3, 500) * 3 + offset, torch.randn(3, 500) * 3 - offset
    check(forced(divergence, x, y), x, y, rtol=2e-5)


def test_long_rows_take_one_pass_by_default_and_short_ones_do_not() -> None:
    k = dlc.kernel(softmax)
    assert rolled(k, torch.empty(4, 400_000, device="meta")) == 1
    assert rolled(k, torch.empty(4, 4_000, device="meta")) == 0
    assert "several passes: a row of" in k.explain(torch.empty(4, 4_000, device="meta"))
    assert "does not stay in the cache" in k.explain(torch.empty(4, 400_000, device="meta"))


# -- rows that lie side by side in memory --------------------------------------------------------------------------
def column_softmax(x: f32[B, M, N]):
    return dlc.softmax(x, axis=1)


def column_log_softmax(x: f32[B, M, N]):
    return dlc.log_softmax(x, axis=1)


def column_norm(x: f32[B, M, N]):
    mean, var = dlc.mean(x, axis=1, keepdims=True), dlc.var(x, axis=1, keepdims=True)
    return (x - mean) * dlc.rsqrt(var + 1e-5)


def column_statistics(x: f32[B, M, N]):
    p = dlc.softmax(x, axis=1)
    return -dlc.sum(p * dlc.log(p), axis=1), dlc.std(x, axis=1), dlc.max(p, axis=1), dlc.argmax(x, axis=1), dlc.sum(p * x, axis=1)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shape", [(1, 100, 64), (3, 77, 133), (2, 65, 5), (1, 32, 8)])
@pytest.mark.parametrize("fn", [column_softmax, column_log_softmax, column_norm, column_statistics], ids=lambda f: f.__name__)
def test_columns(fn: Callable[..., Any], shape: tuple[int, ...], parts: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 4 + 2
    k = forced(fn, x, block=16)
    k.decisions |= {name.replace(".pass", ".parts"): parts for name in list(k.decisions) if name.endswith(".pass")}
    got, want = k(x), k.reference(x)
    assert rolled(k, x)
    for g, w in zip(*((got, want) if isinstance(got, tuple) else ((got,), (want,)))):
        np.testing.assert_allclose(np.asarray(g), w, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("fn", [column_softmax, column_log_softmax, column_norm], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(2, 0, 5), (0, 4, 5), (3, 5000, 0)])
def test_columns_of_nothing(fn: Callable[..., Any], shape: tuple[int, ...]) -> None:
    assert dlc.kernel(fn)(torch.empty(shape)).shape == shape


def test_columns_take_one_pass_by_default_where_they_are_long() -> None:
    x = torch.randn(1, 1500, 70)
    check(dlc.kernel(column_softmax), x)
    check(dlc.kernel(column_norm), x, rtol=4e-6)
    low = x.to(torch.bfloat16)

    def rounded(x: dlc.bf16[B, M, N]):
        return dlc.softmax(x, axis=1)

    k = dlc.kernel(rounded)
    k.decisions = {"max.pass": "one"}
    torch.testing.assert_close(k(low), torch.softmax(low.double(), 1).to(torch.bfloat16), rtol=1e-2, atol=1e-5)


# -- attention -----------------------------------------------------------------------------------------------------
def attention(q: f32[B, H, M, D], k: f32[B, G, N, D], v: f32[B, G, N, D], extra: f32[M, N], ids: i64[M], *, kind: str = "plain",
              groups: int = 1):
    d, n = dlc.reduce_axis(D), dlc.reduce_axis(N)
    s = dlc.compute((B, H, M, N), lambda b, h, i, j: dlc.sum(q[b, h, i, d] * k[b, h // groups, j, d], d) * 0.25)

    def score(b: Any, h: Any, i: Any, j: Any) -> Any:
        x = s[b, h, i, j]
        if kind == "causal":
            return dlc.where(j <= i, x, NEG)
        if kind == "torch causal":
            return dlc.where(j > i, NEG, x)
        if kind == "window":
            return dlc.where((j <= i) & (j > i - 40), x, NEG)
        if kind == "bias":
            return x + extra[i, j]
        if kind == "alibi":
            return dlc.where(j <= i, x + dlc.cast(j - i, f32) * 0.01, NEG)
        if kind == "cap":
            return 5.0 * dlc.tanh(x / 5.0)
        if kind == "documents":
            return dlc.where(ids[i] == dlc.cast(j // 32, i64), x, NEG)
        if kind == "aligned":
            return dlc.where(j - i <= 30, x, NEG)
        return x

    masked = dlc.compute((B, H, M, N), score)
    p = dlc.softmax(masked)
    return dlc.compute((B, H, M, D), lambda b, h, i, e: dlc.sum(p[b, h, i, n] * v[b, h // groups, n, e], n))


def operands(b: int, h: int, g: int, m: int, n: int, d: int, scale: float = 1.0) -> list[torch.Tensor]:
    r = torch.Generator().manual_seed(m + n)
    shapes = [(b, h, m, d), (b, g, n, d), (b, g, n, d), (m, n)]
    return [torch.randn(s, generator=r) * scale for s in shapes] + [torch.arange(m) // 32]


KINDS = ["plain", "causal", "torch causal", "window", "bias", "alibi", "cap", "documents", "aligned"]


@pytest.mark.parametrize("kind", KINDS)
def test_attention(kind: str) -> None:
    args = operands(1, 2, 2, 70, 150, 17) if kind != "documents" else operands(1, 1, 1, 100, 120, 16)
    check(forced(attention, *args, kind=kind), *args)


@pytest.mark.parametrize("shape", [(2, 4, 2, 33, 65, 16), (1, 4, 1, 1, 200, 8), (1, 1, 1, 130, 64, 32)])
def test_grouped_heads_and_odd_lengths(shape: tuple[int, ...]) -> None:
    args = operands(*shape)
    check(forced(attention, *args, groups=shape[1] // shape[2]), *args)


def test_attention_takes_one_pass_by_default() -> None:
    args = operands(1, 1, 1, 64, 256, 16)
    k = dlc.kernel(attention)
    assert rolled(k, *args) == 1
    assert "is never stored" in k.explain(*args)


def test_large_logits_do_not_overflow() -> None:
    args = operands(1, 1, 1, 40, 200, 16, scale=100.0)
    check(forced(attention, *args), *args, rtol=1e-5)


def test_rows_that_see_nothing_give_zeros() -> None:
    args = operands(1, 1, 1, 40, 100, 16)
    args[3] = torch.zeros(40, 100)
    args[3][5] = NEG
    args[3][7, :80] = NEG
    got = forced(attention, *args, kind="bias")(*args)[0, 0]
    assert (got[5] == 0).all() and torch.isfinite(got).all()
    s = args[0][0, 0] @ args[1][0, 0].T * 0.25 + args[3]
    want = torch.softmax(s.double(), -1) @ args[2][0, 0].double()
    torch.testing.assert_close(got[7].double(), want[7], rtol=1e-5, atol=1e-5)


def masked(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D], m: dlc.bool_[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, m)


@pytest.mark.parametrize("how", ["one", "several", "parts"])
def test_every_form_of_attention_gives_zeros_for_rows_that_see_nothing(how: str) -> None:
    """As the definition of :func:`dlc.scaled_dot_product_attention` has it; the numpy meaning too."""
    q, k, v = operands(1, 2, 2, 40, 100, 16)[:3]
    m = torch.rand(40, 100, generator=torch.Generator().manual_seed(1)) > 0.5
    m[3], m[11, :70], m[12, 30:] = False, False, False
    kernel = forced(masked, q, k, v, m, block=32)
    name = next(iter(kernel.decisions)).split(".")[0]
    kernel.decisions |= {f"{name}.pass": "several"} if how == "several" else {f"{name}.parts": 2 if how == "parts" else 1}
    got, want = np.asarray(kernel(q, k, v, m)), kernel.reference(q, k, v, m)
    assert (want[:, :, 3] == 0).all() and (got[:, :, 3] == 0).all()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def narrow(q: dlc.bf16[B, H, M, D], k: dlc.bf16[B, H, N, D], v: dlc.bf16[B, H, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("shape", [(2, 2, 2, 33, 65, 80), (1, 1, 1, 130, 140, 64), (1, 3, 3, 8, 40, 17)])
def test_factors_of_narrow_dtypes_are_converted_once(shape: tuple[int, ...]) -> None:
    args = [x.to(torch.bfloat16) for x in operands(*shape)[:3]]
    want = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in args), is_causal=True)
    torch.testing.assert_close(forced(narrow, *args)(*args).double(), want, rtol=1e-2, atol=1e-2)


def far_below(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D], bias: f32[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, bias)


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_whose_scores_are_far_below_zero(parts: int) -> None:
    """The definition's shift of a row in which nothing has been seen is zero, hundreds away from what comes next."""
    q, k, v = operands(1, 2, 2, 40, 100, 16)[:3]
    bias = torch.linspace(-900.0, -200.0, 40 * 100).view(40, 100)
    bias[3], bias[7, :70], bias[8, 40:] = NEG, NEG, NEG
    kernel = forced(far_below, q, k, v, bias, block=32)
    kernel.decisions |= {name.replace(".pass", ".parts"): parts for name in list(kernel.decisions) if name.endswith(".pass")}
    check(kernel, q, k, v, bias, rtol=2e-5)


def test_what_is_not_a_number_stays_so() -> None:
    args = operands(1, 1, 1, 20, 100, 16)
    args[0][0, 0, 3, 2] = float("nan")
    got = forced(attention, *args)(*args)[0, 0]
    assert torch.isnan(got[3]).all() and torch.isfinite(got[:3]).all() and torch.isfinite(got[4:]).all()


def test_blocks_that_are_masked_are_not_computed() -> None:
    lost = operands(1, 1, 1, 64, 256, 16)
    lost[1][:, :, 128:] = float("nan")
    lost[2][:, :, 128:] = float("nan")
    assert torch.isfinite(forced(attention, *lost, kind="causal")(*lost)).all()


def test_nothing_of_length_squared_is_kept() -> None:
    args = [torch.empty(s, device="meta", dtype=t) for s, t in (((1, 1, 16384, 64), torch.float32), ((1, 1, 16384, 64), torch.float32),
            ((1, 1, 16384, 64), torch.float32), ((1, 1), torch.float32), ((1,), torch.int64))]

    def plain(q: f32[M, D], k: f32[N, D], v: f32[N, D]):
        return dlc.softmax(q @ k.T * 0.125) @ v

    tile = dlc.kernel(plain).plan(*(a[0, 0] for a in args[:3])).tile
    kept = [b for b in (*tile.buffers, *(b for p in tile.phases for b in p.scratch)) if b.scope in ("workspace", "scratch")]
    assert max(np.prod([s.const for s in b.shape]) for b in kept) <= 64 * 1024


@pytest.mark.parametrize("n", [1000, 5 * 64])
@pytest.mark.parametrize("fn", ROWS, ids=lambda f: f.__name__)
def test_parts_of_a_pass_are_merged(fn: Callable[..., Any], n: int) -> None:
    """Some parts hold fewer values than others; with five blocks in four shares of two, the last holds none."""
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(3)) * 4 + 2
    k = forced(fn, x)
    k.decisions = {**(k.decisions or {}), **{name.replace(".pass", ".parts"): 4 for name in (k.decisions or {}) if name.endswith(".pass")}}
    names = [s.name for s in k.plan(x).nest.stages]
    assert any(n.startswith(f"{h}.") for h in names if h.endswith(".roll") for n in names)
    check(k, x)


def batch_norm(x: f32[M, N, H, D]):
    return dlc.batch_norm(x)


def group_norm(x: f32[M, 12, H, D]):
    return dlc.group_norm(x, 3)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("fn", [batch_norm, group_norm])
def test_statistics_of_boxes(fn: Callable[..., Any], parts: int) -> None:
    x = torch.randn(5, 12, 9, 7, generator=torch.Generator().manual_seed(3)) + 100
    k = forced(fn, x, block=1 if fn is batch_norm else 2)
    k.decisions |= {"mean_sum.parts": parts}
    check(k, x, rtol=2e-5)
    norm = torch.nn.functional.batch_norm(x.double(), None, None, training=True) if fn is batch_norm else (
        torch.nn.functional.group_norm(x.double(), 3))
    torch.testing.assert_close(k(x).double(), norm, rtol=2e-5, atol=2e-5)


# -- a norm folded into the product after it -----------------------------------------------------------------------
def rms_linear(x: f32[M, D], g: f32[D], w: f32[N, D]):
    return dlc.rms_norm(x, (D,), g) @ w.T


def layer_linear(x: f32[M, D], g: f32[D], w: f32[N, D]):
    return dlc.layer_norm(x, (D,), g, g * 0.5) @ w.T + 1.0


@pytest.mark.parametrize("block", [32, 256])
@pytest.mark.parametrize("fn", [rms_linear, layer_linear])
def test_a_norm_goes_along_with_the_product(fn: Callable[..., Any], block: int) -> None:
    x, g, w = torch.randn(70, 200), torch.rand(200) + 0.5, torch.randn(37, 200)
    check(forced(fn, x, g, w, block=block), x, g, w, rtol=3e-6)
    assert rolled(dlc.kernel(fn), x, g, w) == 1


@pytest.mark.parametrize("fn", [rms_linear, layer_linear])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
def test_a_folded_norm_is_as_accurate_as_one_by_itself(fn: Callable[..., Any], scale: float) -> None:
    """Against float64, on rows of any magnitude and rows far from zero, beside the several-pass form in the same precision."""
    x = (torch.randn(70, 300) + torch.arange(70)[:, None]) * scale
    g, w = torch.rand(300) + 0.5, torch.randn(37, 300)
    one, several = forced(fn, x, g, w), dlc.kernel(fn)
    several.decisions = {"mean_sum.pass": "several"}
    exact = one.reference(x, g, w)
    errors = [float(np.abs(np.asarray(k(x, g, w)) - exact).max() / np.abs(exact).max()) for k in (one, several)]
    assert errors[0] <= 2 * errors[1] + 1e-6


def weighted_rows(x: f32[M, N], v: f32[N, D]):
    return dlc.softmax(x) @ v


def several_means(x: f32[M, N], y: f32[M, N], v: f32[N, D]):
    """Of other values, of their squares, of columns, of the position, of the logits themselves."""
    p = dlc.softmax(x)
    position = dlc.cast(dlc.arange(N), f32)
    return dlc.sum(p * y, axis=-1), dlc.sum(p * y * y, axis=-1), p @ v, dlc.sum(p * position, axis=-1), dlc.sum(p * x, axis=-1)


@pytest.mark.parametrize("columns", [3, 8, 40])
@pytest.mark.parametrize("parts", [1, 2])
def test_softmax_weighted_means_of_several_values_at_once(columns: int, parts: int) -> None:
    """Fewer columns than lanes too: the product's lanes then run along the rows."""
    x, y, v = torch.randn(37, 211) * 3, torch.randn(37, 211), torch.randn(211, columns)
    k = forced(several_means, x, y, v)
    k.decisions |= {"max.parts": parts}
    check(k, x, y, v)
    check(dlc.kernel(several_means), x, y, v)


def dropped(q: f32[M, D], k: f32[N, D], v: f32[N, C], d: f32[M, N]):
    return (dlc.softmax(q @ k.T * 0.25) * d) @ v


def chosen(q: f32[M, D], k: f32[N, D], v: f32[N, C], d: f32[M, N]):
    return dlc.where(d > 0.0, dlc.softmax(q @ k.T * 0.25) / d, 0.0) @ v


@pytest.mark.parametrize("fn", [dropped, chosen])
def test_weights_that_are_multiplied_again(fn: Callable[..., Any]) -> None:
    q, k, v, d = torch.randn(70, 16), torch.randn(150, 16), torch.randn(150, 24), torch.rand(70, 150)
    d[:, 3] = 0.0
    check(forced(fn, q, k, v, d), q, k, v, d)
    check(dlc.kernel(fn), q, k, v, d)


def scaled_extrema(x: f32[M, N]):
    p, n = dlc.softmax(x), x / dlc.sqrt(dlc.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return dlc.max(p, axis=-1), dlc.min(p, axis=-1), dlc.max(n, axis=-1), dlc.min(n, axis=-1)


def bits(x: f32[M, N]):
    p = dlc.softmax(x)
    return -dlc.sum(p * dlc.log2(p), axis=-1)


def soft_position(x: f32[B, M, N]):
    p = dlc.exp(x - dlc.max(x, axis=(1, 2), keepdims=True))
    s = dlc.sum(p, axis=(1, 2))
    k, m = dlc.reduce_axis(M), dlc.reduce_axis(N)
    return dlc.compute((B,), lambda b: dlc.sum(p[b, k, m] * dlc.cast(k, f32), k, m) / s[b])


@pytest.mark.parametrize("fn", [scaled_extrema, bits, soft_position], ids=lambda f: f.__name__)
def test_other_results_of_weights(fn: Callable[..., Any]) -> None:
    x = torch.randn(*((5, 13, 17) if fn is soft_position else (5, 200)), generator=torch.Generator().manual_seed(2)) * 4 - 1
    check(forced(fn, x, block=8 if fn is soft_position else 64), x)


def jensen_shannon(x: f32[M, N], y: f32[M, N]):
    p, q = dlc.softmax(x), dlc.softmax(y)
    m = (p + q) * 0.5
    return 0.5 * (dlc.sum(p * dlc.log(p / m), axis=-1) + dlc.sum(q * dlc.log(q / m), axis=-1))


def test_two_passes_where_one_cannot_do() -> None:
    x, y = torch.randn(5, 300) * 3, torch.randn(5, 300) * 3
    k = forced(jensen_shannon, x, y)
    check(k, x, y, passes=2, rtol=5e-6)
    assert "because" in k.explain(x, y) and "one loop, reads shared" in k.explain(x, y)


def gram(x: f32[M, N]):
    centred = x - dlc.mean(x, axis=-1, keepdims=True)
    return centred @ centred.T


def test_a_matrix_of_covariances() -> None:
    x = torch.randn(37, 300) + 5
    k = dlc.kernel(gram)
    np.testing.assert_allclose(k(x), k.reference(x), rtol=1e-5, atol=1e-3)


def test_softmax_weighted_rows_are_one_pass_by_default() -> None:
    x, v = torch.randn(40, 500) * 5, torch.randn(500, 24)
    check(dlc.kernel(weighted_rows), x, v)


def test_keys_are_shared_out_for_one_query() -> None:
    args = operands(1, 1, 1, 1, 1100, 16)
    k = forced(attention, *args)
    k.decisions = {**(k.decisions or {}), "max.parts": 4}
    assert any(s.name.startswith("max.roll.") for s in k.plan(*args).nest.stages)
    check(k, *args)
    empty = operands(1, 1, 1, 3, 1100, 16)
    empty[3][:, 300:] = NEG
    empty[3][1] = NEG
    got = forced(attention, *empty, kind="bias")
    got.decisions = {**(got.decisions or {}), "max.parts": 4}
    assert (got(*empty)[0, 0, 1] == 0).all() and torch.isfinite(got(*empty)).all()


@pytest.mark.parametrize("kind", ["documents", "causal", "window", "bias", "alibi", "cap"])
@pytest.mark.parametrize("shape", [(2, 4, 2, 3, 700, 16), (1, 6, 1, 1, 1000, 8)])
def test_keys_are_shared_out_under_any_mask(kind: str, shape: tuple[int, ...]) -> None:
    """Few queries against many keys, in shares whose states are merged; grouped and multi-query heads."""
    args = operands(*shape)
    k = forced(attention, *args, kind=kind, groups=shape[1] // shape[2])
    name = next(iter(k.decisions)).split(".")[0]
    k.decisions |= {f"{name}.parts": 4}
    assert any("_p" in v.name for s in k.plan(*args).nest.stages for v in s.axes)
    check(k, *args, rtol=1e-5)


def test_a_logarithm_of_sums_alone_is_a_chain() -> None:
    x = torch.randn(3, 300) * 5
    x[1, 3], x[2] = float("inf"), NEG

    def fn(x: f32[M, N]):
        return dlc.logsumexp(x, axis=-1)

    k = forced(fn, x)
    assert rolled(k, x) == 1
    torch.testing.assert_close(k(x), torch.logsumexp(x, -1))


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "algebra.md").read_text()
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        source = f"algebra.md.{len(linecache.cache)}"
        linecache.cache[source] = (len(block), None, block.splitlines(keepends=True), source)
        exec(compile(block, source, "exec"), scope)
    said = capsys.readouterr().out
    assert "A = exp(c_new - c_old) with c = -max[i]" in said.replace("(max[i])", "max[i]") and "sigmoid" in said
