"""Windows that overlap share their loads, and groups of channels are products of their own."""

import pytest
import torch

import dlc
from codegen.heuristics import Decisions, default_schedule
from codegen.target import by_name
from dlc import f32
from tests.codegen.products import planned, run


def convolution(image, weight, stride, padding, dilation, groups):
    @dlc.kernel
    def conv(x: f32[image], w: f32[weight]):
        return dlc.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    return conv


def scheduled(kernel, *args):
    plan = planned(kernel, *args, target="x86-64-avx2")
    return default_schedule(plan.unscheduled, by_name("x86-64-avx2"), plan.strides, Decisions())


@pytest.mark.parametrize("size", [(20, 28), (13, 17), (5, 9), (5, 8), (6, 33)])
@pytest.mark.parametrize(("stride", "padding", "dilation", "window"),
                         [(1, 1, 1, 3), (2, 1, 1, 3), (1, 2, 2, 3), (1, 2, 1, 5), (2, (0, 1), (1, 2), 3)])
def test_depthwise_convolutions(size, stride, padding, dilation, window):
    x, w = torch.randn(2, 6, *size), torch.randn(6, 1, window, window)
    expected = torch.nn.functional.conv2d(x.double(), w.double(), None, stride, padding, dilation, 6)
    got = run(convolution(x.shape, w.shape, stride, padding, dilation, 6), x, w)[1]
    assert got.shape == expected.shape and float((got.double() - expected).abs().max()) < 1e-4


def test_rows_of_windows_are_unrolled_and_ragged_lanes_peeled():
    x, w = torch.randn(1, 16, 30, 28), torch.randn(16, 1, 3, 3)
    s = scheduled(convolution(x.shape, w.shape, 1, 1, 1, 16), x, w)["conv2d"]
    assert s.role("y.i") == "unroll" and s.role("x.i") == "vectorize" and s.order[-2:] == ("y.i", "x.i") and s.role("x.o") == "serial"


@pytest.mark.parametrize("size", [(20, 28), (13, 17), (9, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_finishes_a_window_takes_its_rows(size, stride):
    x, w, b = torch.randn(2, 6, *size), torch.randn(6, 1, 3, 3), torch.randn(6)

    @dlc.kernel
    def conv(x: f32[(2, 6, *size)], w: f32[6, 1, 3, 3], b: f32[6]):
        return dlc.silu(dlc.conv2d(x, w, b, stride=stride, padding=1, groups=6))

    expected = torch.nn.functional.silu(torch.nn.functional.conv2d(x.double(), w.double(), b.double(), stride, 1, 1, 6))
    assert float((run(conv, x, w, b)[1].double() - expected).abs().max()) < 1e-4
    assert any("unroll" in s.roles.values() for s in scheduled(conv, x, w, b).stages if s.kind == "reduce")


def test_windows_that_do_not_overlap_share_nothing():
    x, w = torch.randn(1, 16, 60, 56), torch.randn(16, 1, 3, 3)
    assert all(r != "unroll" for r in scheduled(convolution(x.shape, w.shape, 3, 1, 1, 16), x, w)["conv2d"].roles.values())


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_groups_are_products(groups, stride, dilation):
    x, w = torch.randn(2, 8 * groups, 13, 19), torch.randn(12 * groups, 8, 3, 3)
    kernel = convolution(x.shape, w.shape, stride, 1, dilation, groups)
    expected = torch.nn.functional.conv2d(x.double(), w.double(), None, stride, 1, dilation, groups)
    got = run(kernel, x, w)[1]
    assert float((got.double() - expected).abs().max()) < 1e-4
    assert "unroll" in scheduled(kernel, x, w)["conv2d_groups"].roles.values()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("size", "channels", "filters"), [((7, 7), 19, 33), ((14, 9), 5, 40), ((13, 30), 32, 17), ((6, 4), 64, 24)])
@pytest.mark.parametrize(("stride", "padding", "dilation", "window"),
                         [(1, 1, 1, 3), (2, 3, 1, 7), (1, 2, 2, 3), (2, 0, 1, 1), (1, 0, 1, 1)])
def test_convolutions_of_ragged_images_in_either_order(size, channels, filters, stride, padding, dilation, window, last):
    x, w, b = torch.randn(2, channels, *size), torch.randn(filters, channels, window, window), torch.randn(filters)
    shape = (2, *size, channels) if last else x.shape

    @dlc.kernel
    def conv(x: f32[shape], w: f32[w.shape], b: f32[filters]):
        y = dlc.conv2d(dlc.transpose(x, 0, 3, 1, 2) if last else x, w, b, stride=stride, padding=padding, dilation=dilation)
        return dlc.transpose(y, 0, 2, 3, 1) if last else y

    expected = torch.nn.functional.conv2d(x.double(), w.double(), b.double(), stride, padding, dilation)
    got = run(conv, x.permute(0, 2, 3, 1).contiguous() if last else x, w, b)[1]
    got = got.permute(0, 3, 1, 2) if last else got
    assert float((got.double() - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("size", "channels"), [((20, 28), 8), ((13, 17), 72), ((6, 9), 19)])
@pytest.mark.parametrize(("stride", "padding", "dilation", "window"),
                         [(1, 1, 1, 3), (2, 1, 1, 3), (1, 2, 2, 3), (2, 2, 1, 5), (1, 0, 1, 3)])
def test_depthwise_convolutions_along_channels(size, channels, stride, padding, dilation, window):
    x, w, b = torch.randn(2, channels, *size), torch.randn(channels, 1, window, window), torch.randn(channels)

    @dlc.kernel
    def conv(x: f32[(2, *size, channels)], w: f32[w.shape], b: f32[channels]):
        y = dlc.conv2d(dlc.transpose(x, 0, 3, 1, 2), w, b, stride=stride, padding=padding, dilation=dilation, groups=channels)
        return dlc.relu(dlc.transpose(y, 0, 2, 3, 1))

    expected = torch.nn.functional.conv2d(x.double(), w.double(), b.double(), stride, padding, dilation, channels).relu()
    got = run(conv, x.permute(0, 2, 3, 1).contiguous(), w, b)[1].permute(0, 3, 1, 2)
    assert float((got.double() - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("channels", [8, 33])
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
def test_pools_along_channels(pool, channels):
    x = torch.randn(2, 11, 18, channels)

    @dlc.kernel
    def pooled(x: f32[x.shape]):
        return dlc.transpose(getattr(dlc, pool)(dlc.transpose(x, 0, 3, 1, 2), 3, stride=2, padding=1), 0, 2, 3, 1)

    expected = getattr(torch.nn.functional, pool)(x.permute(0, 3, 1, 2).double(), 3, 2, 1)
    assert float((run(pooled, x)[1].permute(0, 3, 1, 2).double() - expected).abs().max()) < 1e-5


def test_windows_along_channels_read_their_inputs_as_they_lie():
    x, w = torch.randn(1, 30, 28, 48), torch.randn(48, 1, 3, 3)

    @dlc.kernel
    def conv(x: f32[x.shape], w: f32[w.shape]):
        return dlc.transpose(dlc.conv2d(dlc.transpose(x, 0, 3, 1, 2), w, padding=1, groups=48), 0, 2, 3, 1)

    nest = scheduled(conv, x, w)
    assert [s.name for s in nest.stages if s.attach is None] == ["w.packed", nest.stages[-1].name]  # no padded copy
    s = next(s for s in nest.stages if s.kind == "reduce")
    assert s.role("f") == "vectorize" and s.role("x") == "unroll" and s.notes["unroll_by"] == {"rx": 3, "ry": 3}
