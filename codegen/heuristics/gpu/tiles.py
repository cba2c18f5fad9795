"""What every GPU schedule is made of: power-of-two tiles, a grid, warps."""

from __future__ import annotations

from codegen.heuristics.decisions import Setting
from dsl.nest import Nest
from dsl.primitives.loops import annotate, set_role, split

WARPS = (1, 2, 4, 8, 16)
SECTOR = 32  # bytes that memory gives at once: fewer neighbours than that are paid for all the same


def power(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def blocks(extents: list[int], room: int) -> list[int]:
    """A power-of-two tile of at most ``room`` elements, filled from the last axis outwards."""
    out: list[int] = []
    for n in reversed(extents):
        out.insert(0, max(1, min(power(n), room)))
        room //= out[0]
    return out


def tile_loop(nest: Nest, stage: str, loop: str, block: int) -> tuple[Nest, str, list[str]]:
    """Split a loop by a block that becomes a tile axis; returns the loop over blocks and the tile axes (none for a block of one)."""
    if block == 1:
        return nest, loop, []
    nest = split(nest, stage, loop, block)
    return set_role(nest, stage, f"{loop}.i", "vectorize"), f"{loop}.o", [f"{loop}.i"]


def launch(nest: Nest, stage: str, grid: list[str], warps: int, setting: Setting, stages: int = 2) -> Nest:
    """Make the outer loops the grid, and note warps and stages."""
    for x in grid:
        nest = set_role(nest, stage, x, "grid")
    default = max(1, min(16, 1 << (max(warps, 1).bit_length() - 1)))
    chosen = setting.choose(f"{stage}.warps", default, WARPS)
    return annotate(annotate(nest, stage, "warps", chosen), stage, "stages", stages)
