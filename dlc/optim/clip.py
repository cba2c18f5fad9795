"""Gradients kept within limits."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

from dlc.tape import no_grad, phase
from dlc.tensor import Tensor
from dsl.ops.pointwise import clip, minimum, sqrt
from dsl.ops.reduction import max as largest
from dsl.ops.reduction import sum as total


def clip_grad_norm_(params: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale all gradients together so that their common norm is at most ``max_norm``; returns the norm before."""
    with phase("update"), no_grad():
        owners = [p for p in params if p.grad is not None]
        parts = [_power(p.grad, norm_type) for p in owners]
        if norm_type == float("inf"):
            norm = functools.reduce(lambda a, b: a.maximum(b), parts)
        else:
            summed = functools.reduce(operator.add, parts)
            norm = sqrt(summed) if norm_type == 2 else summed ** (1 / norm_type)
        scale = minimum(max_norm / (norm + 1e-6), 1.0)
        for p in owners:
            p.grad = p.grad * scale
        return norm


def clip_grad_value_(params: Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of every gradient to ``[-clip_value, clip_value]``."""
    with phase("update"), no_grad():
        for p in params:
            if p.grad is not None:
                p.grad = clip(p.grad, -clip_value, clip_value)


def _power(g: Tensor, norm_type: float) -> Tensor:
    """The sum of powers of the absolute values; their greatest for the infinite norm."""
    if norm_type == float("inf"):
        return largest(abs(g))
    return total(g * g if norm_type == 2 else abs(g) ** norm_type)
