"""Elements moved and not computed: gathers, embeddings, transposes, concatenation, padding, triangles."""

from collections.abc import Iterable

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import jnp
from benchmarks.harness import Case, case, peers
from dlc import f32, i64

M, N, K, V = dlc.dims("M N K V")


@dlc.kernel
def _embedding(i: i64[M], table: f32[V, N]):
    return dlc.embedding(i, table)


@dlc.kernel
def _gather(x: f32[M, N], i: i64[M, K]):
    return dlc.gather(x, 1, i)


@dlc.kernel
def _turned(x: f32[M, N]):
    return dlc.transpose(x, 1, 0) * 1.0


@dlc.kernel
def _heads(x: f32[8, 128, 12, 64]):
    return dlc.transpose(x, 0, 2, 1, 3) * 1.0


@dlc.kernel
def _concat(x: f32[M, N], y: f32[M, K]):
    return dlc.concat([x, y], axis=1)


@dlc.kernel
def _pad(x: f32[8, 64, 56, 56]):
    return dlc.pad(x, (1, 1, 1, 1))


@dlc.kernel
def _triangle(x: f32[M, N]):
    return dlc.tril(x)


@dlc.kernel
def _flip(x: f32[M, N]):
    return dlc.flip(x, 1)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    for count, rows, width in ((4096, 50000, 256), (512, 32000, 1024), (16384, 1000, 64)):
        yield case(f"embedding {count} of {rows}x{width}",
                   lambda c=count, r=rows, w=width: [torch.randint(0, r, (c,)), torch.randn(r, w)],
                   {"dlc": _embedding, **peers(nn.embedding, lambda i, table: jnp.take(table, i, 0, mode="clip"))}, bytes=8 * count * width)
    yield case("gather 4096x100 of 4096x1000", lambda: [torch.randn(4096, 1000), torch.randint(0, 1000, (4096, 100))],
               {"dlc": _gather, **peers(lambda x, i: x.gather(1, i), lambda x, i: jnp.take_along_axis(x, i, 1, mode="clip"))},
               bytes=16 * 4096 * 100)
    for m, n in ((1000, 1000), (2048, 2048), (4096, 64), (333, 4097)):
        yield case(f"transpose {m}x{n}", lambda m=m, n=n: [torch.randn(m, n)],
                   {"dlc": _turned, **peers(lambda x: x.T.contiguous(), lambda x: x.T)}, bytes=8 * m * n)
    yield case("heads 8x128x12x64", lambda: [torch.randn(8, 128, 12, 64)],
               {"dlc": _heads, **peers(lambda x: x.permute(0, 2, 1, 3).contiguous(), lambda x: x.transpose(0, 2, 1, 3))},
               bytes=8 * 8 * 128 * 12 * 64)
    yield case("concat 2048x(512+333)", lambda: [torch.randn(2048, 512), torch.randn(2048, 333)],
               {"dlc": _concat, **peers(lambda x, y: torch.cat([x, y], 1), lambda x, y: jnp.concatenate([x, y], 1))}, bytes=8 * 2048 * 845)
    yield case("pad 8x64x56x56", lambda: [torch.randn(8, 64, 56, 56)],
               {"dlc": _pad, **peers(lambda x: nn.pad(x, (1, 1, 1, 1)), lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))},
               bytes=8 * 8 * 64 * 57 * 57)
    yield case("tril 2048x2048", lambda: [torch.randn(2048, 2048)], {"dlc": _triangle, **peers(torch.tril, lambda x: jnp.tril(x))},
               bytes=6 * 2048 * 2048)
    yield case("flip 2048x2048", lambda: [torch.randn(2048, 2048)], {"dlc": _flip, **peers(lambda x: x.flip(1), lambda x: x[:, ::-1])},
               bytes=8 * 2048 * 2048)
