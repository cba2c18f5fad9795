"""Backwards alone, beside torch's and torch.compile's.

Convolutions (strided, grouped, depthwise, channels-last), pools, norms, softmax, attention, a linear layer with gelu, embedding,
cross-entropy, reductions, scans, pads and pointwise chains.
The forward runs once, outside of the time; a call asks autograd for the gradients of all float inputs from a fixed gradient of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import untuned
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
        cotangent = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype)
        return result, [t for t in inputs if t.requires_grad], cotangent


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
                REFERENCE: _Backward(function, doubled)}

    moved = 4.0 * 2 * sum(torch.Size(o).numel() for o in operands if not callable(o))
    return Case(name, setup, flops, moved)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(name) for name in _CASES]
