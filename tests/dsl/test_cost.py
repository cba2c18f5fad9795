"""Counted operations and least traffic, against counts by hand."""

from __future__ import annotations

import pytest

import dlc
from dlc import f16, f32
from dsl.cost import bytes_moved, flops
from dsl.errors import ShapeError
from dsl.program import Program

M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def scaled(x: f16[M, N]):
    return x * 2.0 + 1.0


@dlc.kernel
def norms(x: f32[M, N]):
    k = dlc.reduce_axis(N)
    return dlc.compute((M, N), lambda i, j: x[i, j] * dlc.sum(x[i, k] * x[i, k], k))


def sized(kernel: dlc.Kernel, **sizes: int) -> Program:
    return kernel.program.specialize({v: sizes[v.name] for v in kernel.program.dims})


def test_a_product_and_its_traffic() -> None:
    p = sized(product, M=3, N=5, K=7)
    assert flops(p) == 2 * 3 * 5 * 7 and bytes_moved(p) == 4 * (3 * 7 + 7 * 5 + 3 * 5)


def test_pointwise_operations_are_counted_at_every_point() -> None:
    p = sized(scaled, M=4, N=6, K=0)
    assert flops(p) == 2 * 4 * 6 and bytes_moved(p) == 2 * (4 * 6) * 2


def test_what_stands_under_a_sum_is_counted_over_its_axis() -> None:
    assert flops(sized(norms, M=2, N=8)) == 2 * 8 * (2 * 8 + 1), "as written, the sum is made for every element"


def test_sizes_must_be_known() -> None:
    with pytest.raises(ShapeError, match="is not known"):
        flops(product.program)
    with pytest.raises(ShapeError, match="is not known"):
        bytes_moved(product.program)
