"""Default schedules of reductions on a CPU: columns in wide tiles, long sums of few columns in parts, ragged tiles with their own code."""

from dataclasses import replace

import pytest
import torch

import dlc
from codegen.heuristics import Decisions, default_schedule
from codegen.heuristics.cpu import _row_width
from codegen.target import by_name
from dlc import f32, i32
from dlc.compiler import Plan
from dlc.runtime.launch import make_launcher
from dsl.placing import place
from dsl.primitives.loops import annotate
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


def rows_of(size: int):
    """Channels of a picture, normalised where they stand: lanes lie along its rows."""
    @dlc.kernel
    def normed(x: f32[2, 16, size, size]):
        return (x - dlc.mean(x, 1, keepdim=True)) * dlc.rsqrt(dlc.var(x, 1, keepdim=True) + 1e-5)

    return normed, torch.randn(2, 16, size, size)


@pytest.mark.parametrize("size, width", [(5, 8), (14, 16), (28, 32), (56, 56)])
def test_rows_side_by_side_take_equal_shares_of_few_vectors(size, width):
    kernel, x = rows_of(size)
    plan = planned(kernel, x, target="x86-64-avx2")
    assert plan.nest and plan.decisions.made["mul.width"].value == width


def test_long_rows_side_by_side_take_shares_without_masks():
    target = by_name("x86-64-avx2")
    assert [_row_width(target, n, 8) for n in (112, 784, 1000, 1001)] == [16, 16, 40, 16]
    assert [_row_width(target, n) for n in (28, 1000)] == [8, 16]  # beside other rows


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("inside", [True, False])
def test_rows_come_out_alike_in_any_width_and_in_passes_of_their_own(width, inside):
    kernel, x = rows_of(32)
    names = [s.name for s in kernel.plan(x).nest.stages if s.attach is not None]
    request = replace(kernel.plan(x).request, decisions={"mul.width": width, **{f"{n}.inside": inside for n in names}})
    plan = Plan(request)
    attached = [s.name for s in plan.nest.stages if s.attach is not None]
    assert names and attached == (names if inside else [])
    assert not inside or plan.decisions.made["mul.width"].value == width
    want = (x.double() - x.double().mean(1, keepdim=True)) / (x.double().var(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(plan.launcher()([x])[0].double(), want, rtol=1e-4, atol=1e-5)


def test_results_of_rows_that_no_cache_holds_are_stored_past_them():
    m = dlc.dims("M")

    @dlc.kernel
    def normed(x: f32[m, 64]):
        return dlc.layer_norm(x, (64,))

    def past(rows: int, **decisions) -> bool:
        stage = normed.plan(torch.empty(8, 64)).nest.stages[-1].name
        plan = planned(normed, torch.empty(rows, 64), target="x86-64-avx2", decisions=decisions, stage=stage)
        return "!nontemporal" in plan.module.text

    room = by_name("x86-64-avx2").caches[2] // (64 * 4) * 3 // 4  # rows: half as many again are moved
    assert past(2 * room) and not past(room) and past(room, streaming=True)
    assert not past(8, streaming=True)  # the next to read it finds it in a cache
    x = torch.randn(300, 64)
    plan = normed.plan(x)
    vars(plan)["nest"] = annotate(plan.nest, plan.nest.stages[-1].name, "streaming", True)
    assert "!nontemporal" in plan.module.text
    assert torch.equal(make_launcher(plan.recipe, plan.object_code, plan.request.target, plan.stray)([x])[0], normed(x))


def test_partial_sums_of_columns_take_whole_rows():
    """A mean of columns: computed in the loop over columns that finishes it, each part would take a line of every row."""
    M, N = dlc.dims("M N")

    @dlc.kernel
    def mean(x: f32[M, N]):
        return dlc.mean(x, 0)

    def part(m, n):
        nest = mean.plan(torch.empty(m, n, device="meta"), target=by_name("x86-64-avx2")).nest
        return next(s for s in nest.stages if s.name.endswith(".part"))

    assert part(4096, 4096).attach is None and part(600, 48).attach is not None
    x = torch.randn(1500, 900)
    torch.testing.assert_close(mean(x), x.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", [2, 4, -1])
def test_long_sums_of_what_has_gaps_are_loaded_in_whole_vectors(step) -> None:
    @dlc.kernel
    def total(x: dlc.bf16[1 << 20]):
        return dlc.sum(x[::step])

    x = torch.ones(1 << 20, dtype=torch.bfloat16)
    x[5::7] = -0.5
    seen = x.flip(0) if step < 0 else x[::step]
    assert torch.equal(run(total, x)[1], seen.double().sum().bfloat16())
    assert "vpinsrw" not in Plan(total.plan(x).request.on(by_name("x86-64-avx2"))).assembly()


def test_lanes_lie_along_an_axis_of_more_than_one_point():
    """One of the axes of a single point has the least stride."""
    @dlc.kernel
    def column(x: f32[1, 3, 1]):
        a, b, c = dlc.reduce_axis(1), dlc.reduce_axis(3), dlc.reduce_axis(1)
        return dlc.sum(x[c, b, a], a, b, c)

    x = torch.randn(1, 18, 5)[:, :3, :1]
    torch.testing.assert_close(column(x), x.sum())
