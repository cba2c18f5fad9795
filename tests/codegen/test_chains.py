"""Reductions that are chains by themselves, and the blocks of a row that one pass goes through."""

import pytest
import torch

import dlc
from codegen.heuristics.chains import share
from codegen.heuristics.decisions import Setting
from codegen.target import by_name
from dlc import f32

M, N = dlc.dims("M N")


@dlc.kernel
def largest(x: f32[M, N]):
    return dlc.logsumexp(x, 1)


@dlc.kernel
def masked(x: f32[M, N]):
    return dlc.logsumexp(dlc.where(x > 0, x, -100.0), 1)


def rolls(kernel, *shape: int) -> bool:
    return any(s.kind == "roll" for s in kernel.plan(torch.empty(shape, device="meta")).nest.stages)


def test_a_logarithm_of_sums_goes_block_by_block():
    assert rolls(largest, 4096, 1000) and "one exponential" in largest.explain(torch.empty(4096, 1000, device="meta"))
    assert not rolls(largest, 100000, 10)  # rows written out, one in each lane
    assert not rolls(masked, 4096, 1000)  # its elements would be made twice


@pytest.mark.parametrize("shape", [(37, 1000), (50, 16), (3, 10000), (5, 4099)])
def test_its_results_are_right(shape):
    x = torch.randn(shape)
    x[1] = -float("inf")
    x[2, 3] = float("inf")
    torch.testing.assert_close(largest(x), torch.logsumexp(x, 1), rtol=1e-5, atol=1e-5)


def test_blocks_of_a_row_are_equal_where_they_can_be():
    cpu, gpu = (Setting(by_name(name), {}) for name in ("x86-64-avx2", "sm_90"))
    assert [share(n, 4096, cpu) for n in (1000, 10000, 32000, 16384, 50257)] == [1000, 2000, 4000, 4096, 4096]
    assert share(10000, 4096, gpu) == 4096
