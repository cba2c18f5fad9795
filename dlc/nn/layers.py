"""Layers with weights: linear, convolutions, embeddings."""

from __future__ import annotations

from typing import Any

import torch

from dlc.nn import init
from dlc.nn.module import Module, Parameter
from dlc.tensor import Tensor, empty
from dlc.tensor.create import each_call
from dsl.dtype import Dtype, f32
from dsl.errors import ArgumentError
from dsl.ops.conv import conv1d, conv2d
from dsl.ops.indexing import embedding
from dsl.ops.matmul import linear
from dsl.ops.random import dropout


class Linear(Module):
    """``x @ weight.T + bias``; weight ``(out_features, in_features)``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Dtype = f32) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype))
        self.bias = Parameter(empty(out_features, dtype=dtype)) if bias else None
        init.weight_and_bias(self.weight, self.bias)

    def forward(self, x: Any) -> Any:
        """``(.., in_features) -> (.., out_features)``."""
        return linear(x, self.weight) if self.bias is None else linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Conv(Module):
    """What convolutions of all ranks share."""

    def __init__(self, rank: int, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                 groups: int, bias: bool, dtype: Dtype) -> None:
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{in_channels} and {out_channels} channels do not fall into {groups} groups")
        size = tuple(kernel_size) if isinstance(kernel_size, (tuple, list)) else (kernel_size,) * rank
        self.in_channels, self.out_channels, self.kernel_size, self.groups = in_channels, out_channels, size, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = Parameter(empty(out_channels, in_channels // groups, *size, dtype=dtype))
        self.bias = Parameter(empty(out_channels, dtype=dtype)) if bias else None
        init.weight_and_bias(self.weight, self.bias)

    def _settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def _weights(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes and settings."""
        usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        more = "".join(f", {k}={v}" for k, v in self._settings().items() if v != usual[k])
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{more}"


class Conv1d(_Conv):
    """A convolution over ``(N, C, L)``; weight ``(out_channels, in_channels / groups, R)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                 groups: int = 1, bias: bool = True, dtype: Dtype = f32) -> None:
        super().__init__(1, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype)

    def forward(self, x: Any) -> Any:
        """``(N, C, L) -> (N, F, L')``."""
        return conv1d(x, *self._weights(), **self._settings())


class Conv2d(_Conv):
    """A convolution over ``(N, C, H, W)``; weight ``(out_channels, in_channels / groups, R, S)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                 groups: int = 1, bias: bool = True, dtype: Dtype = f32) -> None:
        super().__init__(2, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype)

    def forward(self, x: Any) -> Any:
        """``(N, C, H, W) -> (N, F, H', W')``."""
        return conv2d(x, *self._weights(), **self._settings())


class Embedding(Module):
    """Rows of a table by their numbers; weight ``(num_embeddings, embedding_dim)``.

    A number out of range is an error when it is looked up.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: Dtype = f32) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(Parameter(empty(num_embeddings, embedding_dim, dtype=dtype)))

    def forward(self, index: Any) -> Any:
        """``(..) -> (.., embedding_dim)``."""
        return embedding(index, self.weight)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Dropout(Module):
    """Zeros for a share ``p`` of the elements in training, the others scaled up.

    Nothing is kept for the backward, which draws the same numbers again.
    The numbers are those of a counter (Philox) under a seed of the module's own and the count of its calls: ``seed`` makes them repeatable.
    """

    def __init__(self, p: float = 0.5, seed: int | None = None) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError(f"a dropout of {p}", remedy="a share from 0 to 1")
        self.p, self.calls = p, 0
        self.seed = seed if seed is not None else int(torch.randint(1 << 31, ()).item())

    def forward(self, x: Any) -> Any:
        """The same shape."""
        if not self.training or self.p == 0:
            return x
        return dropout(x, self.p, seed=each_call(self._next_seed))

    def _next_seed(self) -> int:
        self.calls += 1
        return (self.seed << 31) + self.calls

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"


class Flatten(Module):
    """Dimensions from ``start_dim`` to ``end_dim`` as one: the same memory under another shape."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """``(N, ..) -> (N, all)``."""
        return x.flatten(self.start_dim, self.end_dim)


class Identity(Module):
    """What goes in comes out."""

    def forward(self, x: Any) -> Any:
        """``x``."""
        return x
