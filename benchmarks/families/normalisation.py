"""Softmax and its kin, layer, root-mean-square, batch and group normalisation, cross-entropy with many classes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import jax, jnp
from benchmarks.harness import Case, case, peers
from benchmarks.kernels import batch_statistics, cross_entropy, layer_norm, log_softmax, rms_norm, softmax
from dlc import f32

M, N, C, H, W = dlc.dims("M N C H W")


@dlc.kernel
def _softmax_columns(x: f32[M, N]):
    return dlc.softmax(x, axis=0)


@dlc.kernel
def _residual_norm(x: f32[M, N], r: f32[M, N], w: f32[N], b: f32[N]):
    return dlc.layer_norm(x + r, None, w, b)


@dlc.kernel
def _batch_norm(x: f32[N, C, H, W], mean: f32[C], var: f32[C], w: f32[C], b: f32[C]):
    return dlc.batch_norm(x, mean, var, w, b)


def _group_norm(groups: int) -> Any:
    @dlc.kernel
    def group_norm(x: f32[4, 64, 28, 28], w: f32[64], b: f32[64]):
        return dlc.group_norm(x, groups, w, b)

    return group_norm


def layer_norm_in_jax(x: Any, w: Any, b: Any) -> Any:
    """Normalised rows."""
    return (x - x.mean(1, keepdims=True)) * jax.lax.rsqrt(x.var(1, keepdims=True) + 1e-5) * w + b


def rms_norm_in_jax(x: Any, w: Any) -> Any:
    """Rows by their root mean square."""
    return x * jax.lax.rsqrt((x * x).mean(1, keepdims=True) + 1.2e-7) * w


def _along(channels: Any) -> Any:
    return channels[:, None, None]


def batch_norm_in_jax(x: Any, mean: Any, var: Any, w: Any, b: Any) -> Any:
    """Channels by given statistics."""
    return (x - _along(mean)) * _along(jax.lax.rsqrt(var + 1e-5) * w) + _along(b)


def batch_statistics_in_jax(x: Any, w: Any, b: Any) -> Any:
    """Channels by the statistics of the batch."""
    return batch_norm_in_jax(x, x.mean((0, 2, 3)), x.var((0, 2, 3)), w, b)


def group_norm_in_jax(x: Any, w: Any, b: Any) -> Any:
    """Eight groups of channels by their own statistics."""
    g = x.reshape(x.shape[0], 8, -1)
    normed = (g - g.mean(2, keepdims=True)) * jax.lax.rsqrt(g.var(2, keepdims=True) + 1e-5)
    return normed.reshape(x.shape) * _along(w) + _along(b)


def cross_entropy_in_jax(x: Any, t: Any) -> Any:
    """Mean loss of rows of logits."""
    return -jnp.take_along_axis(jax.nn.log_softmax(x, 1), t[:, None], 1).mean()


def _rows(name: str, m: int, n: int, kernel: Any, function: Callable[..., object],
          in_jax: Callable[..., object], scale: int = 0, others: int = 1) -> Case:
    return case(f"{name} {m}x{n}", lambda: [torch.randn(m, n) for _ in range(others)] + [torch.randn(n) for _ in range(scale)],
                {"dlc": kernel, **peers(function, in_jax)}, bytes=4 * m * n * (1 + others))


def cases() -> Iterable[Case]:
    """Every case of the family."""
    for m, n in ((64, 64), (4096, 256), (1000, 1000), (512, 4096), (64, 32768), (8, 131072)):
        yield _rows("softmax", m, n, softmax, lambda x: x.softmax(1), lambda x: jax.nn.softmax(x, 1))
        yield _rows("log_softmax", m, n, log_softmax, lambda x: x.log_softmax(1), lambda x: jax.nn.log_softmax(x, 1))
    yield _rows("softmax of columns", 1000, 1000, _softmax_columns, lambda x: x.softmax(0), lambda x: jax.nn.softmax(x, 0))
    for m, n in ((4096, 256), (2048, 1024), (512, 4096), (1000, 777)):
        yield _rows("layer_norm", m, n, layer_norm, lambda x, w, b: nn.layer_norm(x, x.shape[1:], w, b), layer_norm_in_jax, 2)
        yield _rows("residual layer_norm", m, n, _residual_norm, lambda x, r, w, b: nn.layer_norm(x + r, x.shape[1:], w, b),
                    lambda x, r, w, b: layer_norm_in_jax(x + r, w, b), 2, 2)
        yield _rows("rms_norm", m, n, rms_norm, lambda x, w: nn.rms_norm(x, x.shape[1:], w), rms_norm_in_jax, 1)
    def image() -> torch.Tensor:
        return torch.randn(8, 64, 28, 28)

    def channel() -> torch.Tensor:
        return torch.rand(64) + 0.5

    size = 4 * 8 * 64 * 28 * 28
    yield case("batch_norm inference 8x64x28x28", lambda: [image(), channel(), channel(), channel(), channel()],
               {"dlc": _batch_norm, **peers(lambda x, m, v, w, b: nn.batch_norm(x, m, v, w, b), batch_norm_in_jax)}, bytes=2 * size)
    yield case("batch_norm training 8x64x28x28", lambda: [image(), channel(), channel()],
               {"dlc": batch_statistics, **peers(lambda x, w, b: nn.batch_norm(x, None, None, w, b, True), batch_statistics_in_jax)},
               bytes=2 * size)
    yield case("group_norm 4x64x28x28", lambda: [torch.randn(4, 64, 28, 28), channel(), channel()],
               {"dlc": _group_norm(8), **peers(lambda x, w, b: nn.group_norm(x, 8, w, b), group_norm_in_jax)}, bytes=size)
    for m, n in ((512, 1000), (256, 32768), (64, 131072)):
        yield case(f"cross_entropy {m}x{n}", lambda m=m, n=n: [torch.randn(m, n), torch.randint(0, n, (m,))],
                   {"dlc": cross_entropy, **peers(nn.cross_entropy, cross_entropy_in_jax)}, bytes=4 * m * n)
