"""Which axis of a contraction lies along the lanes."""

import pytest
import torch

import dlc
from codegen.heuristics.product import analyse
from dlc import f32
from tests.codegen.products import PRODUCTS, operands


def analysed(kernel, *arguments):
    plan = kernel.plan(*arguments)
    stage = next(s for s in plan.unscheduled.stages if s.kind == "reduce")
    return analyse(stage, plan.strides)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_lanes_lie_where_the_result_is_contiguous(kind):
    p = analysed(PRODUCTS[kind], *operands(kind, 40, 50, 60))
    assert (p.lane.name, p.row.name) == ("j", "i")
    assert (p.columns, p.lines, p.depth, p.flops) == (50, 40, 60, 2 * 40 * 50 * 60)
    assert p.lanes.tensor.name == "w" and p.rows.tensor.name == "x"


def test_a_result_too_narrow_for_lanes_gives_them_to_the_other_axis():
    p = analysed(PRODUCTS["nn"], *operands("nn", 400, 3, 60))
    assert (p.lane.name, p.row.name) == ("i", "j")


def test_terms_along_which_both_factors_are_contiguous():
    for kind, found in (("nn", False), ("nt", True), ("tn", False), ("tt", False)):
        x, w = operands(kind, 40, 50, 60)
        plan = PRODUCTS[kind].plan(x, w)
        p = analyse(plan.unscheduled.stages[0], plan.strides)
        assert (p.contiguous_terms(plan.strides) is not None) is found
        assert p.contiguous_lanes(plan.strides) is (kind[1] == "n")


def window(filters: int):
    @dlc.kernel
    def conv(x: f32[2, 8, 20, 20], w: f32[filters, 8, 3, 3]):
        c, p, q = dlc.reduce_axis(8), dlc.reduce_axis(3), dlc.reduce_axis(3)
        return dlc.compute((2, filters, 18, 18), lambda n, o, h, v: dlc.sum(x[n, c, h + p, v + q] * w[o, c, p, q], c, p, q))

    return analysed(conv, torch.randn(2, 8, 20, 20), torch.randn(filters, 8, 3, 3))


def test_windows_leave_the_lanes_to_an_axis_that_stays_in_place():
    p = window(16)
    assert (p.lane.name, p.row.name) == ("o", "v")  # rows along the axis that the result is stored along


def test_windows_take_the_lanes_where_nothing_else_fills_them():
    p = window(12)
    assert (p.lane.name, p.row.name) == ("v", "o")


def gradient(filters: int, channels: int, images: int = 16):
    """Of a convolution's input: its channels take the place of the filters."""
    @dlc.kernel
    def grad(d: f32[images, filters, 20, 20], w: f32[filters, channels, 3, 3]):
        f, p, q = dlc.reduce_axis(filters), dlc.reduce_axis(3), dlc.reduce_axis(3)
        return dlc.compute((images, channels, 18, 18),
                           lambda n, c, h, v: dlc.sum(d[n, f, h + 2 - p, v + 2 - q] * w[f, c, p, q], f, p, q))

    return analysed(grad, torch.randn(images, filters, 20, 20), torch.randn(filters, channels, 3, 3))


def test_lanes_from_a_factor_that_is_copied_once():
    assert gradient(32, 16, images=64).lane.name == "c"  # a copy of the images would be made for each place of the window


def test_a_copy_that_few_results_share_is_worse_than_a_window():
    p = gradient(32, 3)
    assert (p.lane.name, p.row.name) == ("v", "c")
