"""Kernels of different nature with ragged arguments: what every GPU test runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import dlc
from benchmarks.kernels import attention, chain, row_sums, softmax
from dlc import bf16, f16, f32, i8, i64
from dlc.kernel import Kernel

B, M, N, K = dlc.dims("B M N K")


@dlc.kernel
def transposed(x: f32[M, N]):
    """Reads along one axis, writes along the other."""
    return dlc.compute((N, M), lambda j, i: dlc.exp(x[i, j]))


@dlc.kernel
def matmul_bias_gelu(x: f32[M, K], w: f32[K, N], b: f32[N]):
    """A linear layer with its activation."""
    return dlc.gelu(x @ w + b)


@dlc.kernel
def half_product(x: f16[M, K], w: f16[N, K]):
    """A transposed factor in half precision."""
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k))


@dlc.kernel
def brain_product(x: bf16[M, K], w: bf16[K, N]):
    """bf16 operands."""
    return x @ w


@dlc.kernel
def byte_product(x: i8[M, K], w: i8[K, N]):
    """Integers."""
    return x @ w


@dlc.kernel
def long_product(x: i64[M, K], w: i64[K, N]):
    """Integers that no matrix unit takes."""
    return x @ w


@dlc.kernel
def batched(x: f32[B, M, K], w: f32[B, K, N]):
    """A product for every batch."""
    return x @ w


@dlc.kernel
def softmax_down(x: f32[M, N]):
    """The same along the other axis."""
    return dlc.softmax(x, 0)


@dlc.kernel
def layer_norm(x: f32[M, N], w: f32[N], b: f32[N]):
    """Moments of a row."""
    return dlc.layer_norm(x, w, b)


@dlc.kernel
def column_extremes(x: f32[M, N]):
    """Two reductions across rows."""
    return dlc.max(x, 0), dlc.min(x, 0)


@dlc.kernel
def total(x: f32[M, N]):
    """Everything to one number."""
    return dlc.sum(x)


@dlc.kernel
def best(x: f32[M, N]):
    """Index of the largest."""
    return dlc.argmax(x, 1)


@dlc.kernel
def middle(x: f32[B, M, N]):
    """Reduction over an axis in the middle."""
    return dlc.logsumexp(x, 1)


@dlc.kernel
def conv_relu(x: f32[B, 5, M, N], w: f32[7, 5, 3, 3], b: f32[7]):
    """Strided and padded."""
    return dlc.relu(dlc.conv2d(x, w, b, stride=2, padding=1))


@dlc.kernel
def wide_conv(x: f32[B, 32, M, N], w: f32[20, 32, 3, 3]):
    """Channels that fill a step of the matrix unit."""
    return dlc.conv2d(x, w, None, padding=1)


@dlc.kernel
def looked_up(table: f32[K, N], at: i64[M]):
    """Rows chosen by data."""
    return dlc.compute((M, N), lambda i, j: table[at[i], j])


@dlc.kernel
def several(x: f32[M, N]):
    """Outputs that share work."""
    e = dlc.exp(x)
    return e, dlc.sum(e, 1)


H, D = dlc.dims("H D")


@dlc.kernel
def causal_attention(q: f16[B, H, M, D], k: f16[B, H, N, D], v: f16[B, H, N, D]):
    """Blocks after the diagonal are not computed."""
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


@dlc.kernel
def cross_entropy(x: f32[M, N], t: i64[M]):
    """Logits read once."""
    lse = dlc.logsumexp(x, axis=1)
    mean = dlc.mean(x, axis=1)
    return dlc.compute((M,), lambda i: lse[i] - 0.9 * x[i, t[i]] - 0.1 * mean[i])


def _r(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def _bytes(*shape: int) -> torch.Tensor:
    return torch.randint(-9, 9, shape, dtype=torch.int8)


Case = tuple[Kernel, Callable[[], tuple[Any, ...]]]

CASES: dict[str, Case] = {
    "chain": (chain, lambda: (_r(37, 50), _r(50))),
    "chain of views": (chain, lambda: (_r(50, 37).T, _r(100)[::2])),
    "chain of one": (chain, lambda: (_r(1, 1), _r(1))),
    "transposed": (transposed, lambda: (_r(45, 70),)),
    "matmul + bias + gelu": (matmul_bias_gelu, lambda: (_r(50, 37), _r(37, 70), _r(70))),
    "one row by a matrix": (matmul_bias_gelu, lambda: (_r(1, 37), _r(37, 70), _r(70))),
    "f16 product": (half_product, lambda: (_r(50, 37).half(), _r(70, 37).half())),
    "i8 product": (byte_product, lambda: (_bytes(33, 40), _bytes(40, 35))),
    "i64 product": (long_product, lambda: (_bytes(33, 40).long(), _bytes(40, 35).long())),
    "batched product": (batched, lambda: (_r(3, 20, 18), _r(3, 18, 21))),
    "softmax": (softmax, lambda: (_r(37, 50),)),
    "softmax of long rows": (softmax, lambda: (_r(3, 20000),)),
    "softmax down": (softmax_down, lambda: (_r(37, 50),)),
    "attention": (attention, lambda: (_r(1, 2, 70, 20), _r(1, 2, 90, 20), _r(1, 2, 90, 20))),
    "causal attention": (causal_attention, lambda: (_r(1, 1, 150, 16).half(), _r(1, 1, 150, 16).half(), _r(1, 1, 150, 16).half())),
    "layer norm": (layer_norm, lambda: (_r(9, 50), _r(50), _r(50))),
    "row sums": (row_sums, lambda: (_r(37, 3000),)),
    "column extremes": (column_extremes, lambda: (_r(37, 50),)),
    "total": (total, lambda: (_r(300, 301),)),
    "argmax": (best, lambda: (_r(37, 50),)),
    "middle axis": (middle, lambda: (_r(3, 37, 20),)),
    "strided padded conv2d": (conv_relu, lambda: (_r(2, 5, 13, 15), _r(7, 5, 3, 3), _r(7))),
    "wide conv2d": (wide_conv, lambda: (_r(1, 32, 9, 11), _r(20, 32, 3, 3))),
    "gather": (looked_up, lambda: (_r(11, 20), torch.randint(0, 11, (37,)))),
    "several outputs": (several, lambda: (_r(37, 50),)),
    "backward of a linear layer": (matmul_bias_gelu.vjp, lambda: (_r(20, 18), _r(18, 23), _r(23), _r(20, 23))),
    "backward of softmax": (softmax.vjp, lambda: (_r(20, 18), _r(20, 18))),
    "backward of a convolution": (conv_relu.vjp, lambda: (_r(1, 5, 6, 5), _r(7, 5, 3, 3), _r(7), _r(1, 7, 3, 3))),
}
