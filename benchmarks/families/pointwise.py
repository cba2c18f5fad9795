"""Pointwise chains: one operation to thirty, broadcasts, mixed dtypes, transposed and strided operands."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import jax, jnp
from benchmarks.harness import Case, case, peers
from dlc import bf16, f32, u8

M, N = dlc.dims("M N")


@dlc.kernel
def _add(x: f32[M, N], y: f32[M, N]):
    return x + y


@dlc.kernel
def _axpby(x: f32[M, N], y: f32[M, N]):
    return 2.0 * x + 3.0 * y - 1.0


@dlc.kernel
def _scale_shift(x: f32[M, N], s: f32[N], b: f32[N]):
    return dlc.relu(x * s + b)


@dlc.kernel
def _columns(x: f32[M, N], c: f32[M, 1]):
    return (x - c) * 0.5


def _chain(length: int, select: Callable[..., Any], least: Callable[..., Any]) -> Callable[..., Any]:
    """``length`` operations of five kinds in turn, the same for both libraries."""
    def run(x: Any, y: Any) -> Any:
        z = x
        for n in range(length // 5):
            z = least((z * y + 0.25) - x, y)
            z = select(z > 0.125 * n, z, -z)
        return z

    return run


def _chained(length: int) -> Any:
    body = _chain(length, dlc.where, dlc.minimum)

    @dlc.kernel
    def chain(x: f32[M, N], y: f32[M, N]):
        return body(x, y)

    return chain


@dlc.kernel
def _to_bf16(x: f32[M, N]):
    return dlc.cast(x * 2.0, bf16)


@dlc.kernel
def _bf16_residual(x: bf16[M, N], r: f32[M, N]):
    return dlc.cast(x, f32) + r


@dlc.kernel
def _from_bytes(x: u8[M, N]):
    return dlc.cast(x, f32) / 255.0 - 0.5


@dlc.kernel
def _transposed(x: f32[M, N], y: f32[N, M]):
    return x + dlc.transpose(y, 1, 0)


def _case(name: str, shape: tuple[int, int], inputs: Callable[[int, int], list[torch.Tensor]], kernel: Any, function: Callable[..., object],
          in_jax: Callable[..., object], flops: int, width: int = 4) -> Case:
    m, n = shape
    moved = m * n * width + sum(t.untyped_storage().nbytes() if t.is_contiguous() else t.numel() * t.element_size() for t in inputs(m, n))
    return case(f"{name} {m}x{n}", lambda: inputs(m, n), {"dlc": kernel, **peers(function, in_jax)}, flops=flops * m * n, bytes=moved)


def _sum(x: Any, y: Any) -> Any:
    return x + y


def _axpby_of(x: Any, y: Any) -> Any:
    return 2.0 * x + 3.0 * y - 1.0


def _two(m: int, n: int) -> list[torch.Tensor]:
    return [torch.randn(m, n), torch.randn(m, n)]


def cases() -> Iterable[Case]:
    """Every case of the family."""
    for shape in ((100, 100), (1000, 1000), (4096, 4096)):
        yield _case("add", shape, _two, _add, torch.add, _sum, 1)
        yield _case("axpby", shape, _two, _axpby, _axpby_of, _axpby_of, 4)
    for length in (5, 10, 30):
        yield _case(f"chain of {length}", (1000, 1000), _two, _chained(length), _chain(length, torch.where, torch.minimum),
                    _chain(length, lambda *x: jnp.where(*x), lambda *x: jnp.minimum(*x)), length)
    for shape in ((1000, 1000), (333, 777)):
        yield _case("scale shift relu", shape, lambda m, n: [torch.randn(m, n), torch.randn(n), torch.randn(n)], _scale_shift,
                    lambda x, s, b: nn.relu(x * s + b), lambda x, s, b: jax.nn.relu(x * s + b), 3)
        yield _case("minus column", shape, lambda m, n: [torch.randn(m, n), torch.randn(m, 1)], _columns,
                    lambda x, c: (x - c) * 0.5, lambda x, c: (x - c) * 0.5, 2)
    big = (2048, 2048)
    yield _case("f32 to bf16", big, lambda m, n: [torch.randn(m, n)], _to_bf16, lambda x: (x * 2.0).to(torch.bfloat16),
                lambda x: (x * 2.0).astype(jnp.bfloat16), 2, 2)
    yield _case("bf16 plus f32", big, lambda m, n: [torch.randn(m, n).bfloat16(), torch.randn(m, n)], _bf16_residual,
                lambda x, r: x.float() + r, lambda x, r: x.astype(jnp.float32) + r, 2)
    yield _case("bytes to f32", big, lambda m, n: [torch.randint(0, 256, (m, n), dtype=torch.uint8)], _from_bytes,
                lambda x: x.float() / 255.0 - 0.5, lambda x: x.astype(jnp.float32) / 255.0 - 0.5, 3)
    yield _case("plus transposed", (2000, 1000), lambda m, n: [torch.randn(m, n), torch.randn(n, m)], _transposed,
                lambda x, y: x + y.T, lambda x, y: x + y.T, 1)
    yield _case("strided columns", (1000, 1000), lambda m, n: [torch.randn(m, 2 * n)[:, ::2], torch.randn(m, n)], _add, torch.add, _sum, 1)
    yield _case("strided rows", (1000, 1000), lambda m, n: [torch.randn(2 * m, n)[::2], torch.randn(m, n)], _add, torch.add, _sum, 1)
