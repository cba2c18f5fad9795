"""Sums over a row that others need besides the map which goes over that row next: they are made where the row is in the cache, and kept.

The gradient of a normalised input needs sums over its group first, and those of the weight and the bias need the same sums. Made in a pass
of their own the sums would read everything from memory, and the map would do so again; here a thread makes the sums of a row and then
the row itself. Results of a kernel, such as the statistics that a backward begins with, are kept like that too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from codegen.analysis.access import Access, accesses, size
from codegen.analysis.cycles import level
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import is_contraction
from codegen.heuristics.groups import Group
from codegen.heuristics.lanes import lane_axis, span
from dsl.dim import Var
from dsl.expr import Tensor
from dsl.nest import Nest, Stage
from dsl.primitives.beside import compute_beside
from dsl.primitives.placement import depends


def keeps(nest: Nest, s: Stage, group: Group, rows: Mapping[Var, Var], setting: Setting) -> bool:
    """Whether a sum is made row by row inside of a map though others need it too: what a row reads is nearer then.

    Args:
        nest: the stages.
        s: the sum.
        group: of the map.
        rows: the sum's axes that are rows of the map.
        setting: the machine and how inputs lie in memory.
    """
    anchor = nest[group.anchor]
    others = [c for c in nest.consumers(s) if c.name not in (group.anchor, *group.members)]
    if s.kind != "reduce" or anchor.kind != "map" or is_contraction(s) or any(depends(nest, anchor, c) for c in others):
        return False
    if len(set(rows.values())) < len(rows) or any(a.extent != v.extent for a, v in rows.items()):
        return False
    if any(lane_axis(x, setting.strides, (*x.axes, *x.bound)) in (*rows, *rows.values()) for x in (s, anchor)):
        return False
    if not all(_one_piece(x, stage, along) for stage, along in ((s, {*rows}), (anchor, {*rows.values()}))
               for x in accesses(stage, setting.strides)):
        return False
    whole, row = _moved(s, anchor, rows, setting)
    return level(setting.target, row) < level(setting.target, whole)


def _one_piece(x: Access, stage: Stage, rows: AbstractSet[Var]) -> bool:
    """Whether what an access takes for a row lies in one piece.

    Pieces that are a power of two apart, as the planes of a channel may be, fall into the same sets of a cache and drive each other out.
    """
    inside = [(size(a.extent), x.stride(a)) for a in (*stage.axes, *stage.bound) if a not in rows and x.uses(a)]
    steps = [(n - 1) * abs(step) for n, step in inside if step is not None]
    return len(steps) == len(inside) and sum(steps) + 1 == math.prod(n for n, _ in inside)


def _moved(s: Stage, anchor: Stage, rows: Mapping[Var, Var], setting: Setting) -> tuple[int, int]:
    """Bytes that a sum and a map read and write in all, and for one row."""
    whole: dict[Tensor, int] = {}
    row: dict[Tensor, int] = {}
    for stage, along in ((s, rows.keys()), (anchor, rows.values())):
        for x in accesses(stage, setting.strides):
            n = span(x, stage) * x.dtype.itemsize
            whole[x.tensor] = max(whole.get(x.tensor, 0), n)
            row[x.tensor] = max(row.get(x.tensor, 0), n // max(1, math.prod(size(a.extent) for a in along if x.uses(a))))
    return sum(whole.values()), sum(row.values())


def keep_beside(nest: Nest, name: str, rows: Mapping[Var, Var], anchor: str, loops: list[str]) -> Nest:
    """Compute a row of a stage in every round of the loops over the rows of a map, and keep it whole."""
    mine, theirs = nest[name].axis_names(), nest[anchor].axis_names()
    axes = {theirs[v]: mine[a] for a, v in rows.items()}
    return compute_beside(nest, name, anchor, loops[-1], [axes[x] for x in loops], [1] * len(loops))
