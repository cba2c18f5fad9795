"""Pointwise stages: lanes along what is stored, blocks turned in registers where something is read across them."""

import pytest
import torch

import dlc
from codegen.tile.text import show
from dlc import f32
from tests.codegen.products import planned, run


@dlc.kernel
def plus_turned(x: f32[100, 75], y: f32[75, 100]):
    return x + dlc.transpose(y, 1, 0)


@pytest.mark.parametrize("across", [4, 8, 16])
def test_blocks_are_turned_in_registers(across):
    x, y = torch.randn(100, 75), torch.randn(75, 100)
    stage = plus_turned.plan(x, y).unscheduled.stages[-1].name
    plan, got = run(plus_turned, x, y, decisions={"across": across}, stage=stage)
    assert torch.equal(got, x + y.T)
    assert "masked.gather" not in plan.module.text


def test_lanes_follow_what_is_stored():
    x, y = torch.randn(100, 75), torch.randn(75, 100)
    s = planned(plus_turned, x, y).nest.stages[-1]
    rows, columns = (s.axis_names()[a] for a in s.axes)
    assert s.roles[f"{columns}.i"] == "vectorize" and s.roles[f"{rows}.i"] == "unroll"


@pytest.mark.parametrize("function", ["gelu", "sin", "log1p", "silu"])
def test_functions_give_the_same_bits_however_many_registers_go_together(function):
    x = torch.cat([torch.randn(4000), torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e6, 0.0, -0.0])])

    @dlc.kernel
    def apply(x: f32[x.shape]):
        return getattr(dlc, function)(x)

    stage = apply.plan(x).unscheduled.stages[-1].name
    results = [run(apply, x, decisions={"vectors": n}, stage=stage)[1].view(torch.int32) for n in (1, 2, 4)]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_rows_that_are_no_multiple_of_a_block_take_no_masks():
    @dlc.kernel
    def double(x: f32[1000, 1000]):
        return x * 2.0

    plan = planned(double, torch.empty(1000, 1000), target="x86-64-avx2")
    assert "mask" not in show(plan.tile)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_results_side_by_side_are_shuffled_into_vectors(parts):
    xs = [torch.randn(50, 41) for _ in range(parts)]

    @dlc.kernel
    def stacked(x: f32[50, 41], y: f32[50, 41]):
        return dlc.stack([x, y, x, y][:parts], 2)

    plan, got = run(stacked, *xs[:2])
    assert torch.equal(got, torch.stack([*xs[:2], *xs[:2]][:parts], 2))
    assert f"<{8 * parts} x float>" in planned(stacked, *xs[:2], target="x86-64-avx2").module.text


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2)])
def test_axes_that_move_together_are_turned_as_one(order):
    x = torch.randn(2, 24, 9, 31)

    @dlc.kernel
    def permuted(x: f32[2, 24, 9, 31]):
        return dlc.permute(x, order)

    plan, got = run(permuted, x)
    assert torch.equal(got, x.permute(order)) and "masked.gather" not in plan.module.text


@pytest.mark.parametrize("n", [9, 28, 32])
def test_indices_that_start_anew_often_get_a_loop_of_their_own(n):
    x = torch.randn(5, n)

    @dlc.kernel
    def repeated(x: f32[5, n]):
        return dlc.repeat(x, 2, 10)

    plan, got = run(repeated, x)
    assert torch.equal(got, x.repeat(2, 10))
    assert n % 8 or "masked.gather" not in plan.module.text


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (1, 2, 9, 11), (1, 1, 40, 16)])
def test_windows_as_columns(shape):
    x = torch.randn(shape)

    @dlc.kernel
    def columns(x: f32[shape]):
        return dlc.unfold(x, 3, padding=1)

    assert torch.equal(run(columns, x)[1], torch.nn.functional.unfold(x, 3, padding=1))


@pytest.mark.parametrize("shape, lane", [((4, 64, 300), "y"), ((4, 100, 120), "c"), ((4, 300, 20), "c")])
def test_lanes_lie_along_what_is_read_where_that_is_much_longer(shape, lane):
    """Pictures to channels-last: runs of a plane are read, and whole lines written across them."""
    @dlc.kernel
    def turned(x: f32[shape]):
        return dlc.compute((shape[0], shape[2], shape[1]), lambda n, y, c: -x[n, c, y], name="turned")

    x = torch.randn(*shape)
    for choice in (None, {"lane": "y"}, {"lane": "c"}):
        plan, got = run(turned, x, decisions=choice, stage="turned")
        s = plan.nest["turned"]
        assert s.roles[f"{(choice or {}).get('lane', lane)}.i"] == "vectorize"
        assert torch.equal(got, -x.transpose(1, 2))


def test_lanes_stay_where_what_is_read_does_not_change_along_them():
    @dlc.kernel
    def marked(x: f32[5000]):
        return dlc.compute((5000, 20), lambda i, c: x[i] * c, name="marked")

    s = marked.plan(torch.empty(5000)).nest["marked"]
    assert [x[0] for x in s.order if s.role(x) == "vectorize"] == ["c"]


@pytest.mark.parametrize("shape", [(2, 3, 57, 40), (2, 3, 40, 57), (1, 2, 33, 18)])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_remainders_are_shuffled_together(shape, step):
    n, c, h, w = shape
    x = torch.randn(n, c, h, w)

    @dlc.kernel
    def repeated(x: f32[shape]):
        return dlc.compute((n, c, h * 2, w * step - 1), lambda b, k, i, j: x[b, k, i // 2, j // step] * (j % step + 1))

    plan, got = run(repeated, x)
    want = x.repeat_interleave(2, 2).repeat_interleave(step, 3)[..., :w * step - 1]
    assert torch.equal(got, want * (torch.arange(w * step - 1) % step + 1))
    assert "masked.gather" not in plan.module.text
    assert w % 8 == 1 or "masked.scatter" not in plan.module.text  # a last round of one element is no vector
    (stage,) = plan.nest.stages
    assert [x for x in stage.order if stage.role(x) == "unroll"] == [f"{name}.p" for name in list(stage.axis_names().values())[2:]]


def test_windows_with_masks_are_no_gathers():
    x = torch.randn(2, 3, 41, 58)

    @dlc.kernel
    def pool(x: f32[2, 3, 41, 58]):
        return dlc.max_pool2d(x, 3, 2, 1)

    plan, got = run(pool, x)
    assert torch.equal(got, torch.nn.functional.max_pool2d(x, 3, 2, 1))
    assert "masked.gather" not in plan.module.text
