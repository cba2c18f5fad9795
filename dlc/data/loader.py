"""Batches: arrays cut along their first dimension, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dlc.tensor import Tensor, from_numpy
from dsl.errors import ArgumentError


class Loader:
    """Iterates over batches of one or more arrays of equal length; each batch is a tuple of tensors.

    Args:
        arrays: numpy or torch arrays, or tensors; the first dimension counts the examples.
        batch_size: examples in a batch.
        shuffle: a new order in each pass; the order of the arrays otherwise.
        seed: decides all orders: pass ``n`` of a loader with this seed always has the same.
        drop_last: leave out a last batch that is smaller than the others, so that every batch has the same shape.
    """

    def __init__(self, *arrays: Any, batch_size: int = 32, shuffle: bool = False, seed: int = 0, drop_last: bool = False) -> None:
        self.arrays = tuple(a.numpy() if isinstance(a, Tensor) else np.asarray(a) for a in arrays)
        if not self.arrays or len({len(a) for a in self.arrays}) != 1:
            raise ArgumentError(f"a loader of arrays of lengths {[len(a) for a in self.arrays]}",
                                "each example is one entry of every array")
        if batch_size < 1:
            raise ArgumentError(f"batches of {batch_size} examples")
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.passes = 0

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(self.arrays[0])

    def __len__(self) -> int:
        """Batches in a pass."""
        return self.examples // self.batch_size if self.drop_last else -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = np.random.default_rng((self.seed, self.passes)).permutation(self.examples) if self.shuffle else np.arange(self.examples)
        self.passes += 1
        for n in range(len(self)):
            chosen = order[n * self.batch_size:(n + 1) * self.batch_size]
            yield tuple(from_numpy(np.ascontiguousarray(a[chosen])) for a in self.arrays)
