"""Which axis lies along the lanes: the one along which most bytes are contiguous."""

from __future__ import annotations

from codegen.analysis.access import Access, Strides, accesses, size
from dsl.dim import Var
from dsl.nest import Stage

NEAR = 4  # elements apart that are loaded as whole vectors


def lane_axis(stage: Stage, strides: Strides, among: tuple[Var, ...]) -> Var | None:
    """The axis with unit stride in the most bytes of a stage's accesses."""
    votes = {a: 0 for a in among}
    for x in accesses(stage, strides):
        for a in among:
            if x.stride(a) == 1:
                votes[a] += x.dtype.itemsize * span(x, stage)
    best = max(among, key=lambda a: (votes[a], size(a.extent)), default=None)
    return best if best is not None and votes[best] else None


def span(x: Access, stage: Stage) -> int:
    """Elements an access touches in all."""
    n = 1
    for a in (*stage.axes, *stage.bound):
        if x.uses(a):
            n *= size(a.extent)
    return n


def run(x: Access, stage: Stage, axis: Var) -> int:
    """Elements in one piece of memory along an axis and those of its kind that run on where it ends."""
    n = size(axis.extent)
    for a in reversed(stage.bound if axis in stage.bound else stage.axes):
        n *= size(a.extent) if a is not axis and n > 1 and x.stride(a) == n else 1
    return n
