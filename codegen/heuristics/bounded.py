"""Tiles have extents that are numbers: where a size is symbolic, a loop that would be a whole tile axis is split."""

from __future__ import annotations

from codegen.analysis.access import size
from dsl.nest import Nest
from dsl.placing import place
from dsl.primitives.loops import set_role, split


def tile_whole(nest: Nest, stage: str, loop: str, role: str, most: int = 0) -> tuple[Nest, list[str], str]:
    """Make a whole loop an axis of the tile: (the nest, loops that are left outside of it, the axis).

    A loop of known extent becomes the axis. One of symbolic extent, ``N`` and likely 8, becomes ``for i.o: for i.i`` with the axis ``i.i``
    of 8 points, and ``i.o`` is left; likewise one of more than ``most`` points, where that is said.
    """
    extent = place(nest)[stage].loop(loop).extent
    points = min(size(extent), most or size(extent))
    if extent.is_const and extent.const == points:
        return set_role(nest, stage, loop, role), [], loop
    nest = split(nest, stage, loop, points, tail="peel" if extent.is_const else "mask")
    return set_role(nest, stage, f"{loop}.i", role), [f"{loop}.o"], f"{loop}.i"
