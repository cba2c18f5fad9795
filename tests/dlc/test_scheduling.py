"""Kernels with schedules by hand: from the default or the plain nest, on this CPU and for GPUs, at other shapes."""

import json

import pytest
import torch

import dlc
from dlc import f32
from dlc.kernel import Kernel
from dlc.scheduling import kind_of, machine_of
from dsl.errors import ScheduleError, TargetError
from dsl.schedule import Schedule
from tests.dlc.gpu_cases import softmax

M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    """A linear layer with its activation."""
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k) + b[j])
    return dlc.gelu(y)


def arguments(m=50, n=70, k=37):
    return torch.randn(m, k), torch.randn(n, k), torch.randn(n)


def tiled(args):
    s = linear_gelu.schedule("cpu", *args)
    return s.tile(i=16, j=24, k=8).parallel("i.o").pack("w", at="k.o").vectorize("j.i").unroll("i.i")


def same(kernel, args):
    torch.testing.assert_close(kernel(*args), torch.nn.functional.gelu(args[0] @ args[1].T + args[2]), rtol=1e-4, atol=1e-4)


def test_the_default_schedule_is_where_one_begins():
    args = arguments()
    s = linear_gelu.schedule("cpu", *args)
    assert str(s) == linear_gelu.source("schedule", *args)
    assert s.trace == json.loads(s.to_json())["steps"] and s.to_json().startswith('{\n "dlc schedule": 1,')
    assert linear_gelu.schedule("cpu", *args, default=False).trace == []


def test_a_schedule_by_hand_runs_and_replays_at_other_shapes():
    args = arguments()
    s = tiled(args)
    by_hand = linear_gelu.with_schedule(s)
    assert isinstance(by_hand, Kernel) and linear_gelu.schedules == {}
    same(by_hand, args)
    for shape in ((1, 1, 1), (16, 24, 8), (33, 5, 100), (64, 48, 16)):
        same(by_hand, arguments(*shape))
    assert "i.o" in by_hand.source("schedule", *args) and "w.packed" in by_hand.source("schedule", *args)


def test_later_steps_do_not_change_a_kernel_made_before():
    args = arguments()
    s = linear_gelu.schedule("cpu", *args, default=False)
    by_hand = linear_gelu.with_schedule(s)
    before = by_hand.source("schedule", *args)
    s.stage("gelu").parallel("i")
    assert by_hand.source("schedule", *args) == before


def test_a_schedule_shows_the_levels_below():
    args = arguments()
    s = tiled(args)
    assert "w_packed = scratch" in s.source("tile") and "define" in s.source("llvm") and "vfmadd" in s.source("asm").lower()
    with pytest.raises(TargetError, match="no level 'triton'"):
        s.source("triton")


def test_schedules_for_gpus():
    args = (torch.empty(37, 50, device="meta"),)
    s = softmax.schedule("sm_90", *args).warps(8)
    made = softmax.with_schedule(s)
    assert made.compile("sm_90", *args).kernels[0].kernel.num_warps == 8
    assert s.source("triton") == made.source("sm_90", *args)
    assert kind_of(s, softmax.program) == "cuda" and machine_of(made.plan(*args).request.target).name == "cpu"
    assert made.source("schedule", *args) == softmax.source("schedule", *args)  # on the CPU nothing changes


def test_traces_go_through_json():
    args = arguments()
    s = tiled(args)
    plain = linear_gelu.schedule("cpu", *args, default=False)
    again = Schedule.replay(s.to_json(), plain)
    assert str(again) == str(s) and again.trace == s.trace
    same(linear_gelu.with_schedule(again), args)


def test_tuning_a_kernel_with_a_schedule_by_hand_is_refused():
    args = arguments()
    with pytest.raises(ScheduleError, match="has a schedule given by hand"):
        linear_gelu.with_schedule(tiled(args)).tune(*args, budget=1)


def test_the_schedule_of_another_kernel_is_refused():
    with pytest.raises(ScheduleError, match="a schedule of softmax for linear_gelu"):
        linear_gelu.with_schedule(softmax.schedule("cpu", torch.empty(3, 4)))


def test_a_replay_cites_the_line_of_the_step():
    args = arguments(48, 48, 16)
    s = linear_gelu.schedule("cpu", *args, default=False)
    s.stage("gelu").split("i", 16, tail="exact")  # this line
    with pytest.raises(ScheduleError) as e:
        linear_gelu.with_schedule(s)(*arguments(50, 48, 16))
    assert "16 does not divide the iterations of i" in str(e.value) and "# this line" in str(e.value) and "50 = 3*16 + 2" in str(e.value)
