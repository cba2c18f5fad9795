"""Reductions go as far as their terms count: conditions whose other side changes nothing end loops instead of masking them."""

from __future__ import annotations

import pytest
import torch

import dlc
from codegen.tile.ir import For, Map, walk_ops
from dlc import f32

N = 203


def selections(ops) -> int:
    return sum(isinstance(op, Map) and op.name == "where" for op in ops)


def triangle(x: f32[N, N], *, least: bool, carrier=dlc.sum, neutral: float = 0.0):
    k = dlc.reduce_axis(N)
    return dlc.compute((N,), lambda i: carrier(dlc.where(i <= k if least else k <= i, x[i, k], neutral), k))


@pytest.mark.parametrize(("carrier", "neutral"), [(dlc.sum, 0.0), (dlc.max, float("-inf")), (dlc.max, 0.5), (dlc.sum, 1.0)])
@pytest.mark.parametrize("least", [False, True])
def test_up_to_the_diagonal_and_from_it(carrier, neutral: float, least: bool) -> None:
    @dlc.kernel
    def kernel(x: f32[N, N]):
        return triangle(x, least=least, carrier=carrier, neutral=neutral)

    x = torch.randn(N, N)
    kept = x.triu() if least else x.tril()
    filled = torch.where(torch.ones(N, N).triu().bool() if least else torch.ones(N, N).tril().bool(), kept, torch.tensor(neutral))
    torch.testing.assert_close(kernel(x), filled.sum(1) if carrier is dlc.sum else filled.amax(1), rtol=1e-5, atol=1e-4)
    phase = kernel.plan(x).tile.phases[0]
    ends = [op.hi.is_const for op in walk_ops(phase.body) if isinstance(op, For)]
    assert all(ends) == (least or neutral in (0.5, 1.0)), "loops end at the diagonal where nothing counts beyond it"


@pytest.mark.parametrize("rows", [1000, 999, 1])
@pytest.mark.parametrize("function", [dlc.sum, dlc.max, dlc.min, dlc.argmax, dlc.argmin, dlc.prod], ids=lambda f: f.__name__)
def test_ragged_chunks(function, rows: int) -> None:
    @dlc.kernel
    def kernel(x: f32[rows, 777]):
        return function(x)

    x = 1 + torch.randn(rows, 777) * 1e-3
    got = kernel(x)
    want = getattr(torch, function.__name__)(x.double()).to(got.dtype)
    torch.testing.assert_close(got, want, rtol=1e-4 if function is dlc.prod else 1e-5, atol=0)


def test_only_the_last_tile_of_a_ragged_chunk_is_masked() -> None:
    @dlc.kernel
    def kernel(x: f32[1000, 777]):
        return dlc.sum(x)

    part = kernel.plan(torch.empty(1000, 777)).tile.phases[0]
    full, last = [op for op in part.body.ops if isinstance(op, For)]
    assert selections(walk_ops(full.body)) == 0 and selections(walk_ops(last.body)) == 1
