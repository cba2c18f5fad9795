"""Matrix products: squares, odd sizes, slender ones, every orientation, batches, strided views, low precision."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

import dlc
from benchmarks.calls import Constant, jnp
from benchmarks.harness import Case, case, peers
from dlc import bf16, f16, f32

M, N, K, B = dlc.dims("M N K B")
_TORCH = {f32: torch.float32, bf16: torch.bfloat16, f16: torch.float16}
_SQUARES = (64, 128, 256, 512, 1024, 2048, 4096)
_ODD = ((1000, 777, 333), (127, 1025, 511), (509, 1021, 769))
_SLENDER = ((8, 4096, 4096), (4096, 64, 4096), (1, 4096, 4096), (32, 1024, 4096))


def product(kind: str, dtype: Any = f32) -> Any:
    """A kernel of the product with either factor stored transposed (``t``) or not (``n``)."""
    x_shape, w_shape = ((M, K) if kind[0] == "n" else (K, M)), ((K, N) if kind[1] == "n" else (N, K))

    @dlc.kernel
    def matmul(x: dtype[x_shape], w: dtype[w_shape]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N),
                           lambda i, j: dlc.sum((x[i, k] if kind[0] == "n" else x[k, i]) * (w[k, j] if kind[1] == "n" else w[j, k]), k))

    return matmul


def _turned(kind: str) -> Callable[..., object]:
    return lambda x, w: (x if kind[0] == "n" else x.T) @ (w if kind[1] == "n" else w.T)


def _product(x: Any, w: Any) -> Any:
    return jnp.matmul(x, w)


def _case(kind: str, m: int, n: int, k: int, dtype: Any = f32) -> Case:
    t = _TORCH[dtype]

    def inputs() -> list[torch.Tensor]:
        return [torch.randn(*((m, k) if kind[0] == "n" else (k, m))).to(t), torch.randn(*((k, n) if kind[1] == "n" else (n, k))).to(t)]

    moved = dtype.itemsize * (m * k + k * n + m * n)
    return case(f"{dtype} {kind} {m}x{n}x{k}", inputs, {"dlc": product(kind, dtype), **peers(_turned(kind), _turned(kind))},
                flops=2 * m * n * k, bytes=moved, dtype=str(dtype) if dtype is bf16 else "f32")


@dlc.kernel
def _batched(x: f32[B, M, K], w: f32[B, K, N]):
    return x @ w


@dlc.kernel
def _plain(x: f32[M, K], w: f32[K, N]):
    return x @ w


def _batch(b: int, m: int, n: int, k: int) -> Case:
    return case(f"f32 batch {b}x{m}x{n}x{k}", lambda: [torch.randn(b, m, k), torch.randn(b, k, n)],
                {"dlc": _batched, **peers(torch.bmm, _product)},
                flops=2 * b * m * n * k, bytes=4 * b * (m * k + k * n + m * n))


def _constant(kind: str, m: int, n: int, k: int) -> Case:
    """The second factor does not change from call to call: ours is packed once. The libraries have no such call in eager mode."""
    return case(f"f32 {kind} constant {m}x{n}x{k}", lambda: [torch.randn(m, k), torch.randn(*((k, n) if kind[1] == "n" else (n, k)))],
                {"dlc": Constant(product(kind)), **peers(_turned(kind), _turned(kind))},
                flops=2 * m * n * k, bytes=4 * (m * k + k * n + m * n))


def _strided(n: int) -> Case:
    """Every second row of one factor, every second column of the other."""
    return case(f"f32 strided {n}", lambda: [torch.randn(2 * n, n)[::2], torch.randn(n, 2 * n)[:, ::2]],
                {"dlc": _plain, **peers(torch.matmul, _product)}, flops=2 * n**3, bytes=12 * n * n)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    yield from (_case("nn", n, n, n) for n in _SQUARES)
    yield from (_case(kind, *shape) for kind in ("nn", "nt") for shape in (*_ODD, *_SLENDER))
    yield from (_case(kind, n, n, n) for kind in ("nt", "tn", "tt") for n in (256, 1024, 2048))
    yield from (_batch(*shape) for shape in ((32, 128, 128, 64), (96, 64, 64, 64), (8, 512, 512, 64)))
    yield from (_constant(kind, *shape) for kind in ("nn", "nt") for shape in ((8, 1024, 4096), (32, 1024, 4096), (128, 1024, 1024)))
    yield _strided(512)
    yield from (_case(kind, *shape, bf16) for kind in ("nn", "nt")
                for shape in ((256,) * 3, (1024,) * 3, (2048,) * 3, *_ODD[:2], (8, 4096, 4096)))
    yield _case("nt", 512, 512, 512, f16)
