"""Every point of a grid is computed once, whoever takes it."""

from __future__ import annotations

import pytest
import torch

import dlc
from dlc import f32

L, D = dlc.dims("L D")


@dlc.kernel
def causal(q: f32[L, D], k: f32[L, D], v: f32[L, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_points_of_unequal_work_are_dealt_and_a_call_begins_anew(threads):
    torch.manual_seed(0)
    q, k, v = (torch.randn(500, 32) for _ in range(3))
    assert "atomicrmw" in causal.source("cpu", q, k, v)
    want = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    results = []
    for n in (1, 2, 3, 2):
        threads(n)
        results += [causal(q, k, v), causal(q, k, v)]
    torch.testing.assert_close(results[0].double(), want, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(r, results[0]) for r in results)


def test_points_of_equal_work_are_runs(threads):
    x = torch.randn(300, 64)

    @dlc.kernel
    def double(x: f32[L, D]):
        return x * 2.0

    assert "atomicrmw" not in double.source("cpu", x)
    threads(3)
    assert torch.equal(double(x), x * 2.0)
