"""Scans: every direction, carrier and layout against numpy and the oracle, on the CPU and as tile programs."""

import numpy as np
import pytest
import torch

import dlc
from codegen.heuristics import default_schedule
from codegen.lower import lower
from codegen.target import by_name
from codegen.tile.verify import verify
from dlc import f32, i32
from dsl.carrier import ARGMAX, LOGSUMEXP, MAX, PROD, RECURRENCE, SUM
from dsl.expr import scan
from dsl.program import axis_of
from dsl.stages import build_nest
from tests.codegen.products import run

M, N = dlc.dims("M N")


def scanning(carrier, axis=1, **options):
    """Prefixes of a matrix along an axis."""
    @dlc.kernel
    def prefixes(x: f32[M, N]):
        def at(i, j):
            k = dlc.reduce_axis(x.shape[axis])
            element = x[i, k] if axis == 1 else x[k, j]
            args = (element, k) if carrier in (ARGMAX,) else (element,)
            return scan(carrier, args, axis_of(k), (j if axis == 1 else i).term, **options)

        return dlc.compute((M, N), at)

    return prefixes


@pytest.mark.parametrize("carrier", [SUM, PROD, MAX, LOGSUMEXP, ARGMAX], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"exclusive": True}, {"exclusive": True, "reverse": True}], ids=str)
def test_prefixes(carrier, axis, options):
    kernel = scanning(carrier, axis, **options)
    x = np.random.default_rng(0).standard_normal((11, 19)).astype(np.float32)
    np.testing.assert_allclose(kernel(x), kernel.reference(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (5, 0), (1, 1000), (100, 3), (33, 257)])
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_of_any_shape(shape, axis):
    x = torch.randn(shape)
    torch.testing.assert_close(scanning(SUM, axis)(x), torch.cumsum(x, axis), rtol=1e-4, atol=1e-4)


def test_strided_views():
    x = torch.randn(40, 30)[::2].T
    torch.testing.assert_close(scanning(SUM, 1)(x), torch.cumsum(x, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_recurrence_keeps_the_order_of_the_axis(reverse):
    @dlc.kernel
    def filtered(a: f32[N], b: f32[N]):
        def at(i):
            k = dlc.reduce_axis(N)
            return scan(RECURRENCE, (a[k], b[k]), axis_of(k), i.term, reverse=reverse)

        return dlc.compute((N,), at)

    a, b = (np.random.default_rng(s).standard_normal(23).astype(np.float32) for s in (1, 2))
    np.testing.assert_allclose(filtered(a, b), filtered.reference(a, b), rtol=1e-4, atol=1e-5)


def test_integers():
    @dlc.kernel
    def running(x: i32[N]):
        return dlc.cumsum(x)

    x = np.arange(50, dtype=np.int32)
    np.testing.assert_array_equal(running(x), np.cumsum(x))


@pytest.mark.parametrize("target", ["x86-64-avx512", "sm_90"])
def test_tile_programs_verify(target):
    program = scanning(SUM, 1, reverse=True).program.specialize(dict(zip(scanning(SUM).program.dims, (7, 19))))
    verify(lower(default_schedule(build_nest(program), by_name(target), {})))


def test_gradient():
    x = torch.randn(6, 17, requires_grad=True)
    scanning(SUM, 1)(x).square().sum().backward()
    got, x.grad = x.grad, None
    torch.cumsum(x, 1).square().sum().backward()
    torch.testing.assert_close(got, x.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows, columns", [(8, 16), (37, 23), (9, 5), (1, 40)])
def test_scans_along_memory_have_rows_in_the_lanes_and_are_turned(rows, columns):
    x = torch.randn(rows, columns)

    @dlc.kernel
    def sums(x: f32[rows, columns]):
        return dlc.cumsum(x, 1)

    plan, got = run(sums, x)
    assert "gather" not in plan.module.text and "scatter" not in plan.module.text
    assert torch.equal(got, torch.from_numpy(np.cumsum(x.numpy(), axis=1, dtype=np.float32)))  # one after another, whatever the tiles
    assert ("vectorize" in plan.nest.stages[-1].roles.values()) == (rows >= 8)
