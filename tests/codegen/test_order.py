"""Intermediate results lie as the contraction that reads them does."""

import pytest
import torch

import dlc
from codegen.heuristics.decisions import Setting
from codegen.heuristics.order import order_intermediates
from codegen.target import by_name
from dlc import f32
from tests.codegen.products import PRODUCTS, agrees, exact, operands, planned, run

IMAGE, LAST, WEIGHT = (1, 24, 20, 20), (1, 20, 20, 24), (40, 24, 3, 3)


def convolution(stride: int, last: bool, filters: int = 40):
    @dlc.kernel
    def conv(image: f32[LAST if last else IMAGE], weight: f32[filters, 24, 3, 3]):
        y = dlc.conv2d(dlc.transpose(image, 0, 3, 1, 2) if last else image, weight, stride=stride, padding=1)
        return dlc.transpose(y, 0, 2, 3, 1) if last else y

    return conv


def layout(stride: int, last: bool, filters: int = 40):
    image, weight = torch.randn(LAST if last else IMAGE), torch.randn(filters, 24, 3, 3)
    plan = planned(convolution(stride, last, filters), image, weight, target="x86-64-avx2")
    nest, setting = order_intermediates(plan.unscheduled, Setting(by_name("x86-64-avx2"), plan.strides))
    s = next(s for s in nest.stages if s.name == "padded")
    return s.layout, setting.strides.get(s.tensors[0])


def test_the_terms_of_a_sum_lie_side_by_side():
    stored, strides = layout(2, False)
    assert stored is not None and strides is not None
    assert [int(n) for n in strides][-3:] == [1, 22 * 24, 24]  # channel, row, column


def test_a_factor_read_along_its_lanes_stays():
    assert layout(1, False, filters=12) == (None, None)


def test_a_factor_that_lies_along_the_sum_stays_and_is_made_once():
    @dlc.kernel
    def conv(image: f32[8, 24, 20, 20], weight: f32[40, 24, 3, 3]):
        return dlc.conv2d(image, weight, padding=1)

    image, grad = torch.randn(8, 24, 20, 20), torch.randn(8, 40, 20, 20)
    plan = planned(conv.derivatives.back((1,)).kernel, image, grad, target="x86-64-avx2")
    padded = next(s for s in plan.nest.stages if s.name == "padded")
    assert padded.layout is None and padded.attach is None
    expected = torch.nn.grad.conv2d_weight(image.double(), WEIGHT, grad.double(), padding=1)
    got = run(conv.derivatives.back((1,)).kernel, image, grad)[1]
    assert float((got.double() - expected).abs().max()) < 1e-2


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_agree_in_either_order(stride, last):
    image, weight = torch.randn(1, 24, 20, 20), torch.randn(WEIGHT)
    expected = torch.nn.functional.conv2d(image.double(), weight.double(), None, stride, 1)
    got = run(convolution(stride, last), image.permute(0, 2, 3, 1).contiguous() if last else image, weight)[1]
    got = got.permute(0, 3, 1, 2) if last else got
    assert float((got.double() - expected).abs().max()) < 1e-4


def strided(stride: int, channels: int, size: int):
    @dlc.kernel
    def conv(image: f32[2, channels, size, size], weight: f32[160, channels, 1, 1]):
        return dlc.conv2d(image, weight, stride=stride)

    return conv, torch.randn(2, channels, size, size), torch.randn(160, channels, 1, 1)


@pytest.mark.parametrize(("stride", "channels", "size", "gathered"), [(2, 200, 20, True), (2, 16, 20, False), (1, 200, 20, False)])
def test_what_lies_thin_and_far_apart_is_gathered(stride, channels, size, gathered):
    conv, image, weight = strided(stride, channels, size)
    plan, got = run(conv, image, weight, target="x86-64-avx2")
    assert any(s.name == "image.read" for s in plan.nest.stages) is gathered
    expected = torch.nn.functional.conv2d(image.double(), weight.double(), stride=stride)
    assert float((got.double() - expected).abs().max()) < 1e-4


@pytest.mark.parametrize(("kind", "m", "gathered"), [("tt", 4, True), ("nt", 4, False), ("tn", 4, False), ("tt", 40, False)])
def test_few_rows_are_turned_towards_the_sum(kind, m, gathered):
    x, w = operands(kind, m, 300, 200)
    plan, got = run(PRODUCTS[kind], x, w, target="x86-64-avx2")
    assert any(s.name == "x.read" for s in plan.nest.stages) is gathered
    agrees(got, exact(kind, x, w), 200)


@pytest.mark.parametrize(("window", "stride", "copied"), [(3, 1, True), (5, 2, True), (1, 1, False)])
def test_images_with_channels_last_are_copied_where_windows_slide_along_the_lanes(window, stride, copied):
    @dlc.kernel
    def depthwise(image: f32[2, 24, 20, 20], weight: f32[24, 1, window, window]):
        return dlc.conv2d(image, weight, stride=stride, groups=24)

    image, weight = torch.randn(2, 24, 20, 20).to(memory_format=torch.channels_last), torch.randn(24, 1, window, window)
    plan = planned(depthwise, image, weight, target="x86-64-avx2")
    assert ("image.packed" in [s.name for s in plan.nest.stages]) is copied
    expected = torch.nn.functional.conv2d(image.double(), weight.double(), stride=stride, groups=24)
    assert float((run(depthwise, image, weight)[1].double() - expected).abs().max()) < 1e-4


def test_pools_with_channels_last_take_lanes_along_the_channels():
    @dlc.kernel
    def pool(image: f32[2, 24, 20, 20]):
        return dlc.avg_pool2d(image, 3, 1)

    image = torch.randn(2, 24, 20, 20).to(memory_format=torch.channels_last)
    assert "image.packed" not in [s.name for s in planned(pool, image, target="x86-64-avx2").nest.stages]


@pytest.mark.parametrize("last", [True, False])
def test_the_order_is_a_choice(last):
    image, weight = torch.randn(IMAGE), torch.randn(WEIGHT)
    plan, got = run(convolution(2, False), image, weight, stage="padded", decisions={"terms_last": last})
    assert (next(s for s in plan.nest.stages if s.name == "padded").layout is not None) == last
    want = torch.nn.functional.conv2d(image.double(), weight.double(), stride=2, padding=1)
    assert float((got.double() - want).abs().max()) < 1e-4


def test_one_of_several_reads_of_a_tensor_is_gathered():
    """The backward of distances among rows of one matrix: it is read at both points of a pair."""
    @dlc.kernel
    def kernel_mean(x: f32[13, 5], y: f32[17, 5]):
        def among(a, b):
            return dlc.exp(dlc.sum((dlc.unsqueeze(a, 1) - dlc.unsqueeze(b, 0)) ** 2, -1) * -0.1)

        return among(x, x).mean() + among(x, y).mean()

    x, y = torch.randn(13, 5, requires_grad=True), torch.randn(17, 5, requires_grad=True)
    want = torch.exp(-0.1 * ((x[:, None] - x) ** 2).sum(-1)).mean() + torch.exp(-0.1 * ((x[:, None] - y) ** 2).sum(-1)).mean()
    for a, b in zip(torch.autograd.grad(kernel_mean(x, y), (x, y)), torch.autograd.grad(want, (x, y))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
