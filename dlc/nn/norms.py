"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlc.nn.module import Module, Parameter
from dlc.tape import no_grad
from dlc.tensor import Tensor, ones, zeros
from dlc.tensor.gradients import group
from dsl.dtype import i64
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

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_channels % num_groups:
            raise ArgumentError(f"{num_channels} channels do not fall into {num_groups} groups")
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = _scale_and_shift(num_channels, affine)

    def forward(self, x: Tensor) -> Any:
        """``(N, C, ..)``."""
        y, _, _ = standardized(x.reshape(x.shape[0], self.num_groups, -1), (2,), self.eps)
        return _by_channel(y.reshape(x.shape), self.weight, self.bias)


class _BatchNorm(Module):
    """Statistics of the batch while training, and where none are followed; running ones in use.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: the share of the batch in the new running statistics; None for the mean over all batches so far.
        affine: whether each channel is scaled and shifted.
        track_running_stats: whether running statistics are followed.

    Attributes:
        running_mean, running_var: updated in place by every call in training; None where they are not followed, as is the next.
        num_batches_tracked: how many such calls there were.
    """

    ranks: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight, self.bias = _scale_and_shift(num_features, affine)
        self.running_mean = zeros(num_features).realize() if track_running_stats else None
        self.running_var = ones(num_features).realize() if track_running_stats else None
        self.num_batches_tracked = zeros((), dtype=i64).realize() if track_running_stats else None

    def forward(self, x: Tensor) -> Any:
        """``(N, C, ..)``, each channel by itself.

        Raises:
            ArgumentError: another number of dimensions or channels, or a single value per channel to take the variance of in training.
        """
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            raise ArgumentError(f"{type(self).__name__} of {self.num_features} channels called with shape {list(x.shape)}",
                                remedy=f"{' or '.join(map(str, self.ranks))} dimensions, channels second")
        mean, variance = self.running_mean, self.running_var
        if self.training or mean is None or variance is None:
            return _by_channel(self._of_batch(x), self.weight, self.bias)
        places = _places(x)
        return _by_channel((x - mean.reshape(places)) * rsqrt(variance + self.eps).reshape(places), self.weight, self.bias)

    def _of_batch(self, x: Tensor) -> Any:
        """The batch by its own statistics, which move the running ones."""
        count = x.size // self.num_features
        if self.training and count == 1:
            raise ArgumentError(f"{type(self).__name__} in training of one value per channel", f"the shape is {list(x.shape)}",
                                "a larger batch, or .eval()")
        y, mean, variance = standardized(x, (0, *range(2, x.ndim)), self.eps)
        if self.training and self.running_mean is not None:
            self._follow(mean.detach().reshape(-1), variance.detach().reshape(-1) * (count / (count - 1)))
            group([y, self.running_mean, self.running_var, self.num_batches_tracked])
        return y

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch, the variance without bias as torch's."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with no_grad():
            self.num_batches_tracked.replace(self.num_batches_tracked + 1)
            share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            for running, new in ((self.running_mean, mean), (self.running_var, variance)):
                running.replace(running * (1 - share) + new * share)

    def extra_repr(self) -> str:
        """The size and settings."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


def _scale_and_shift(channels: int, affine: bool) -> tuple[Parameter | None, Parameter | None]:
    return (Parameter(ones(channels)), Parameter(zeros(channels))) if affine else (None, None)


def _places(x: Tensor) -> tuple[int, ...]:
    """The shape in which a vector of channels meets ``(N, C, ..)``."""
    return (1, -1, *[1] * (x.ndim - 2))


def _by_channel(x: Any, weight: Tensor | None, bias: Tensor | None) -> Any:
    x = x if weight is None else x * weight.reshape(_places(x))
    return x if bias is None else x + bias.reshape(_places(x))


class BatchNorm1d(_BatchNorm):
    """Over ``(N, C)`` or ``(N, C, L)``."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Over ``(N, C, H, W)``."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Over ``(N, C, D, H, W)``."""

    ranks = (5,)
