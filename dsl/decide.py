"""Decisions by looking at every point: what the provers leave open, where all sizes are numbers and the points few enough.

The provers of bounds and races are sound and incomplete. What they cannot show is settled here, by evaluating the index terms at every
point of the box of their variables; :data:`BUDGET` is the number of points that may cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.dim import Term, Var

BUDGET = 1 << 22

Env = dict[Var, Any]
Array = Any


def counterexample(t: Term, facts: Sequence[Term]) -> Mapping[Var, int] | bool:
    """A point where the facts hold and ``t < 0``; True when there is none; False when that is not decided within the budget."""
    grid = box({v for x in (t, *facts) for v in x.vars})
    if grid is None:
        return False
    bad = np.asarray(inside(facts, grid) & (t.eval(grid) < 0))
    return point(grid, np.argwhere(bad)[0]) if bad.any() else True


def box(variables: Iterable[Var]) -> Env | None:
    """Every value of each variable, each along a dimension of its own; None when a range is unknown or the box is beyond the budget."""
    order = sorted(variables, key=lambda v: v.uid)
    counts = [_count(v) for v in order]
    sizes = [n for n in counts if n is not None]
    if len(sizes) < len(order) or math.prod(sizes) > BUDGET:
        return None
    return {v: np.arange(n).reshape([-1 if k == d else 1 for k in range(len(order))]) for d, (v, n) in enumerate(zip(order, sizes))}


def inside(facts: Iterable[Term], grid: Env) -> Array:
    """Where every fact holds: a bool array over the whole box."""
    held = np.ones([a.size for a in grid.values()], bool)
    for f in facts:
        held &= np.asarray(f.eval(grid)) >= 0
    return held


def point(grid: Env, place: Sequence[int]) -> dict[Var, int]:
    """The values of the variables at one place of the box."""
    return {v: int(at) for v, at in zip(grid, place)}


def _count(v: Var) -> int | None:
    if v.extent is None:
        return None
    most = v.extent.bounds[1]
    return max(int(most), 0) if most < BUDGET else None
