"""Kernels end to end: every definition against torch, on ragged shapes, views, empty and single-element dimensions."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dlc
from dlc import bf16, errors, f16, f32, f64, i32, i64

B, C, H, W, M, N, K = dlc.dims("B C H W M N K")


@dlc.kernel
def linear_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k) + b[j])
    return dlc.gelu(y)


@dlc.kernel
def softmax_rows(x: f32[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def softmax_columns(x: f32[M, N]):
    return dlc.softmax(x, 0)


@dlc.kernel
def norm(x: f32[M, N], w: f32[N], b: f32[N]):
    return dlc.layer_norm(x, w, b)


@dlc.kernel
def total(x: f32[M, N]):
    return dlc.sum(x)


@dlc.kernel
def variance(x: f32[M, N]):
    return dlc.var(x, axis=1)


@dlc.kernel
def last_argmax(x: f32[M, N]):
    return dlc.argmax(x, axis=1)


@dlc.kernel
def first_argmax(x: f32[M, N]):
    return dlc.argmax(x, axis=0)


@dlc.kernel
def lse(x: f32[M, N]):
    return dlc.logsumexp(x, axis=1)


@dlc.kernel
def product(a: f32[B, M, K], b: f32[B, K, N]):
    return a @ b


@dlc.kernel
def attention(q: f32[M, K], k: f32[N, K], v: f32[N, C]):
    return dlc.softmax(q @ k.T * 0.125, 1) @ v


def randn(*shape):
    return torch.randn(*shape)


def same(kernel, reference, *args, tol=2e-5):
    got, want = kernel(*args), reference(*args)
    assert got.shape == want.shape and got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=tol, atol=tol * max(1.0, float(want.abs().max()) if want.numel() else 1.0), equal_nan=True)


SHAPES = [(1, 1), (1, 40), (7, 1), (7, 33), (64, 64), (65, 130), (300, 3), (0, 5), (3, 257)]


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_rows_and_columns(m, n):
    x = randn(m, n)
    same(softmax_rows, lambda x: torch.softmax(x, 1), x)
    if m:
        same(softmax_columns, lambda x: torch.softmax(x, 0), x)
        same(first_argmax, lambda x: x.argmax(0), x)
    same(norm, lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b), x, randn(n), randn(n))
    same(last_argmax, lambda x: x.argmax(1), x)
    same(lse, lambda x: x.logsumexp(1), x)
    same(total, lambda x: x.sum(), x, tol=1e-4)
    if n > 1 and m:
        same(variance, lambda x: x.var(1), x)


@pytest.mark.parametrize(("m", "n", "k"),
                         [(1, 1, 1), (1, 77, 60), (100, 1, 60), (13, 33, 7), (100, 77, 60), (0, 7, 5), (5, 7, 0), (130, 70, 300)])
def test_products(m, n, k):
    reference = lambda x, w, b: F.gelu(x @ w.T + b)  # noqa: E731
    same(linear_gelu, reference, randn(m, k), randn(n, k), randn(n))
    same(linear_gelu, reference, randn(k, m).T, randn(k, n).T, randn(2 * n)[::2])
    same(product, torch.matmul, randn(3, m, k), randn(3, k, n))
    same(attention, lambda q, k, v: torch.softmax(q @ k.T * 0.125, 1) @ v, randn(max(m, 1), k), randn(max(n, 1), k), randn(max(n, 1), 17))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"),
                         [(1, 0, 1, 1), (2, 1, 1, 1), (1, 1, 2, 1), (2, 3, 1, 2), (3, 2, 1, 4)])
def test_convolutions(stride, padding, dilation, groups):
    @dlc.kernel
    def conv(x: f32[B, 4, H, W], w: f32[8, 4 // groups, 3, 3], b: f32[8]):
        return dlc.conv2d(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)

    same(conv, lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups), randn(2, 4, 11, 13),
         randn(8, 4 // groups, 3, 3), randn(8))


@pytest.mark.parametrize("dtype", [f16, bf16, f64])
def test_other_floats(dtype):
    @dlc.kernel
    def fused(a: dtype[M, K], b: dtype[K, N]):
        return dlc.relu(a @ b) + 1.0

    kind = {"f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}[dtype.name]
    a, b = randn(20, 9).to(kind), randn(9, 31).to(kind)
    exact = torch.relu(a.double() @ b.double()) + 1.0
    torch.testing.assert_close(fused(a, b).double(), exact, rtol={"f16": 1e-3, "bf16": 8e-3, "f64": 1e-12}[dtype.name],
                               atol=1e-3 if dtype != f64 else 1e-12)


def test_unary_functions():
    for name in ("exp", "log", "sin", "cos", "tanh", "erf", "sqrt", "rsqrt", "sigmoid", "floor", "expm1", "log1p", "atan", "abs", "sign"):
        fn = getattr(dlc, name)
        kernel = dlc.kernel(_unary(fn))
        x = torch.cat([randn(1001) * 3, torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan")])])
        same(kernel, getattr(torch, name), x, tol=1e-6)


def _unary(fn):
    def unary(x: f32[N]):
        return fn(x)

    return unary


def test_integers_follow_python():
    @dlc.kernel
    def divide(a: i32[N], b: i32[N]):
        return a // b, a % b

    a = torch.randint(-100, 100, (77,), dtype=torch.int32)
    b = torch.tensor([-7, -1, 1, 3, 10] * 16, dtype=torch.int32)[:77]
    q, r = divide(a, b)
    assert torch.equal(q, torch.div(a, b, rounding_mode="floor")) and torch.equal(r, torch.remainder(a, b))


def test_gather_and_its_check():
    @dlc.kernel
    def embed(idx: i64[M], w: f32[N, K]):
        return dlc.compute((M, K), lambda i, j: w[idx[i], j])

    table = randn(9, 31)
    same(embed, lambda i, w: w[i], torch.randint(0, 9, (20,)), table)
    with pytest.raises(errors.BoundsError, match=r"outside \[0, 9\)"):
        embed(torch.tensor([1, 9]), table)
    with pytest.raises(errors.BoundsError):
        embed(torch.tensor([-1]), table)


def test_nan_and_infinity():
    x = randn(5, 40)
    x[1, 3], x[2, 7], x[3, :] = float("nan"), float("inf"), float("-inf")
    same(softmax_rows, lambda x: torch.softmax(x, 1), x)
    same(last_argmax, lambda x: x.argmax(1), x)


def test_kinds_of_arrays():
    x = np.random.default_rng(0).standard_normal((4, 5), dtype=np.float32)
    out = softmax_rows(x)
    assert isinstance(out, np.ndarray)
    np.testing.assert_allclose(out, torch.softmax(torch.from_numpy(x), 1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(softmax_rows(x[::-1, ::-2].copy()[:, ::-1]),
                               torch.softmax(torch.from_numpy(x[::-1, ::-2].copy()[:, ::-1].copy()), 1), rtol=1e-6)

    @dlc.kernel
    def scale(a: bf16[N], s: f32):
        return a * s

    got = scale(np.arange(5).astype(ml_dtypes.bfloat16), 2.0)
    assert got.dtype == ml_dtypes.bfloat16 and got.astype(np.float32).tolist() == [0, 2, 4, 6, 8]


def test_out():
    x, y = randn(6, 7), torch.empty(6, 7)
    assert softmax_rows(x, out=y) is y
    torch.testing.assert_close(y, torch.softmax(x, 1))
    for bad in (x.view(-1)[:36].view(6, 6), torch.empty(7, 6).T, torch.empty(5, 7), torch.empty(6, 7, dtype=torch.float64)):
        with pytest.raises(errors.ArgumentError):
            softmax_rows(x, out=bad)


def test_bad_arguments():
    with pytest.raises(errors.ShapeError, match="K"):
        linear_gelu(randn(3, 4), randn(5, 6), randn(5))
    with pytest.raises(errors.DtypeError, match="`x` is f64"):
        softmax_rows(randn(3, 4).double())
    with pytest.raises(errors.ShapeError):
        softmax_rows(randn(3))
    with pytest.raises(errors.ArgumentError):
        softmax_rows("no")
    with pytest.raises(errors.UserError):
        softmax_rows(randn(3, 4), randn(3, 4))


def test_bounds_have_a_witness():
    @dlc.kernel
    def shifted(x: f32[M]):
        return dlc.compute((M,), lambda i: x[i + 1])

    with pytest.raises(errors.BoundsError, match="i = 4") as e:
        shifted(randn(5))
    assert "x[i + 1]" in str(e.value) and "test_kernel.py" in str(e.value)


def test_nothing_outside_is_written():
    guard = torch.full((7 * 33 + 64,), 123.0)
    inside = guard[32:32 + 7 * 33].view(7, 33)
    softmax_rows(randn(7, 33), out=inside)
    assert (guard[:32] == 123).all() and (guard[32 + 7 * 33:] == 123).all() and not (inside == 123).any()


def test_threads_give_the_same_bits():
    x, before = randn(200, 300), torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(softmax_rows(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_every_instruction_set():
    code = ("import torch, dlc; from tests.dlc.test_kernel import linear_gelu, softmax_rows\n"
            "x, w, b = torch.randn(50, 60), torch.randn(70, 60), torch.randn(70)\n"
            "torch.testing.assert_close(linear_gelu(x, w, b), torch.nn.functional.gelu(x @ w.T + b), rtol=1e-4, atol=1e-4)\n"
            "torch.testing.assert_close(softmax_rows(x), torch.softmax(x, 1))")
    for name in ("x86-64-avx2", "x86-64"):
        import os
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "DLC_TARGET": name},
                              check=False)
        assert done.returncode == 0, done.stderr


def test_source_and_reference():
    x, w, b = randn(9, 8), randn(7, 8), randn(7)
    assert "fma" in linear_gelu.source("llvm", x, w, b)
    assert "vectorize" in linear_gelu.source("schedule", x, w, b)
    assert "ret" in linear_gelu.source("asm", x, w, b)
    exact = F.gelu(x.double() @ w.double().T + b.double())
    np.testing.assert_allclose(linear_gelu.reference(x, w, b), exact.numpy(), rtol=1e-12)


def test_bench():
    x = randn(64, 64)
    report = dlc.bench(softmax_rows, x, against=lambda x: torch.softmax(x, 1), budget=0.05)
    assert report.ratio > 0 and report.errors["dlc"] < 1e-6 and report.bytes == 2 * 64 * 64 * 4
    assert "peer / dlc" in str(report) and report.as_dict()["name"] == "softmax_rows"


def test_a_small_product_with_its_activation_at_every_small_size() -> None:
    """The few forms that small products take: rows looped over one at a time read a part of a tile that holds several."""
    @dlc.kernel
    def small(x: f32[M, K], w: f32[N, K], b: f32[N]):
        return dlc.gelu(dlc.linear(x, w, b))

    for m, n, k in [(2, 8, 2), (2, 8, 5), (4, 3, 5), (3, 9, 8), (8, 17, 3), (5, 4, 33)]:
        x, w, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
        torch.testing.assert_close(small(x, w, b), torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b)), rtol=1e-5, atol=1e-5)


def test_the_forward_derivative_is_a_kernel_and_the_transpose_of_the_backward() -> None:
    @dlc.kernel
    def layer(x: f64[M, K], w: f64[N, K]):
        return dlc.softmax(dlc.linear(x, w), 1)

    x, w, tx, tw = (torch.randn(s, dtype=torch.float64) for s in ((5, 7), (4, 7), (5, 7), (4, 7)))
    u = torch.randn(5, 4, dtype=torch.float64)
    pushed = layer.jvp(x, w, tx, tw)
    ahead, behind = (layer(x + h * tx, w + h * tw) for h in (1e-5, -1e-5))
    torch.testing.assert_close(pushed, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)
    gx, gw = layer.vjp(x, w, u)
    torch.testing.assert_close((u * pushed).sum(), (gx * tx).sum() + (gw * tw).sum())
    assert layer.jvp is layer.jvp
