"""Pointwise kernels: axes that memory does not tell apart become one; a tile along the last, and along another contiguous elsewhere."""

from __future__ import annotations

import math

from codegen.analysis.access import accesses, size
from codegen.heuristics.decisions import Setting
from codegen.heuristics.gpu.tiles import blocks, launch, power, tile_loop
from codegen.heuristics.maps import collapse
from dsl.nest import Nest, Stage
from dsl.primitives.loops import reorder

_BLOCK = 1024  # elements of a program without reuse
_PER_THREAD = 8


def schedule_pointwise(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """A program takes a tile: of neighbours, and square where an operand is transposed, so that both sides are contiguous."""
    name = stage.name
    nest, loops, _ = collapse(nest, stage, setting.strides)
    order = list(loops)
    across = _other_contiguous(nest[name], order, setting)
    room = setting.choose(f"{name}.block", _BLOCK, (256, 512, 1024, 2048, 4096))
    tiles = dict.fromkeys(order, 1)
    if across is not None:
        half = 1 << (room.bit_length() - 1) // 2
        tiles[order[-1]] = min(power(loops[order[-1]]), half)
        tiles[across] = min(power(loops[across]), room // tiles[order[-1]])
    else:
        tiles = dict(zip(order, blocks(list(loops.values()), room)))
    grid: list[str] = []
    inner: list[str] = []
    for x in order:
        nest, outer, tile = tile_loop(nest, name, x, tiles[x])
        grid.append(outer)
        inner += tile
    nest = reorder(nest, name, [*grid, *inner])
    return launch(nest, name, grid, math.prod(tiles.values()) // (_PER_THREAD * setting.target.warp), setting)


def _other_contiguous(stage: Stage, order: list[str], setting: Setting) -> str | None:
    """A loop other than the last along which some access is contiguous: a transposed operand."""
    names = stage.axis_names()
    for x in accesses(stage, setting.strides):
        for a in stage.axes:
            if x.stride(a) == 1 and names[a] in order[:-1] and size(a.extent) > 1:
                return names[a]
    return None
