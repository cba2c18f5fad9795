"""Backwards alone, beside torch's and torch.compile's.

Convolutions (strided, grouped, depthwise, channels-last), pools, norms, softmax, attention, a linear layer with gelu, embedding,
cross-entropy, reductions, scans, pads and pointwise chains.
The forward runs once, outside of the time; a call asks autograd for the gradients of all float inputs from a fixed gradient of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import Jax, jax, jnp, untuned
from benchmarks.families import normalisation
from benchmarks.harness import OURS, REFERENCE, Case
from benchmarks.kernels import (
    attention,
    batch_statistics,
    causal_attention,
    cross_entropy,
    layer_norm,
    linear_gelu,
    log_softmax,
    rms_norm,
    softmax,
)
from dlc import f32, i64

B, C, F, H, W, M, N, K, V, D = dlc.dims("B C F H W M N K V D")


@dlc.kernel
def _conv(x: f32[B, C, H, W], w: f32[F, C, 3, 3], b: f32[F]):
    return dlc.conv2d(x, w, b, padding=1)


@dlc.kernel
def _conv_strided(x: f32[B, C, H, W], w: f32[F, C, 3, 3], b: f32[F]):
    return dlc.conv2d(x, w, b, stride=2, padding=1)


@dlc.kernel
def _conv_pointwise(x: f32[B, C, H, W], w: f32[F, C, 1, 1], b: f32[F]):
    return dlc.conv2d(x, w, b, stride=2)


@dlc.kernel
def _conv_grouped(x: f32[B, 64, H, W], w: f32[64, 16, 3, 3], b: f32[64]):
    return dlc.conv2d(x, w, b, padding=1, groups=4)


@dlc.kernel
def _conv_depthwise(x: f32[B, 64, H, W], w: f32[64, 1, 3, 3], b: f32[64]):
    return dlc.conv2d(x, w, b, padding=1, groups=64)


@dlc.kernel
def _max_pool(x: f32[B, C, H, W]):
    return dlc.max_pool2d(x, 2)


@dlc.kernel
def _max_pool_overlapping(x: f32[B, C, H, W]):
    return dlc.max_pool2d(x, 3, 2, 1)


@dlc.kernel
def _avg_pool(x: f32[B, C, H, W]):
    return dlc.avg_pool2d(x, 3, 2, 1)


@dlc.kernel
def _group_norm(x: f32[B, 64, H, W], w: f32[64], b: f32[64]):
    return dlc.group_norm(x, 8, w, b)


@dlc.kernel
def _logsumexp(x: f32[M, N]):
    return dlc.logsumexp(x, 1)


@dlc.kernel
def _greatest(x: f32[M, N]):
    return dlc.amax(x, 1)


@dlc.kernel
def _deviation(x: f32[M, N]):
    return dlc.std(x, 1)


@dlc.kernel
def _running_sum(x: f32[M, N]):
    return dlc.cumsum(x, 1)


@dlc.kernel
def _running_max(x: f32[M, N]):
    return dlc.cummax(x, 1)[0]


@dlc.kernel
def _padded(x: f32[B, C, H, W]):
    return dlc.pad(x, (2, 2, 2, 2), "reflect")


@dlc.kernel
def _embedding(at: i64[M], w: f32[V, D]):
    return dlc.embedding(at, w)


@dlc.kernel
def _chain(x: f32[M, N], y: f32[M, N], b: f32[N]):
    return dlc.tanh(x * 2.0 + b) * dlc.sigmoid(y) + dlc.silu(x)


def _normed(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return nn.batch_norm(x, None, None, w, b, training=True)


def _labels(n: int, of: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(0, of, (n,))


def _causal_of(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return nn.scaled_dot_product_attention(q, k, v, is_causal=True)


def _chain_of(x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x * 2.0 + b) * torch.sigmoid(y) + nn.silu(x)


def _channels_last(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def _heads(*shape: int) -> list[tuple[int, ...]]:
    return [shape] * 3


Operand = tuple[int, ...] | Callable[[], torch.Tensor]

# name -> (kernel, torch's function, operands, operations of the backward)
_CASES: dict[str, tuple[Any, Callable[..., torch.Tensor], Sequence[Operand], float]] = {
    "conv 8x64x32x32, 64": (_conv, lambda x, w, b: nn.conv2d(x, w, b, padding=1), [(8, 64, 32, 32), (64, 64, 3, 3), (64,)],
                            4.0 * 8 * 64 * 32 * 32 * 64 * 9),
    "conv 8x64x32x32, 64, channels last": (
        _conv, lambda x, w, b: nn.conv2d(x, w, b, padding=1), [_channels_last(8, 64, 32, 32), _channels_last(64, 64, 3, 3), (64,)],
        4.0 * 8 * 64 * 32 * 32 * 64 * 9),
    "conv 64x32x16x16, 64": (_conv, lambda x, w, b: nn.conv2d(x, w, b, padding=1), [(64, 32, 16, 16), (64, 32, 3, 3), (64,)],
                             4.0 * 64 * 64 * 16 * 16 * 32 * 9),
    "conv stride 2 8x64x32x32, 128": (_conv_strided, lambda x, w, b: nn.conv2d(x, w, b, 2, 1), [(8, 64, 32, 32), (128, 64, 3, 3), (128,)],
                                      4.0 * 8 * 128 * 16 * 16 * 64 * 9),
    "conv 1x1 stride 2 8x64x32x32, 128": (_conv_pointwise, lambda x, w, b: nn.conv2d(x, w, b, 2),
                                          [(8, 64, 32, 32), (128, 64, 1, 1), (128,)], 4.0 * 8 * 128 * 16 * 16 * 64),
    "conv in 4 groups 8x64x32x32": (_conv_grouped, lambda x, w, b: nn.conv2d(x, w, b, padding=1, groups=4),
                                    [(8, 64, 32, 32), (64, 16, 3, 3), (64,)], 4.0 * 8 * 64 * 32 * 32 * 16 * 9),
    "depthwise conv 8x64x32x32": (_conv_depthwise, lambda x, w, b: nn.conv2d(x, w, b, padding=1, groups=64),
                                  [(8, 64, 32, 32), (64, 1, 3, 3), (64,)], 0),
    "max pool 2 8x64x32x32": (_max_pool, lambda x: nn.max_pool2d(x, 2), [(8, 64, 32, 32)], 0),
    "max pool 3 stride 2 8x64x56x56": (_max_pool_overlapping, lambda x: nn.max_pool2d(x, 3, 2, 1), [(8, 64, 56, 56)], 0),
    "avg pool 3 stride 2 8x64x56x56": (_avg_pool, lambda x: nn.avg_pool2d(x, 3, 2, 1), [(8, 64, 56, 56)], 0),
    "layer norm 4096x1024": (layer_norm, lambda x, w, b: nn.layer_norm(x, (x.shape[1],), w, b), [(4096, 1024), (1024,), (1024,)], 0),
    "rms norm 4096x1024": (rms_norm, lambda x, w: nn.rms_norm(x, (x.shape[1],), w), [(4096, 1024), (1024,)], 0),
    "batch norm 16x64x32x32": (batch_statistics, _normed, [(16, 64, 32, 32), (64,), (64,)], 0),
    "layer norm 50000x32": (layer_norm, lambda x, w, b: nn.layer_norm(x, (x.shape[1],), w, b), [(50000, 32), (32,), (32,)], 0),
    "group norm 16x64x32x32": (_group_norm, lambda x, w, b: nn.group_norm(x, 8, w, b), [(16, 64, 32, 32), (64,), (64,)], 0),
    "softmax 4096x1024": (softmax, lambda x: torch.softmax(x, 1), [(4096, 1024)], 0),
    "log_softmax 4096x1024": (log_softmax, lambda x: torch.log_softmax(x, 1), [(4096, 1024)], 0),
    "attention 1x4x1024x64": (attention, nn.scaled_dot_product_attention, _heads(1, 4, 1024, 64), 10.0 * 4 * 1024 * 1024 * 64),
    "causal attention 1x4x2048x64": (causal_attention, _causal_of, _heads(1, 4, 2048, 64), 5.0 * 4 * 2048 * 2048 * 64),
    "linear gelu 1024x1024x1024": (linear_gelu, lambda x, w, b: nn.gelu(nn.linear(x, w, b)), [(1024, 1024), (1024, 1024), (1024,)],
                                   4.0 * 1024 ** 3),
    "embedding 4096 of 10000x256": (_embedding, nn.embedding, [_labels(4096, 10000), (10000, 256)], 0),
    "cross-entropy 2048x10000": (cross_entropy, nn.cross_entropy, [(2048, 10000), _labels(2048, 10000)], 0),
    "logsumexp 4096x1024": (_logsumexp, lambda x: torch.logsumexp(x, 1), [(4096, 1024)], 0),
    "amax 4096x1024": (_greatest, lambda x: torch.amax(x, 1), [(4096, 1024)], 0),
    "std 4096x1024": (_deviation, lambda x: torch.std(x, 1), [(4096, 1024)], 0),
    "cumsum 1024x1000": (_running_sum, lambda x: torch.cumsum(x, 1), [(1024, 1000)], 0),
    "cummax 1024x1000": (_running_max, lambda x: torch.cummax(x, 1)[0], [(1024, 1000)], 0),
    "reflecting pad 8x64x32x32": (_padded, lambda x: nn.pad(x, (2, 2, 2, 2), "reflect"), [(8, 64, 32, 32)], 0),
    "pointwise chain 4096x1024": (_chain, _chain_of, [(4096, 1024), (4096, 1024), (1024,)], 0),
}


def _conv_in_jax(stride: int = 1, padding: int = 0, groups: int = 1) -> Callable[..., Any]:
    def conv(x: Any, w: Any, b: Any) -> Any:
        y = jax.lax.conv_general_dilated(x, w, (stride,) * 2, ((padding,) * 2,) * 2, feature_group_count=groups)
        return y + b[:, None, None]

    return conv


def _pool_in_jax(first: float, name: str, window: int, stride: int, padding: int) -> Callable[..., Any]:
    around = ((0, 0),) * 2 + ((padding,) * 2,) * 2
    return lambda x: jax.lax.reduce_window(x, first, getattr(jax.lax, name), (1, 1, window, window), (1, 1, stride, stride), around)


def _attention_in_jax(q: Any, k: Any, v: Any, mask: Any = True) -> Any:
    scores = jnp.where(mask, q @ k.swapaxes(2, 3) * q.shape[3] ** -0.5, -jnp.inf)
    return jax.nn.softmax(scores, 3) @ v


def _causal_in_jax(q: Any, k: Any, v: Any) -> Any:
    return _attention_in_jax(q, k, v, jnp.tri(q.shape[2], k.shape[2], dtype=bool))


_IN_JAX: dict[int, Callable[..., Any]] = {id(kernel): function for kernel, function in (
    (_conv, _conv_in_jax(padding=1)), (_conv_strided, _conv_in_jax(2, 1)), (_conv_pointwise, _conv_in_jax(2)),
    (_conv_grouped, _conv_in_jax(padding=1, groups=4)), (_conv_depthwise, _conv_in_jax(padding=1, groups=64)),
    (_max_pool, _pool_in_jax(float("-inf"), "max", 2, 2, 0)), (_max_pool_overlapping, _pool_in_jax(float("-inf"), "max", 3, 2, 1)),
    (_avg_pool, lambda x: _pool_in_jax(0.0, "add", 3, 2, 1)(x) / 9),
    (layer_norm, normalisation.layer_norm_in_jax), (rms_norm, normalisation.rms_norm_in_jax),
    (batch_statistics, normalisation.batch_statistics_in_jax), (_group_norm, normalisation.group_norm_in_jax),
    (softmax, lambda x: jax.nn.softmax(x, 1)), (log_softmax, lambda x: jax.nn.log_softmax(x, 1)),
    (attention, _attention_in_jax), (causal_attention, _causal_in_jax),
    (linear_gelu, lambda x, w, b: jax.nn.gelu(x @ w.T + b, approximate=False)),
    (_embedding, lambda at, w: jnp.take(w, at, 0, mode="clip")), (cross_entropy, normalisation.cross_entropy_in_jax),
    (_logsumexp, lambda x: jax.nn.logsumexp(x, 1)), (_greatest, lambda x: x.max(1)), (_deviation, lambda x: x.std(1, ddof=1)),
    (_running_sum, lambda x: x.cumsum(1)), (_running_max, lambda x: jax.lax.cummax(x, 1)),
    (_padded, lambda x: jnp.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), "reflect")),
    (_chain, lambda x, y, b: jnp.tanh(x * 2.0 + b) * jax.nn.sigmoid(y) + jax.nn.silu(x)),
)}


class _JaxBackward:
    """The gradients of one function of JAX's: what the forward keeps is passed to a backward compiled by itself."""

    def __init__(self, function: Callable[..., Any], operands: Sequence[torch.Tensor]) -> None:
        floats = [n for n, t in enumerate(operands) if t.is_floating_point()]

        def forward(*given: Any) -> tuple[Any, Any]:
            result, pull = jax.vjp(lambda *leaves: function(*_with(given, floats, leaves)), *(given[n] for n in floats))
            return result, pull

        self.forward, self.operands = Jax(forward), operands

    def __call__(self) -> object:
        """The gradients of all float operands."""
        pull, cotangent, backward = self._made
        return jax.block_until_ready(backward(pull, cotangent))

    @cached_property
    def _made(self) -> tuple[Any, Any, Any]:
        made: Any = self.forward(*self.operands)
        result, pull = made
        cotangent = _cotangent(tuple(result.shape), torch.float32)
        return pull, jax.dlpack.from_dlpack(cotangent), jax.jit(lambda pull, c: pull(c))


def _with(given: Sequence[Any], at: Sequence[int], others: Sequence[Any]) -> list[Any]:
    replaced = dict(zip(at, others))
    return [replaced.get(n, x) for n, x in enumerate(given)]


def _cotangent(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(1)).to(dtype)


class _Backward:
    """The gradients of one function at some operands: its forward runs when the first are asked for."""

    def __init__(self, function: Callable[..., torch.Tensor], operands: Sequence[torch.Tensor], again: Callable[..., Any] | None = None,
                 **options: Any) -> None:
        self.function, self.operands, self.again, self.options = function, operands, again, options
        self._made: dict[int, tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]] = {}

    def __call__(self) -> object:
        """The gradients of all float operands."""
        threads = torch.get_num_threads()
        if threads not in self._made:
            self._made[threads] = self._forward()
        result, leaves, cotangent = self._made[threads]
        return torch.autograd.grad(result, leaves, cotangent, retain_graph=True)

    def _forward(self) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        inputs = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in self.operands]
        function = self.function if self.again is None else self.again(self.function, **self.options)
        result = function(*inputs)
        return result, [t for t in inputs if t.requires_grad], _cotangent(result.shape, result.dtype)


def _compiled(function: Callable[..., torch.Tensor], **options: Any) -> Callable[..., torch.Tensor]:
    torch._functorch.config.donated_buffer = False  # the graph is kept for the next call
    return torch.compile(function, dynamic=False, **options)


def _case(name: str) -> Case:
    kernel, function, operands, flops = _CASES[name]

    def setup() -> dict[str, Callable[[], object]]:
        made = [o() if callable(o) else torch.randn(*o) for o in operands]
        doubled = [t.double() if t.is_floating_point() else t for t in made]
        return {OURS: _Backward(untuned(kernel), made), "torch": _Backward(function, made),
                "compile": _Backward(function, made, _compiled),
                "autotune": _Backward(function, made, _compiled, mode="max-autotune-no-cudagraphs"),
                "jax": _JaxBackward(_IN_JAX[id(kernel)], made), REFERENCE: _Backward(function, doubled)}

    moved = 4.0 * 2 * sum(torch.Size(o).numel() for o in operands if not callable(o))
    return Case(name, setup, flops, moved)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(name) for name in _CASES]
