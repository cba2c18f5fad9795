"""dlc.data.Loader: every example once, orders that a seed decides, last batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc.data import Loader
from dsl.errors import ArgumentError


def test_batches_in_order_and_the_last_one() -> None:
    x, y = np.arange(20, dtype=np.float32).reshape(10, 2), torch.arange(10)
    batches = list(Loader(x, y, batch_size=4))
    assert [len(b[0]) for b in batches] == [4, 4, 2] and batches[2][1].tolist() == [8, 9]
    assert batches[0][0].dtype == dlc.f32 and batches[0][1].dtype == dlc.i64
    assert [len(b[0]) for b in Loader(x, y, batch_size=4, drop_last=True)] == [4, 4]
    assert len(Loader(x, batch_size=4)) == 3 and len(Loader(x, batch_size=4, drop_last=True)) == 2


def test_orders_follow_from_the_seed() -> None:
    def orders(seed: int) -> list[list[int]]:
        loader = Loader(np.arange(10), batch_size=10, shuffle=True, seed=seed)
        return [next(iter(loader))[0].tolist() for _ in range(2)]

    first, second = orders(1)
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert orders(1) == [first, second] and orders(2) != [first, second]


def test_refused() -> None:
    with pytest.raises(ArgumentError, match=r"lengths \[3, 4\]"):
        Loader(np.zeros(3), np.zeros(4))
    with pytest.raises(ArgumentError, match="batches of 0"):
        Loader(np.zeros(3), batch_size=0)
