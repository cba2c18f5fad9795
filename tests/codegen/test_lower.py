"""Lowering of combinations that only schedules by hand ask for: states in memory, prefetches, copies of bodies, grouped grids."""

import numpy as np
import pytest
import torch

import dlc
from dlc import f32
from tests.dlc.gpu_cases import matmul_bias_gelu

M, N = dlc.dims("M N")


@dlc.kernel
def best(x: f32[M, N]):
    """Two values of state."""
    return dlc.argmax(x, 1)


@dlc.kernel
def totals(x: f32[M, N]):
    """One value of state, where the results go."""
    return dlc.sum(x, 1)


@dlc.kernel
def prefixes(x: f32[M, N]):
    """A scan."""
    return dlc.cumsum(x, 1)


def plain(kernel, *args):
    return kernel.schedule("cpu", *args, default=False)


@pytest.mark.parametrize("kernel", [best, totals, prefixes], ids=lambda k: k.__name__)
@pytest.mark.parametrize("tail", ["mask", "peel"])
def test_elements_inside_the_loop_that_carries_a_state(kernel, tail):
    x = torch.randn(13, 21)
    s = plain(kernel, x)
    (stage,) = (t.name for t in s.nest.stages if t.kind != "map")
    s = s.stage(stage)
    rows, along = s.nest[stage].order
    s.reorder(along, rows).split(rows, 4, tail=tail).vectorize(f"{rows}.i")
    tile = s.source("tile")
    assert ("_state = scratch" in tile) == (kernel is not totals)
    torch.testing.assert_close(kernel.with_schedule(s)(x), torch.as_tensor(kernel.reference(x)).to(kernel(x).dtype), rtol=1e-5, atol=1e-5)


def test_lanes_along_a_scan():
    x = torch.randn(5, 37)
    s = plain(prefixes, x)
    s.split(s.nest.stages[0].order[-1], 8, outer="o", inner="v").vectorize("v")
    torch.testing.assert_close(prefixes.with_schedule(s)(x), torch.cumsum(x, 1), rtol=1e-4, atol=1e-4)


def test_lanes_along_two_axes():
    x = torch.randn(11, 19)
    s = plain(totals, x)
    rows, along = s.nest.stages[0].order
    s.split(rows, 4).split(along, 8).reorder(f"{rows}.o", f"{along}.o", f"{rows}.i", f"{along}.i").vectorize(f"{rows}.i", f"{along}.i")
    torch.testing.assert_close(totals.with_schedule(s)(x), x.sum(1), rtol=1e-5, atol=1e-5)


def test_prefetches_stay_inside():
    x = torch.randn(13, 21)
    s = plain(totals, x)
    rows, along = s.nest.stages[0].order
    s.prefetch("x", at=along, ahead=4)
    assert "prefetch(x, [" in s.source("tile") and "min(" in s.source("tile") and "llvm.prefetch" in s.source("llvm")
    torch.testing.assert_close(totals.with_schedule(s)(x), x.sum(1))


@pytest.mark.parametrize("count", [2, 3, 8, 50])
def test_bodies_are_repeated_and_the_rest_follows(count):
    x = torch.randn(7, 21)
    s = plain(totals, x)
    s.unroll(s.nest.stages[0].order[-1], by=count)
    assert s.source("llvm").count(" fadd ") >= min(count, 21)
    np.testing.assert_allclose(totals.with_schedule(s)(x), totals.reference(x), rtol=1e-5)


def test_grouped_grids_visit_every_tile_once():
    args = torch.randn(50, 37), torch.randn(37, 70), torch.randn(70)
    s = matmul_bias_gelu.schedule("cpu", *args)
    host = s.nest.stages[-1].name
    s.stage(host).tile(i=8, j=16).parallel("i.o", "j.o").swizzle(3)
    torch.testing.assert_close(matmul_bias_gelu.with_schedule(s)(*args), matmul_bias_gelu(*args), rtol=1e-4, atol=1e-4)


def test_positions_are_compared_in_32_bits_where_those_hold_them():
    x = torch.randn(9, 300)
    text = best.source("tile", x)
    assert "types=[f32, i32]" in text and "output(i64" in text
    x[1], x[2], x[3, 40:] = -torch.inf, torch.nan, float("nan")
    x[4, 17] = x[4, 290] = 99.0
    assert torch.equal(best(x), x.argmax(1)) and best(x).dtype == torch.int64
    varying = dlc.kernel(best.fn)
    for n in (300, 30, 7, 299, 64, 1000):
        y = torch.randn(5, n)
        y[3] = -torch.inf
        assert torch.equal(varying(y), y.argmax(1))
