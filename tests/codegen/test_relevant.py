"""Points of a block past a diagonal are left out by register tiles, and what is left out changes nothing."""

from __future__ import annotations

import pytest
import torch

import dlc
from codegen.tile.ir import For, walk_ops
from dlc import f32

L, N, D = dlc.dims("L N D")

MASKS = {
    "causal": lambda i, j: j <= i,
    "window": lambda i, j: (j <= i) & (j > i - 20),
    "ahead": lambda i, j: j >= i,
    "steps": lambda i, j: j // 16 <= i // 16,
}


def kernel_of(allowed, **decisions):
    @dlc.kernel
    def attention(q: f32[L, D], k: f32[N, D], v: f32[N, D]):
        s = q @ k.T
        s = dlc.compute((L, N), lambda i, j: dlc.where(allowed(i, j), s[i, j], float("-inf")))
        return dlc.softmax(s) @ v

    attention.decisions = {"max.pass": "one", "max.parts": 1, **{f"max.{k}": v for k, v in decisions.items()}}
    return attention


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("rows, block", [(24, 32), (48, 64), (96, 16)])
def test_results_are_those_of_the_definition(name, rows, block):
    torch.manual_seed(0)
    q, k, v = (torch.randn(130, 16) for _ in range(3))
    kernel = kernel_of(MASKS[name], block=block, **{"roll.rows": rows})
    i, j = torch.arange(130)[:, None], torch.arange(130)[None]
    want = torch.softmax((q.double() @ k.double().T).masked_fill(~MASKS[name](i, j), float("-inf")), -1) @ v.double()
    torch.testing.assert_close(kernel(q, k, v).double(), want, rtol=1e-4, atol=1e-5)


def test_loops_over_points_of_a_block_end_at_the_diagonal():
    args = [torch.empty(192, 16) for _ in range(3)]
    tile = kernel_of(MASKS["causal"], block=64, **{"roll.rows": 48}).plan(*args).tile
    blocks = [op for p in tile.phases for op in walk_ops(p.body) if isinstance(op, For) and op.var.name.endswith("_b")]

    def bounded(block):
        return [op for op in walk_ops(block.body) if isinstance(op, For) and block.var in {*op.hi.vars, *op.lo.vars}]

    whole, diagonal = blocks
    assert not bounded(whole) and len(bounded(diagonal)) >= 4  # the scores, their maximum, the weights, their sum, the product
