"""Matrix products with what comes before and after them fused in: bias, gelu, gated silu, residual, scale, conversion, row sums."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import jax, jnp
from benchmarks.harness import Case, case, peers
from benchmarks.kernels import linear_gelu
from dlc import bf16, f32

M, N, K = dlc.dims("M N K")
_SHAPES = ((512, 1024, 1024), (64, 2048, 1024), (1000, 777, 333))


@dlc.kernel
def _residual(x: f32[M, K], w: f32[N, K], b: f32[N], r: f32[M, N]):
    return dlc.linear(x, w, b) + r


@dlc.kernel
def _scaled(x: f32[M, K], w: f32[N, K], s: f32[K]):
    return dlc.linear(x * s, w)


@dlc.kernel
def _gated(x: f32[M, K], u: f32[N, K], v: f32[N, K]):
    return dlc.silu(dlc.linear(x, u)) * dlc.linear(x, v)


@dlc.kernel
def _rounded(x: f32[M, K], w: f32[N, K]):
    return dlc.cast(dlc.relu(dlc.linear(x, w)), bf16)


@dlc.kernel
def _row_sums(x: f32[M, K], w: f32[N, K]):
    return dlc.sum(dlc.relu(dlc.linear(x, w)), axis=1)


# name -> (kernel, in torch, in JAX, shapes)
_KERNELS: dict[str, tuple[Any, Callable[..., object], Callable[..., object], Callable[[int, int, int], list[tuple[int, ...]]]]] = {
    "bias gelu": (linear_gelu, lambda x, w, b: nn.gelu(nn.linear(x, w, b)), lambda x, w, b: jax.nn.gelu(x @ w.T + b, approximate=False),
                  lambda m, n, k: [(m, k), (n, k), (n,)]),
    "bias residual": (_residual, lambda x, w, b, r: nn.linear(x, w, b) + r, lambda x, w, b, r: x @ w.T + b + r,
                      lambda m, n, k: [(m, k), (n, k), (n,), (m, n)]),
    "scaled": (_scaled, lambda x, w, s: nn.linear(x * s, w), lambda x, w, s: (x * s) @ w.T, lambda m, n, k: [(m, k), (n, k), (k,)]),
    "silu gate": (_gated, lambda x, u, v: nn.silu(nn.linear(x, u)) * nn.linear(x, v), lambda x, u, v: jax.nn.silu(x @ u.T) * (x @ v.T),
                  lambda m, n, k: [(m, k), (n, k), (n, k)]),
    "relu to bf16": (_rounded, lambda x, w: nn.relu(nn.linear(x, w)).to(torch.bfloat16),
                     lambda x, w: jax.nn.relu(x @ w.T).astype(jnp.bfloat16), lambda m, n, k: [(m, k), (n, k)]),
    "row sums": (_row_sums, lambda x, w: nn.relu(nn.linear(x, w)).sum(1), lambda x, w: jax.nn.relu(x @ w.T).sum(1),
                 lambda m, n, k: [(m, k), (n, k)]),
}


def _case(name: str, m: int, n: int, k: int) -> Case:
    kernel, function, in_jax, shapes = _KERNELS[name]
    operands = shapes(m, n, k)
    products = 2 if name == "silu gate" else 1
    moved = 4 * (sum(torch.Size(s).numel() for s in operands) + m * n)
    return case(f"{name} {m}x{n}x{k}", lambda: [torch.randn(*s) for s in operands], {"dlc": kernel, **peers(function, in_jax)},
                flops=2 * m * n * k * products, bytes=moved)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(name, *shape) for name in _KERNELS for shape in _SHAPES]
