"""A run-time check that failed says which index it was, its value, and what it had to be."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import dlc
from dlc import f32, i32, i64
from dsl.errors import BoundsError
from dsl.strays import find_stray

M, N, K = dlc.dims("M N K")


@dlc.kernel
def looked_up(table: f32[K, N], idx: i64[M]):
    return dlc.compute((M, N), lambda i, j: table[idx[i], j])


@dlc.kernel
def masked(table: f32[K], idx: i32[M]):
    return dlc.compute((M,), lambda i: dlc.where(idx[i] < 0, 0.0, table[idx[i]]))


@dlc.kernel
def bags(table: f32[K], idx: i64[M, N]):
    k = dlc.reduce_axis(N)
    return dlc.compute((M,), lambda i: dlc.sum(table[idx[i, k] + 1], k))


@dlc.kernel
def indirect(table: f32[K], idx: i64[M]):
    moved = dlc.compute((M,), lambda i: idx[i] * 2, name="moved")
    return dlc.compute((M,), lambda i: table[moved[i]])


def test_the_value_and_its_position() -> None:
    idx = torch.zeros(20, dtype=torch.int64)
    idx[12] = 40
    with pytest.raises(BoundsError) as e:
        looked_up(torch.randn(32, 5), idx)
    assert e.value.reason == "idx[12] is 40, outside [0, 32): table has 32 elements in dimension 0\nit is read at i = 12"
    assert e.value.loc.file == __file__ and "table[idx[i], j]" in e.value.loc.text


def test_a_branch_that_is_not_taken_is_no_fault() -> None:
    idx = np.array([3, -7, 2], np.int32)
    assert find_stray(masked.program, [np.zeros(4, np.float32), idx]) is None
    assert masked(np.arange(4, dtype=np.float32), idx).tolist() == [3.0, 0.0, 2.0]
    with pytest.raises(BoundsError, match=re.escape("idx[2] is 4, outside [0, 4)")):
        masked(np.arange(4, dtype=np.float32), np.array([3, -7, 4], np.int32))


def test_inside_a_sum_and_computed() -> None:
    idx = torch.zeros(4, 6, dtype=torch.int64)
    idx[3, 5] = 9
    with pytest.raises(BoundsError, match=re.escape("`idx[i, k] + 1` is 10, outside [0, 10)")):
        bags(torch.randn(10), idx)
    with pytest.raises(BoundsError, match=re.escape("moved[1] is 10, outside [0, 10)")):
        indirect(torch.randn(10), torch.tensor([4, 5, 0]))


def test_several_rows_are_fine() -> None:
    assert find_stray(looked_up.program, [np.zeros((3, 2), np.float32), np.array([0, 2, 1])]) is None
    assert find_stray(looked_up.program, [np.zeros((3, 0), np.float32), np.array([0, 7, 1])]) is None
