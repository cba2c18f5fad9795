"""Attention from its plain definition against torch's fused one: plain and causal, long and short queries, grouped heads, a bias."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.harness import Case, case, peers
from benchmarks.kernels import attention, causal_attention
from dlc import f32

B, H, G, R, M, N, D = dlc.dims("B H G R M N D")


@dlc.kernel
def _grouped(q: f32[B, G * R, M, D], k: f32[B, G, N, D], v: f32[B, G, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@dlc.kernel
def _biased(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D], bias: f32[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, bias)


# name -> (kernel, torch's, whether masked after the diagonal)
_KERNELS: dict[str, tuple[Any, Callable[..., object], bool]] = {
    "plain": (attention, nn.scaled_dot_product_attention, False),
    "causal": (causal_attention, lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, is_causal=True), True),
    "grouped": (_grouped, lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, enable_gqa=True), False),
    "bias": (_biased, lambda q, k, v, bias: nn.scaled_dot_product_attention(q, k, v, bias), False),
}
# batch, heads, heads of keys, queries, keys, features
_SHAPES = {
    "plain": ((1, 8, 8, 1024, 1024, 64), (8, 8, 8, 128, 128, 64), (1, 8, 8, 1, 4096, 64), (2, 4, 4, 500, 700, 80)),
    "causal": ((1, 8, 8, 1024, 1024, 64), (1, 1, 1, 4096, 4096, 64)),
    "grouped": ((1, 8, 2, 512, 512, 64),),
    "bias": ((1, 4, 4, 512, 512, 64),),
}


def _case(name: str, b: int, h: int, g: int, m: int, n: int, d: int) -> Case:
    kernel, function, half = _KERNELS[name]
    shapes = [(b, h, m, d), (b, g, n, d), (b, g, n, d)] + ([(m, n)] if name == "bias" else [])
    moved = 4 * (sum(torch.Size(s).numel() for s in shapes) + b * h * m * d)
    label = f"{name} {b}x{h}{'' if h == g else f'/{g}'}x{m}x{n}x{d}"
    return case(label, lambda: [torch.randn(*s) for s in shapes], {"dlc": kernel, **peers(function)},
                flops=4 * b * h * m * n * d // (2 if half else 1), bytes=moved)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(name, *shape) for name, shapes in _SHAPES.items() for shape in shapes]
