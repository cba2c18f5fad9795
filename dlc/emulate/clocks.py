"""Who is ordered before whom: a vector clock for each warp of a block, and one for the asynchronous copy engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Clock = NDArray[np.int32]


class Clocks:
    """``known[a, b]`` is the last moment of agent ``b`` that agent ``a`` is ordered after; ``known[a, a]`` is its own time."""

    def __init__(self, warps: int) -> None:
        self.engine = warps  # the agent that is the copy engine
        self.known = np.zeros((warps + 1, warps + 1), np.int32)
        np.fill_diagonal(self.known, 1)

    def barrier(self, warps: NDArray[np.int64]) -> None:
        """These warps meet: what any did before, all know after."""
        self.known[warps] = self.known[warps].max(0)
        self.known[warps, warps] += 1

    def release(self, warp: int) -> Clock:
        """What a warp publishes by arriving somewhere; its later work is not part of it."""
        published: Clock = self.known[warp].copy()
        self.known[warp, warp] += 1
        return published

    def acquire(self, warp: int, published: Clock) -> None:
        """A warp learns what others published."""
        self.known[warp] = np.maximum(self.known[warp], published)

    def engine_step(self) -> Clock:
        """The copy engine finished something; returns what waiting for it teaches."""
        published = np.zeros(self.known.shape[0], np.int32)
        published[self.engine] = self.known[self.engine, self.engine]
        self.known[self.engine, self.engine] += 1
        return published
