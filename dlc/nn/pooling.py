"""Pools: the greatest element or the mean of windows."""

from __future__ import annotations

from typing import Any

from dlc.nn.module import Module
from dsl.ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d


class MaxPool2d(Module):
    """The greatest element of each window of ``(N, C, H, W)``; windows are ``stride`` (``kernel_size`` when None) apart."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Any) -> Any:
        """``(N, C, H, W) -> (N, C, H', W')``."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride or self.kernel_size}, padding={self.padding}"


class AvgPool2d(MaxPool2d):
    """The mean of each window; padding counts as zeros."""

    def forward(self, x: Any) -> Any:
        """``(N, C, H, W) -> (N, C, H', W')``."""
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class AdaptiveAvgPool2d(Module):
    """The means of windows that part the plane into ``output_size`` results."""

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Any:
        """``(N, C, H, W) -> (N, C, *output_size)``."""
        return adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"
