"""Rolling stages as loops: which blocks run, and what is known in them."""

from __future__ import annotations

import torch

import dlc
from codegen.tile.ir import For, walk_ops
from dlc import f32

M, N, D = dlc.dims("M N D")


def loops(masked, m, n, at=1):
    """(lo, hi) of the loops over blocks of keys, for one block of rows."""
    @dlc.kernel
    def attention(q: f32[M, D], k: f32[N, D], v: f32[N, D]):
        s = q @ k.T
        s = dlc.compute((M, N), lambda i, j: dlc.where(masked(i, j), s[i, j], float("-inf")))
        return dlc.softmax(s) @ v

    args = [torch.empty(m, 16), torch.empty(n, 16), torch.empty(n, 16)]
    attention.decisions = {"max.block": 64, "max.roll.rows": 48, "max.parts": 1}
    tile = attention.plan(*args).tile
    found = [op for p in tile.phases for op in walk_ops(p.body) if isinstance(op, For) and op.var.name.endswith("_b")]
    (grid,) = {v for p in tile.phases for v, _ in p.grid}
    return [[int(t.subs({grid: at}).const) for t in (op.lo, op.hi)] for op in found]


def test_every_block_runs_where_nothing_is_masked():
    assert loops(lambda i, j: j < 100000, 96, 256) == [[0, 4]]


def test_blocks_after_the_diagonal_do_not_run():
    assert loops(lambda i, j: j <= i, 192, 256, at=3) == [[0, 2], [2, 3]]  # rows 144 to 191: unmasked up to 127, the last key is 191


def test_blocks_before_a_window_do_not_run():
    found = loops(lambda i, j: (j <= i) & (j > i - 20), 480, 480)
    assert found[0][0] == 0 and found[-1][1] == 2


def test_a_ragged_last_block_is_masked_alone():
    found = loops(lambda i, j: j < 100000, 48, 230)
    assert found == [[0, 3]]  # the fourth, ragged, is a single block and no loop
