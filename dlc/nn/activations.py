"""Activation functions as modules."""

from __future__ import annotations

from typing import Any

from dlc.nn.module import Module
from dsl.ops.activation import gelu, leaky_relu, relu, silu
from dsl.ops.norm import softmax
from dsl.ops.pointwise import sigmoid, tanh


class ReLU(Module):
    """``max(x, 0)``."""

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return relu(x)


class GELU(Module):
    """``x`` times the normal distribution function of ``x``; ``approximate="tanh"`` for the formula with tanh."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return gelu(x, approximate=self.approximate)


class SiLU(Module):
    """``x * sigmoid(x)``."""

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return silu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return tanh(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return sigmoid(x)


class LeakyReLU(Module):
    """``x`` where positive, else a share of it."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        """Element by element."""
        return leaky_relu(x, self.negative_slope)


class Softmax(Module):
    """``exp(x)`` over its sum, along an axis."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        """Along the axis."""
        return softmax(x, self.dim)
