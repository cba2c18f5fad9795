"""Kernels that several families measure: forward, backward, on CPUs and on GPUs."""

from __future__ import annotations

import dlc
from dlc import f32, i64

B, C, D, H, W, M, N, K = dlc.dims("B C D H W M N K")


@dlc.kernel
def softmax(x: f32[M, N]):
    """Softmax along rows."""
    return dlc.softmax(x, 1)


@dlc.kernel
def log_softmax(x: f32[M, N]):
    """Its logarithm."""
    return dlc.log_softmax(x, axis=1)


@dlc.kernel
def layer_norm(x: f32[M, N], w: f32[N], b: f32[N]):
    """Normalised rows with weights."""
    return dlc.layer_norm(x, None, w, b)


@dlc.kernel
def rms_norm(x: f32[M, N], w: f32[N]):
    """Rows by their root mean square."""
    return dlc.rms_norm(x, None, w)


@dlc.kernel
def batch_statistics(x: f32[N, C, H, W], w: f32[C], b: f32[C]):
    """Channels by the statistics of the batch."""
    return dlc.batch_norm(x, None, None, w, b)


@dlc.kernel
def cross_entropy(x: f32[M, N], t: i64[M]):
    """Mean loss of rows of logits."""
    return dlc.cross_entropy(x, t)


@dlc.kernel
def attention(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D]):
    """Its plain definition."""
    return dlc.scaled_dot_product_attention(q, k, v)


@dlc.kernel
def causal_attention(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D]):
    """No query sees later keys."""
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


@dlc.kernel
def linear_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    """A linear layer with its activation."""
    return dlc.gelu(dlc.linear(x, w, b))


@dlc.kernel
def chain(x: f32[M, N], y: f32[N]):
    """Pointwise with a broadcast."""
    return dlc.tanh(x * 2.0 + y) * dlc.sigmoid(x)


@dlc.kernel
def row_sums(x: f32[M, N]):
    """Contiguous reduction."""
    return dlc.sum(x, 1)


@dlc.kernel
def conv3x3(x: f32[N, C, H, W], w: f32[K, C, 3, 3]):
    """Windows of three by three, padded to the image's size."""
    return dlc.conv2d(x, w, padding=1)


@dlc.kernel
def conv_chain(x: f32[N, C, H, W], w: f32[K, C, 3, 3], v: f32[K, K, 3, 3]):
    """Two convolutions, an activation between them."""
    return dlc.conv2d(dlc.relu(dlc.conv2d(x, w, padding=1)), v, padding=1)


@dlc.kernel
def gated_mlp(x: f32[M, K], a: f32[N, K], b: f32[N, K], c: f32[K, N]):
    """The feed-forward part of a transformer's block."""
    return dlc.linear(dlc.silu(dlc.linear(x, a)) * dlc.linear(x, b), c)


@dlc.kernel
def norm_linear_gelu(x: f32[M, K], g: f32[K], b: f32[K], w: f32[N, K]):
    """Normalised rows, a linear layer, its activation."""
    return dlc.gelu(dlc.linear(dlc.layer_norm(x, None, g, b), w))
