"""How tensors lie in memory."""

from __future__ import annotations

from dsl.dim import Term, product


def contiguous(shape: tuple[Term, ...]) -> tuple[Term, ...]:
    """Row-major strides, in elements."""
    return tuple(product(shape[n + 1:]) for n in range(len(shape)))
