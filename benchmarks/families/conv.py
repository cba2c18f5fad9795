"""Two-dimensional convolutions: layers of ResNet-50 and MobileNet, larger windows, groups, dilation, both memory formats."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import Adapted, Jax, jax
from benchmarks.harness import Case, case, peers
from dlc import f32


@dataclass(frozen=True)
class Layer:
    """One layer: channels, image, window."""

    name: str
    inputs: int
    outputs: int
    size: int
    window: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 1

    @property
    def out(self) -> int:
        """Height and width of the result."""
        return (self.size + 2 * self.padding - self.dilation * (self.window - 1) - 1) // self.stride + 1

    @property
    def flops(self) -> int:
        """Operations, padding counted."""
        return 2 * self.batch * self.outputs * self.out**2 * self.inputs // self.groups * self.window**2


_LAYERS = (
    Layer("resnet stem 7x7/2", 3, 64, 224, 7, 2, 3),
    Layer("resnet 1x1 64-256", 64, 256, 56, 1),
    Layer("resnet 1x1 1024-256", 1024, 256, 14, 1),
    Layer("resnet 1x1/2 256-512", 256, 512, 56, 1, 2),
    Layer("resnet 3x3 64", 64, 64, 56, 3, 1, 1),
    Layer("resnet 3x3 128", 128, 128, 28, 3, 1, 1),
    Layer("resnet 3x3 256", 256, 256, 14, 3, 1, 1),
    Layer("resnet 3x3 512", 512, 512, 7, 3, 1, 1),
    Layer("resnet 3x3/2 128", 128, 128, 56, 3, 2, 1),
    Layer("5x5 32-64", 32, 64, 28, 5, 1, 2),
    Layer("mobilenet depthwise 3x3 144", 144, 144, 56, 3, 1, 1, groups=144),
    Layer("mobilenet depthwise 3x3/2 96", 96, 96, 112, 3, 2, 1, groups=96),
    Layer("mobilenet 1x1 24-144", 24, 144, 56, 1),
    Layer("grouped 3x3 128/4", 128, 128, 28, 3, 1, 1, groups=4),
    Layer("dilated 3x3 64", 64, 64, 56, 3, 1, 2, dilation=2),
    Layer("batch 3x3 64", 64, 64, 28, 3, 1, 1, batch=8),
)


def _kernel(x: Layer, last: bool) -> Any:
    weights = (x.outputs, x.inputs // x.groups, x.window, x.window)
    images = (x.batch, x.size, x.size, x.inputs) if last else (x.batch, x.inputs, x.size, x.size)

    @dlc.kernel
    def conv2d(image: f32[images], weight: f32[weights]):
        ordered = dlc.transpose(image, 0, 3, 1, 2) if last else image
        y = dlc.conv2d(ordered, weight, stride=x.stride, padding=x.padding, dilation=x.dilation, groups=x.groups)
        return dlc.transpose(y, 0, 2, 3, 1) if last else y

    return conv2d


def _in_jax(x: Layer, last: bool) -> Any:
    layout = "NHWC" if last else "NCHW"

    def function(image: Any, weight: Any) -> Any:
        return jax.lax.conv_general_dilated(image, weight, (x.stride,) * 2, ((x.padding,) * 2,) * 2, rhs_dilation=(x.dilation,) * 2,
                                            dimension_numbers=(layout, "OIHW", layout), feature_group_count=x.groups)

    if not last:
        return Jax(function)
    return Adapted(Jax(function), lambda image, weight: (image.permute(0, 2, 3, 1), weight),
                   lambda y: torch.from_dlpack(y).permute(0, 3, 1, 2))


def _case(x: Layer, last: bool) -> Case:
    kernel = _kernel(x, last)
    if last:  # a channels-last image is a contiguous one with its axes in another order
        kernel = Adapted(kernel, lambda image, weight: (image.permute(0, 2, 3, 1), weight), lambda y: y.permute(0, 3, 1, 2))

    def inputs() -> list[torch.Tensor]:
        image = torch.randn(x.batch, x.inputs, x.size, x.size)
        weight = torch.randn(x.outputs, x.inputs // x.groups, x.window, x.window)
        return [image.to(memory_format=torch.channels_last), weight] if last else [image, weight]

    def theirs(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.conv2d(image, weight, None, x.stride, x.padding, x.dilation, x.groups)

    elements = x.batch * (x.inputs * x.size**2 + x.outputs * x.out**2) + x.outputs * x.inputs // x.groups * x.window**2
    return case(f"{x.name}{' channels-last' if last else ''}", inputs, {"dlc": kernel, **peers(theirs), "jax": _in_jax(x, last)},
                flops=x.flops, bytes=4 * elements)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    return [_case(x, last) for last in (False, True) for x in _LAYERS]
