"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlc.nn.module import Module, Parameter
from dlc.tape import no_grad
from dlc.tensor import Tensor, ones, zeros
from dlc.tensor.gradients import group
from dsl.errors import ArgumentError
from dsl.ops.dispatch import operation
from dsl.ops.norm import rms_norm
from dsl.ops.pointwise import rsqrt
from dsl.ops.reduction import mean


@operation
def standardized(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    """``x`` with mean 0 and variance 1 over some axes (the variance is biased), and the mean and variance it had."""
    centre = mean(x, axis=axes, keepdims=True)
    centred = x - centre
    variance = mean(centred * centred, axis=axes, keepdims=True)
    return centred * rsqrt(variance + eps), centre, variance


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last dimensions, then ``* weight + bias``."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:
        """Over the last dimensions."""
        y, _, _ = standardized(x, tuple(range(-len(self.normalized_shape), 0)), self.eps)
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """``x / sqrt(mean(x**2) + eps) * weight`` over the last dimension; eps is the dtype's machine epsilon when None."""

    def __init__(self, normalized_shape: int, eps: float | None = None) -> None:
        self.eps = eps if eps is not None else 2.0**-23
        self.weight = Parameter(ones(normalized_shape))

    def forward(self, x: Any) -> Any:
        """Over the last dimension."""
        return rms_norm(x, self.weight, eps=self.eps)


class GroupNorm(Module):
    """Mean 0 and variance 1 over each group of channels and all places, then ``* weight + bias`` by channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        if num_channels % num_groups:
            raise ArgumentError(f"{num_channels} channels do not fall into {num_groups} groups")
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = Parameter(ones(num_channels)), Parameter(zeros(num_channels))

    def forward(self, x: Tensor) -> Any:
        """``(N, C, ..)``."""
        y, _, _ = standardized(x.reshape(x.shape[0], self.num_groups, -1), (2,), self.eps)
        places = [1] * (x.ndim - 2)
        return y.reshape(x.shape) * self.weight.reshape(-1, *places) + self.bias.reshape(-1, *places)


class _BatchNorm(Module):
    """Statistics of the batch while training, running ones in use."""

    rank = 0

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight, self.bias = Parameter(ones(num_features)), Parameter(zeros(num_features))
        self.running_mean, self.running_var = zeros(num_features).realize(), ones(num_features).realize()

    def forward(self, x: Tensor) -> Any:
        """``(N, C, ..)``, each channel by itself."""
        if x.ndim not in (self.rank, 2 if self.rank == 3 else self.rank):
            raise ArgumentError(f"{type(self).__name__} of a tensor with {x.ndim} dimensions")
        places = (1, -1, *([1] * (x.ndim - 2)))
        if self.training:
            y, centre, variance = standardized(x, (0, *range(2, x.ndim)), self.eps)
            self._follow(centre.detach().reshape(-1), variance.detach().reshape(-1), x.size // self.num_features)
            group([y, self.running_mean, self.running_var])
        else:
            y = (x - self.running_mean.reshape(places)) * rsqrt(self.running_var + self.eps).reshape(places)
        return y * self.weight.reshape(places) + self.bias.reshape(places)

    def _follow(self, centre: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; the variance without its bias, as torch's."""
        with no_grad():
            m = self.momentum
            self.running_mean.replace(self.running_mean * (1 - m) + centre * m)
            self.running_var.replace(self.running_var * (1 - m) + variance * (m * count / max(count - 1, 1)))

    def extra_repr(self) -> str:
        """The size and settings."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Over ``(N, C)`` or ``(N, C, L)``."""

    rank = 3


class BatchNorm2d(_BatchNorm):
    """Over ``(N, C, H, W)``."""

    rank = 4
