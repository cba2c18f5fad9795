"""Softmax and normalisations along the last axes, written as the textbook has them."""

from __future__ import annotations

from typing import Any

from dsl.expr import Tensor
from dsl.ops import reduction as r
from dsl.ops.dispatch import operation
from dsl.ops.pointwise import exp, log, rsqrt


@operation
def softmax(x: Tensor, axis: int = -1) -> Any:
    """``exp(x - max) / sum(exp(x - max))`` along an axis."""
    e = exp(x - r.max(x, axis=axis, keepdims=True))
    return e / r.sum(e, axis=axis, keepdims=True)


@operation
def log_softmax(x: Tensor, axis: int = -1) -> Any:
    """``x - max - log(sum(exp(x - max)))`` along an axis."""
    shifted = x - r.max(x, axis=axis, keepdims=True)
    return shifted - log(r.sum(exp(shifted), axis=axis, keepdims=True))


@operation
def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Any:
    """Zero mean and unit variance along the last axis, then ``* weight + bias``; the variance is biased."""
    centred = x - r.mean(x, axis=-1, keepdims=True)
    y = centred * rsqrt(r.mean(centred * centred, axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@operation
def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Any:
    """``x / sqrt(mean(x**2) + eps)`` along the last axis, then ``* weight``."""
    y = x * rsqrt(r.mean(x * x, axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight
