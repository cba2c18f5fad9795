"""The numpy meaning against torch, against a point-by-point evaluation, and at its edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from dsl import interp
from dsl.carrier import ARGMAX, LOGSUMEXP, MAX, MOMENTS, SUM
from dsl.dim import Var, as_term
from dsl.dtype import bf16, bool_, f16, f32, i32, i64
from dsl.errors import BoundsError, DtypeError, ShapeError
from dsl.expr import cast, index, op, scan, where
from dsl.interp import evaluate
from dsl.program import compute, dims, reduce_axis, reduce_over, trace
from tests.dsl.naive import naive
from tests.strategies import random_case

M, N, K = dims("M N K")


def run(fn: Callable[..., Any], *arrays: Any, **options: Any) -> np.ndarray:
    (out,) = evaluate(trace(fn), *arrays, **options)
    return out


def matmul(x: f32[M, K], w: f32[N, K]):
    k = reduce_axis(K)
    return compute((M, N), lambda i, j: reduce_over(SUM, (x.read(i, k) * w.read(j, k),), (k,)))


def softmax(x: f32[M, N]):
    k = reduce_axis(N)
    top = compute(M, lambda i: reduce_over(MAX, (x.read(i, k),), (k,)))
    e = compute((M, N), lambda i, j: op("exp", x.read(i, j) - top.read(i)))
    return compute((M, N), lambda i, j: e.read(i, j) / reduce_over(SUM, (e.read(i, k),), (k,)))


def attention(q: f32[M, K], k: f32[N, K], v: f32[N, K]):
    c, n = reduce_axis(K), reduce_axis(N)
    s = compute((M, N), lambda i, j: reduce_over(SUM, (q.read(i, c) * k.read(j, c),), (c,)))
    top = compute(M, lambda i: reduce_over(MAX, (s.read(i, n),), (n,)))
    p = compute((M, N), lambda i, j: op("exp", s.read(i, j) - top.read(i)))
    total = compute(M, lambda i: reduce_over(SUM, (p.read(i, n),), (n,)))
    return compute((M, K), lambda i, d: reduce_over(SUM, (p.read(i, n) * v.read(n, d),), (n,)) / total.read(i))


def test_matmul(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((37, 61)).astype(np.float32), rng.standard_normal((29, 61)).astype(np.float32)
    np.testing.assert_allclose(run(matmul, x, w), x @ w.T, rtol=1e-5, atol=1e-5)


def test_softmax_and_attention(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 33)).astype(np.float32)
    np.testing.assert_allclose(run(softmax, x), torch.softmax(torch.tensor(x), 1), rtol=1e-5)
    q, k, v = (rng.standard_normal((n, 16)).astype(np.float32) for n in (5, 21, 21))
    want = torch.nn.functional.scaled_dot_product_attention(*(torch.tensor(t)[None] for t in (q, k, v)), scale=1.0)[0]
    np.testing.assert_allclose(run(attention, q, k, v), want, rtol=1e-4, atol=1e-5)


def test_convolution_with_guards(rng: np.random.Generator) -> None:
    def conv(x: f32[M, N, K], w: f32[4, M, 3, 3]):
        c, r, s = reduce_axis(M, name="c"), reduce_axis(3, name="r"), reduce_axis(3, name="s")

        def at(o: Any, i: Any, j: Any) -> Any:
            y, z = 2 * i + r - 1, 2 * j + s - 1
            inside = (y >= 0) & (y < N) & (z >= 0) & (z < K)
            return reduce_over(SUM, (where(inside, x.read(c, y, z), 0.0) * w.read(o, c, r, s),), (c, r, s))
        return compute((4, (N + 1) // 2, (K + 1) // 2), at)

    x, w = rng.standard_normal((3, 9, 10)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    want = torch.nn.functional.conv2d(torch.tensor(x)[None], torch.tensor(w), stride=2, padding=1)[0]
    np.testing.assert_allclose(run(conv, x, w), want, rtol=1e-4, atol=1e-5)


def test_carriers_with_several_components(rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 41)).astype(np.float32)
    x[2, 5] = x[2, 9] = 9.0
    x[3, 7] = np.nan

    def rows(x: f32[M, N]):
        k = reduce_axis(N)
        return compute(M, lambda i: (
            reduce_over(ARGMAX, (x.read(i, k), k), (k,), 0), reduce_over(ARGMAX, (x.read(i, k), k), (k,), 1),
            reduce_over(MOMENTS, (x.read(i, k),), (k,), 0), reduce_over(MOMENTS, (x.read(i, k),), (k,), 1),
            reduce_over(LOGSUMEXP, (x.read(i, k),), (k,))))

    best, where_, mean, variance, lse = evaluate(trace(rows), x)
    t = torch.tensor(x)
    np.testing.assert_array_equal(best, t.max(1).values)
    np.testing.assert_array_equal(where_, t.argmax(1))
    np.testing.assert_allclose(mean, t.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, t.var(1, correction=0), rtol=1e-5)
    np.testing.assert_allclose(lse, t.logsumexp(1), rtol=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(rng: np.random.Generator, exclusive: bool, reverse: bool) -> None:
    def cumulative(x: f32[M, N]):
        k = Var("k", N.term)
        return compute((M, N), lambda i, j: (
            scan(SUM, (x.read(i, k),), k, j.term, exclusive=exclusive, reverse=reverse),
            scan(LOGSUMEXP, (x.read(i, k),), k, j.term, exclusive=exclusive, reverse=reverse)))

    x = rng.standard_normal((4, 19)).astype(np.float32)
    t = torch.tensor(x[:, ::-1].copy() if reverse else x).double()
    total, lse = t.cumsum(1), t.logcumsumexp(1)
    if exclusive:
        total, lse = total - t, torch.cat([torch.full((4, 1), -torch.inf).double(), lse[:, :-1]], 1)
    got = [g[:, ::-1] if reverse else g for g in evaluate(trace(cumulative), x)]
    np.testing.assert_allclose(got[0], total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], lse, rtol=1e-5, atol=1e-6)


def test_gather_and_integer_wraparound(rng: np.random.Generator) -> None:
    def embed(table: f32[N, K], tokens: i32[M]):
        return compute((M, K), lambda i, j: table.read(tokens.read(i), j))

    def wrap(x: i32[N]):
        return compute(N, lambda i: x.read(i) * 65536 * 65536 + x.read(i))

    table, tokens = rng.standard_normal((10, 3)).astype(np.float32), rng.integers(0, 10, 7).astype(np.int32)
    np.testing.assert_array_equal(run(embed, table, tokens), table[tokens])
    np.testing.assert_array_equal(run(wrap, np.int32([1, 2, 2**31 - 1])), [1, 2, 2**31 - 1])


def test_sums_of_integers_are_i64_and_of_bools_count() -> None:
    def total(x: i32[N]):
        k = reduce_axis(N)
        return compute((), lambda: (reduce_over(SUM, (x.read(k),), (k,)), reduce_over(SUM, (x.read(k) > 0,), (k,))))

    s, n = evaluate(trace(total), np.int32([2**31 - 1, 2**31 - 1, -1]))
    assert (s.dtype, n.dtype) == (np.int64, np.int64)
    assert (int(s), int(n)) == (2**32 - 3, 2)


def test_bfloat16_is_held_in_f32_and_rounded_once(rng: np.random.Generator) -> None:
    def chain(x: bf16[N], y: bf16[N]):
        t = compute(N, lambda i: x.read(i) * y.read(i) + x.read(i))
        return compute(N, lambda i: t.read(i) * 3.0 - y.read(i))

    def rounded(x: bf16[N], y: bf16[N]):
        return compute(N, lambda i: cast(cast(x.read(i), f32) * y.read(i), bf16) + x.read(i))

    x, y = (rng.standard_normal(500).astype(ml_dtypes.bfloat16) for _ in range(2))
    a, b = x.astype(np.float32), y.astype(np.float32)
    got = run(chain, x, y)
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got, ((a * b + a) * np.float32(3) - b).astype(ml_dtypes.bfloat16))
    tx, ty = torch.tensor(a).bfloat16(), torch.tensor(b).bfloat16()
    np.testing.assert_array_equal(run(rounded, x, y).astype(np.float32), (cast_twice(tx, ty)).float())


def cast_twice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x.float() * y.float()).bfloat16().float() + x.float()).bfloat16()


def test_float64_reference_does_not_round(rng: np.random.Generator) -> None:
    def scaled(x: f16[N]):
        return compute(N, lambda i: cast(x.read(i) * 0.1, f16) + 1e-9)

    x = rng.standard_normal(50).astype(np.float16)
    got = run(scaled, x, float64=True)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, x.astype(np.float64) * 0.1 + 1e-9)


def test_ragged_reduction_extent() -> None:
    def triangle(x: f32[N]):
        def at(i: Any) -> Any:
            k = reduce_axis(0, i + 1, name="k")
            return reduce_over(SUM, (x.read(k),), (k,)) + reduce_over(MAX, (x.read(i - k),), (k,))
        return compute(N, at)

    x = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(run(triangle, x), x.cumsum() + x)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_zero_sizes(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    out = run(matmul, np.ones((m, k), np.float32), np.ones((n, k), np.float32))
    np.testing.assert_array_equal(out, np.full((m, n), k, np.float32))


def test_special_values_give_no_warnings() -> None:
    def odd(x: f32[N]):
        return compute(N, lambda i: op("log", x.read(i)) / (x.read(i) - x.read(i)) + op("exp", x.read(i)))

    assert np.isnan(run(odd, np.float32([-1, 0, np.inf, np.nan, 1e30]))).any()


def test_a_branch_that_is_not_taken_may_read_anywhere() -> None:
    def shifted(x: f32[N], s: f32[N]):
        left = compute(N, lambda i: where(index(as_term(i)) > 2, x.read(i - 3), 0.0))
        return compute(N, lambda i: where((s.read(i) > 0) & (i < N - 2), left.read(i + 2), s.read(i)))

    s = np.float32([1, -1, 1, 1, -1])
    np.testing.assert_array_equal(run(shifted, np.float32([1, 2, 3, 4, 5]), s), [0, -1, 2, 1, -1])


def test_reads_out_of_bounds_name_the_point() -> None:
    def plain(x: f32[N]):
        return compute(N, lambda i: where(i > 0, x.read(i - 1), 0.0) + x.read(i + 1))

    def nested(x: f32[N], idx: i64[M]):
        return compute(M, lambda i: where(idx.read(i) >= 0, x.read(idx.read(i)), 0.0))

    with pytest.raises(BoundsError, match=r"(?s)x\[i \+ 1\] is out of bounds.*i = 4 reads x\[5\], but x has 5 elements.*dlc.where"):
        run(plain, np.zeros(5, np.float32))
    run(nested, np.zeros(5, np.float32), np.int64([4, -3, 0]))
    with pytest.raises(BoundsError, match=r"i = 1 reads x\[5\], but x has 5 elements"):
        run(nested, np.zeros(5, np.float32), np.int64([4, 5, -3]))


def test_an_expression_used_guarded_and_unguarded_is_checked() -> None:
    def both(x: f32[N]):
        return compute(N, lambda i: where(i < N - 1, x.read(i + 1), 0.0) * x.read(i + 1))

    with pytest.raises(BoundsError, match=r"i = 2 reads x\[3\]"):
        run(both, np.zeros(3, np.float32))


def test_read_of_an_empty_tensor() -> None:
    def first(x: f32[N]):
        return compute((), lambda: x.read(0))

    def guarded(x: f32[N], m: f32[M]):
        return compute(M, lambda i: where(i < N, x.read(i), 7.0))

    with pytest.raises(BoundsError, match=r"it reads x\[0\], but x has 0 elements"):
        run(first, np.zeros(0, np.float32))
    np.testing.assert_array_equal(run(guarded, np.zeros(0, np.float32), np.zeros(2, np.float32)), [7, 7])


def test_arguments_are_checked() -> None:
    with pytest.raises(DtypeError, match="`x` is int64, not f32"):
        run(matmul, np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32))
    with pytest.raises(ShapeError, match="disagree about K"):
        run(matmul, np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))

    def scaled(x: f32[N], a: f32, flag: bool_):
        return compute(N, lambda i: where(flag.read(), x.read(i) * a.read(), 0.0))

    np.testing.assert_array_equal(run(scaled, np.float32([1, 2]), 3, True), [3, 6])
    np.testing.assert_array_equal(run(scaled, np.float64([1, 2]), 0.5, False), [0, 0])


def test_chunks_do_not_change_the_result(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = rng.standard_normal((13, 7)).astype(np.float32), rng.standard_normal((11, 7)).astype(np.float32)
    whole = run(matmul, x, w), run(softmax, x)
    monkeypatch.setattr(interp, "CHUNK_POINTS", 20)
    np.testing.assert_array_equal(run(matmul, x, w), whole[0])
    np.testing.assert_array_equal(run(softmax, x), whole[1])


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_point_by_point(seed: int) -> None:
    case = random_case(seed, symbolic=seed % 2 == 0, dtypes=(f32, bf16))
    got = evaluate(case.program, *case.arrays, float64=True)
    for a, b in zip(got, naive(case.program, *case.arrays)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(100))
def test_random_programs_specialised_and_chunked(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    want = evaluate(case.program, *case.arrays)
    monkeypatch.setattr(interp, "CHUNK_POINTS", 30)
    got = evaluate(case.program.specialize(case.sizes), *case.arrays)
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)


def test_contractions_in_float64_are_done_by_the_linear_algebra_library(rng: np.random.Generator) -> None:
    B = dims("B")

    def product(x: f32[B, M, K], w: f32[K, N]):
        k, again = reduce_axis(K), reduce_axis(B)
        summed = compute((B, M, N), lambda b, i, j: reduce_over(SUM, (x.read(b, i, k) * w.read(k, j),), (k,)))
        squares = compute((M,), lambda i: reduce_over(SUM, (x.read(0, i, k) * x.read(0, i, k),), (k, again)))
        return summed, squares
    x, w = rng.normal(size=(3, 40, 700)).astype(np.float32), rng.normal(size=(700, 50)).astype(np.float32)
    x[0, 0, 0] = np.inf
    summed, squares = evaluate(trace(product), x, w, float64=True)
    np.testing.assert_allclose(summed, x.astype(np.float64) @ w.astype(np.float64), rtol=1e-12)
    np.testing.assert_allclose(squares, 3 * (x[0].astype(np.float64)**2).sum(1), rtol=1e-12)
