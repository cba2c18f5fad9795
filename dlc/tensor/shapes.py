"""Shapes that are asked for, and keys of indexing that torch takes as views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.errors import ShapeError


def complete(shape: Sequence[Any], elements: int, old: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its -1 filled in."""
    sizes = [int(n) for n in shape]
    known = int(np.prod([n for n in sizes if n != -1], dtype=np.int64))
    if sizes.count(-1) == 1 and known and elements % known == 0:
        sizes[sizes.index(-1)] = elements // known
    if -1 in sizes or int(np.prod(sizes, dtype=np.int64)) != elements:
        raise ShapeError(f"{list(old)} cannot be reshaped to {list(map(int, shape))}", f"it has {elements} elements")
    return tuple(sizes)


def is_view(key: Any) -> bool:
    """Whether torch can take part of memory by a key without copying."""
    def plain(k: Any) -> bool:
        return (k is None or k is Ellipsis or (isinstance(k, int) and not isinstance(k, bool))
                or (isinstance(k, slice) and (k.step is None or k.step > 0)))

    return all(plain(k) for k in key) if isinstance(key, tuple) else plain(key)
