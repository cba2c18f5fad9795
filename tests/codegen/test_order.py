"""Intermediate results lie as the contraction that reads them does."""

import pytest
import torch

import dlc
from codegen.heuristics.decisions import Setting
from codegen.heuristics.order import order_intermediates
from codegen.target import by_name
from dlc import f32
from tests.codegen.products import planned, run

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


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_agree_in_either_order(stride, last):
    image, weight = torch.randn(1, 24, 20, 20), torch.randn(WEIGHT)
    expected = torch.nn.functional.conv2d(image.double(), weight.double(), None, stride, 1)
    got = run(convolution(stride, last), image.permute(0, 2, 3, 1).contiguous() if last else image, weight)[1]
    got = got.permute(0, 3, 1, 2) if last else got
    assert float((got.double() - expected).abs().max()) < 1e-4
