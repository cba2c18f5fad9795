"""Default GPU schedules: which points share a program, and the power-of-two tiles it works on.

A root stage is one Triton kernel. Its outer loops are the grid, its tile axes one Triton tensor. Stages attached to it (a softmax's
maximum and sum, the products under an activation) are computed in the same program on the same tile, so their values stay in registers.

What is computed where, from a definition to its kernels:

0. ``cascade.py`` here and above: chains of reductions that one pass computes, their states carried in registers.
1. ``fusing.py``: what only moves data is read where it is used, so a convolution is a product of tiles read through masks; values of
   rows too long for a program are computed again in every pass; cheap definitions are inlined.
2. ``seeking.py``: programs look for the indices that name their rows.
3. ``partial.py``: sums too long for the few programs there would be are made from partial sums: split-k, two-kernel reductions.
4. ``groups.py``: what shares a kernel.
5. ``contraction.py``, ``rows.py``, ``pointwise.py``: the grid and the tile of each.
"""

from __future__ import annotations

import functools

from codegen.analysis.product import product_of
from codegen.heuristics.cascade import schedule_rolls
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import fuse_stages
from codegen.heuristics.gpu.cascade import schedule_roll
from codegen.heuristics.gpu.contraction import schedule_contraction
from codegen.heuristics.gpu.fusing import inline_movement, repeat_in_long_rows
from codegen.heuristics.gpu.groups import joins
from codegen.heuristics.gpu.partial import part_reductions
from codegen.heuristics.gpu.pointwise import schedule_pointwise
from codegen.heuristics.gpu.rows import schedule_rows, schedule_scan
from codegen.heuristics.gpu.seeking import schedule_sought
from codegen.heuristics.gpu.tiles import blocks, power
from codegen.heuristics.groups import Group, group_stages
from codegen.heuristics.rolling import roll_cascades
from dsl.nest import Nest

__all__ = ["blocks", "power", "schedule_gpu"]


def schedule_gpu(nest: Nest, setting: Setting) -> Nest:
    """Fuse, part what is too long, group, then give every group its grid and its tiles."""
    nest, rolls = roll_cascades(nest, setting)
    nest = fuse_stages(inline_movement(nest), setting.target)
    nest = repeat_in_long_rows(nest)
    nest, done = schedule_rolls(nest, rolls, functools.partial(schedule_roll, setting=setting))
    nest, sought = schedule_sought(nest, setting)
    done |= sought
    nest = part_reductions(nest, setting, done)
    for group in group_stages(nest, joins, done).values():
        nest = _schedule_group(nest, group, setting)
    return nest


def _schedule_group(nest: Nest, group: Group, setting: Setting) -> Nest:
    anchor = nest[group.anchor]
    heavy = [m for m in (group.anchor, *group.members) if product_of(nest[m])]
    if heavy:
        return schedule_contraction(nest, group.anchor, heavy, setting)
    if anchor.kind == "scan":
        return schedule_scan(nest, anchor, setting)
    if anchor.kind == "map" and not group.members:
        return schedule_pointwise(nest, anchor, setting)
    return schedule_rows(nest, group, anchor.axes if anchor.kind == "reduce" else group.rows, setting)
