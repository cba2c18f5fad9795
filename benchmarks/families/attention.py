"""Attention from its plain definition against torch's fused one.

Plain, causal, with a bias, with ALiBi, in a window; grouped heads; one query, short ones, many short sequences, ragged lengths, long ones.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import dlc
from benchmarks.harness import Case, case, compiled, peers
from dlc import bf16, f32

B, G, R, M, N, D = dlc.dims("B G R M N D")
_TORCH = {f32: torch.float32, bf16: torch.bfloat16}
_WINDOW = 256  # keys that a query sees

# batch, heads, heads of keys, queries, keys, features
_SHAPES = {
    ("plain", f32): (
        (1, 8, 8, 1024, 1024, 64), (8, 8, 8, 128, 128, 64), (1, 8, 8, 1, 4096, 64), (2, 4, 4, 500, 700, 80), (64, 8, 8, 1, 1, 64),
        (64, 8, 8, 17, 17, 64), (16, 8, 8, 77, 77, 64), (4, 8, 8, 32, 1024, 64), (1, 8, 8, 512, 512, 32), (1, 8, 8, 512, 512, 128),
        (1, 2, 2, 8192, 8192, 64)),
    ("causal", f32): ((1, 8, 8, 1024, 1024, 64), (1, 1, 1, 4096, 4096, 64), (16, 8, 8, 77, 77, 64), (1, 4, 4, 8192, 8192, 64)),
    ("grouped", f32): ((1, 8, 2, 512, 512, 64), (1, 32, 8, 1, 4096, 128), (8, 16, 4, 1, 512, 64)),
    ("bias", f32): ((1, 4, 4, 512, 512, 64),),
    ("alibi", f32): ((1, 8, 8, 1024, 1024, 64),),
    ("window", f32): ((1, 4, 4, 2048, 2048, 64),),
    ("plain", bf16): ((1, 8, 8, 1024, 1024, 64), (8, 8, 8, 128, 128, 64), (16, 8, 8, 77, 77, 64)),
    ("causal", bf16): ((1, 8, 8, 1024, 1024, 64),),
    ("grouped", bf16): ((1, 32, 8, 1, 4096, 128),),
    ("alibi", bf16): ((1, 8, 8, 1024, 1024, 64),),
}


@cache
def _kernel(kind: str, dtype: Any) -> Any:
    heads = G * R if kind == "grouped" else G

    @dlc.kernel
    def attention(q: dtype[B, heads, M, D], k: dtype[B, G, N, D], v: dtype[B, G, N, D]):
        mask = None
        if kind == "alibi":
            slope = dlc.compute((G,), lambda h: dlc.exp2(dlc.cast(h + 1, f32) * -8.0 / dlc.cast(G, f32)))
            mask = dlc.compute((G, M, N), lambda h, i, j: dlc.where(j <= i, slope[h] * dlc.cast(j - i, f32), float("-inf")))
        if kind == "window":
            mask = dlc.compute((M, N), lambda i, j: (j <= i) & (j > i - _WINDOW))
        return dlc.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal", enable_gqa=kind == "grouped")

    return attention


@dlc.kernel
def _biased(q: f32[B, G, M, D], k: f32[B, G, N, D], v: f32[B, G, N, D], bias: f32[M, N]):
    return dlc.scaled_dot_product_attention(q, k, v, bias)


# -- torch's -------------------------------------------------------------------------------------------------------
@cache
def _slopes(heads: int) -> torch.Tensor:
    return torch.exp2(-8.0 * torch.arange(1, heads + 1) / heads)


@cache
def _mask(kind: str, heads: int, m: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """The matrix that torch's fused attention wants, made once, outside of the time."""
    i, j = torch.arange(m)[:, None], torch.arange(n)
    if kind == "window":
        return (j <= i) & (j > i - _WINDOW)
    return (_slopes(heads)[:, None, None] * (j - i)).masked_fill(j > i, float("-inf")).to(dtype)


def _masked(kind: str) -> Callable[..., Any]:
    return lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, _mask(kind, q.shape[1], q.shape[2], k.shape[2], q.dtype))


def _flexible(kind: str, heads: int, m: int, n: int) -> Callable[..., Any]:
    """The same for torch.compile: no matrix, and blocks that the mask leaves out are known before the first call."""
    slopes = _slopes(heads)

    def sloped(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return score + slopes[h] * (j - i)

    def seen(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (j <= i) & (j > i - _WINDOW) if kind == "window" else j <= i

    blocks = create_block_mask(seen, None, None, m, n, device="cpu")
    return lambda q, k, v: flex_attention(q, k, v, score_mod=sloped if kind == "alibi" else None, block_mask=blocks)


def _peers(kind: str, h: int, m: int, n: int) -> dict[str, Callable[..., Any]]:
    if kind in ("alibi", "window"):
        return {"torch": _masked(kind), "compile": compiled(_flexible(kind, h, m, n))}
    if kind == "bias":
        return peers(lambda q, k, v, bias: nn.scaled_dot_product_attention(q, k, v, bias))
    return peers(lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, is_causal=kind == "causal", enable_gqa=kind == "grouped"))


# -- cases ---------------------------------------------------------------------------------------------------------
def _seen(kind: str, m: int, n: int) -> int:
    """Pairs of a query and a key that it sees."""
    if kind == "window":
        return sum(min(i + 1, _WINDOW, n) for i in range(m))
    return m * n // (2 if kind in ("causal", "alibi") else 1)


def _case(kind: str, dtype: Any, b: int, h: int, g: int, m: int, n: int, d: int) -> Case:
    kernel = _biased if kind == "bias" else _kernel(kind, dtype)
    shapes = [(b, h, m, d), (b, g, n, d), (b, g, n, d)] + ([(m, n)] if kind == "bias" else [])
    moved = dtype.itemsize * (sum(torch.Size(s).numel() for s in shapes) + b * h * m * d)
    label = f"{'' if dtype is f32 else f'{dtype} '}{kind} {b}x{h}{'' if h == g else f'/{g}'}x{m}x{n}x{d}"
    return case(label, lambda: [torch.randn(*s).to(_TORCH[dtype]) for s in shapes], {"dlc": kernel, **_peers(kind, h, m, n)},
                flops=4 * b * h * _seen(kind, m, n) * d, bytes=moved, dtype=str(dtype))


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(*key, *shape) for key, shapes in _SHAPES.items() for shape in shapes]
