"""Default schedules of reductions on a CPU: columns in wide tiles, long sums of few columns in parts, ragged tiles with their own code."""

import pytest
import torch

import dlc
from codegen.heuristics import Decisions, default_schedule
from codegen.target import by_name
from dlc import f32, i32
from dsl.placing import place
from tests.codegen.products import planned, run


def reduction(name, axis, shape, dtype=f32):
    @dlc.kernel
    def reduce(x: dtype[shape]):
        return getattr(dlc, name)(x, axis=axis)

    return reduce


def scheduled(kernel, *args):
    plan = planned(kernel, *args, target="x86-64-avx2")
    return default_schedule(plan.unscheduled, by_name("x86-64-avx2"), plan.strides, Decisions())


def loops(nest, stage):
    return {x.name: (x.role, int(x.extent)) for x in place(nest)[stage].loops}


SHAPES = [(5, 100, 77), (9, 33, 1), (2, 70, 130), (40, 3, 64), (1, 300, 9), (16, 17, 512)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["sum", "amax", "prod", "argmax", "logsumexp", "var"])
def test_reductions_of_a_middle_axis(name, shape):
    x = torch.rand(shape) + 0.5
    if name == "prod":
        x = x ** 0.1
    got = run(reduction({"amax": "max"}.get(name, name), 1, shape), x)[1]
    expected = getattr(torch, name)(x.double(), 1)
    assert torch.allclose(got.double(), expected.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(70001, 8), (9000, 64), (5003, 100), (33, 3000), (4100, 129)])
@pytest.mark.parametrize("name", ["sum", "amax", "argmin"])
def test_reductions_of_columns(name, shape):
    x = torch.randn(shape)
    got = run(reduction({"amax": "max"}.get(name, name), 0, shape), x)[1]
    expected = getattr(torch, name)(x.double(), 0)
    assert torch.allclose(got.double(), expected.double(), rtol=1e-4, atol=2e-3)


def test_integer_columns_are_exact():
    x = torch.randint(-1000, 1000, (9000, 70), dtype=torch.int32)
    assert torch.equal(run(reduction("sum", 0, (9000, 70), i32), x)[1].long(), x.sum(0))


def test_nan_passes_through_a_maximum_of_columns():
    x = torch.randn(3000, 200)
    x[17, 3] = x[2999, 199] = float("nan")
    assert torch.equal(run(reduction("max", 0, (3000, 200)), x)[1].isnan(), torch.amax(x, 0).isnan())


def test_columns_are_shared_equally_among_tiles():
    assert loops(scheduled(reduction("sum", 1, (32, 1000, 77)), torch.randn(32, 1000, 77)), "sum")["j.i"] == ("vectorize", 40)
    assert loops(scheduled(reduction("sum", 1, (64, 256, 512)), torch.randn(64, 256, 512)), "sum")["j.i"] == ("vectorize", 64)


def test_a_ragged_tile_has_code_of_its_own_where_other_loops_occupy_the_threads():
    many = scheduled(reduction("sum", 1, (32, 1000, 77)), torch.randn(32, 1000, 77))
    few = scheduled(reduction("sum", 1, (2, 1000, 77)), torch.randn(2, 1000, 77))
    assert loops(many, "sum")["j.o"] == ("serial", 2) and loops(few, "sum")["j.o"] == ("parallel", 2)


def test_a_long_sum_of_few_columns_is_parted_among_threads():
    nest = scheduled(reduction("sum", 0, (262144, 64)), torch.empty(262144, 64))
    assert loops(nest, "sum.part")["k0.o"][0] == "parallel"


def test_lanes_gather_nothing_where_another_axis_needs_not() -> None:
    """The gradient of distances: most bytes lie along the sum, but what is subtracted does not."""
    @dlc.kernel
    def pulled(g: f32[50, 70], x: f32[50, 24], y: f32[70, 24]):
        j = dlc.reduce_axis(70)
        return dlc.compute((50, 24), lambda i, d: dlc.sum(g[i, j] * (x[i, d] - y[j, d]), j), name="pulled")

    args = torch.randn(50, 70), torch.randn(50, 24), torch.randn(70, 24)
    stage = pulled.plan(*args).nest.stages[-1]
    assert [x.split(".")[0] for x in stage.order if stage.role(x) == "vectorize"] == ["d"]
    want = args[0].sum(1, keepdim=True) * args[1] - args[0] @ args[2]
    torch.testing.assert_close(pulled(*args), want, rtol=1e-4, atol=1e-4)
