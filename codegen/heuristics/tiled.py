"""Products on tile registers: blocks of accumulators that stay there over a block of the sum.

Sums are kept in a stage of their own, in the accumulator's dtype, and finished row by row by whoever reads them: tile by tile where the
whole sum passes through the registers at once, panel by panel where it is cut into blocks so that a panel of the lane factor stays in the
nearest cache. Both factors are packed: rows of the one in whole lines, lanes of the other with the terms of an instruction's step side by
side, and zeros where the sum is no multiple of an instruction's terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from codegen.analysis.access import size
from codegen.heuristics.blocking import Blocks, panels_together, thread_blocks
from codegen.heuristics.decisions import Setting
from codegen.heuristics.dots import Dots, contract, pad_product
from codegen.heuristics.fusion import identity_axes
from codegen.heuristics.packing import Packing, crosses_panels, pack_lanes, pack_rows
from codegen.heuristics.product import Product
from codegen.micro.tile_block import fits
from codegen.target.model import Target
from dsl.nest import Nest
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.reduction import finish_apart
from dsl.primitives.storage import compute_at, compute_inline

_LOAD = 8.0  # cycles of loading a tile
_COLLISIONS = 0.25  # share of a load that shows all the same
_LATENCY = 52.0  # cycles from one product to the next on the same accumulator
_COPY = 64  # copying an element into a packed block, in multiply-adds
_NEAR = 0.6  # share of the nearest cache for a panel of the lane factor
_AROUND = 1.5  # loading and storing a block of accumulators, in steps of its sum


@dataclass(frozen=True)
class TileShape:
    """A block of accumulators, and how many terms of the sum it takes at a time."""

    lanes: int
    rows: int
    block: int


def tile_shape(target: Target, d: Dots, columns: int, lines: int) -> tuple[int, int]:
    """(lanes, rows) of the block of accumulators that takes the fewest cycles for the whole result, edges included."""
    i = d.instruction

    def cycles(nr: int, mr: int) -> float:
        loads = _LOAD * (nr / i.lanes + mr / i.rows)
        step = max(i.cycles * nr / i.lanes * mr / i.rows, loads, _LATENCY) + _COLLISIONS * loads
        return step * -(-columns // nr) * -(-lines // mr)

    return min(_shapes(d, columns, lines), key=lambda s: (cycles(*s), -s[0] * s[1], abs(s[0] - s[1])))


def _shapes(d: Dots, columns: int, lines: int) -> list[tuple[int, int]]:
    """(lanes, rows) of every block that the registers hold, none with a tile wholly beyond the edge."""
    lanes, rows = min(d.instruction.lanes, max(4, columns)), min(d.instruction.rows, lines)
    return [(n * lanes, m * rows) for n in range(1, 8) for m in range(1, 8)
            if fits(m, n) and (n - 1) * lanes < columns and (m - 1) * rows < lines]


def sum_block(target: Target, d: Dots, lanes: int, terms: int) -> int:
    """How many terms of a sum pass at a time: all, or so many that a panel of the lane factor stays in the nearest cache."""
    steps = -(-terms // d.depth)
    most = max(4, int(_NEAR * target.caches[0]) // (lanes * d.depth * d.instruction.operand.itemsize))
    rounds = range(-(-steps // most), -(-steps // most) + 4)
    parts = min(rounds, key=lambda r: r * (-(-steps // r) + _AROUND)) if steps > most else 1
    return -(-steps // parts) * d.depth


def schedule_tiled(nest: Nest, anchor: str, p: Product, dots: Dots, setting: Setting) -> Nest:
    """The schedule of a product on tile registers, and of the map stage that finishes it."""
    shape = _shape(p, anchor, dots, setting)
    nest, anchor, heavy = _sums(nest, anchor, p, apart=shape.block < size(dots.axis.extent))
    p = replace(p, stage=nest[heavy])
    nest, p, dots, setting = pad_product(nest, p, dots, shape.block if shape.block < size(dots.axis.extent) else dots.depth, setting)
    up = {v: v for v in p.stage.axes} if anchor == heavy else identity_axes(nest[anchor], nest[heavy]) or {}
    axes = nest[anchor].axis_names()
    lane, row = axes[up[p.lane]], axes[up[p.row]] if p.row is not None else ""
    batch = [axes[v] for v in nest[anchor].axes if axes[v] not in (lane, row)]
    extents = {axes[v]: size(v.extent) for v in nest[anchor].axes}
    b = Blocks(p.columns, p.lines, shape.lanes, shape.rows, p.depth, math.prod(extents[x] for x in batch),
               itemsize=dots.instruction.operand.itemsize, copy=_COPY)
    blocks = setting.choose(f"{anchor}.blocks", thread_blocks(setting.target, b, (True, True)),
                            [(c, r) for c in (1, 4, 16, 64) for r in (1, 4, 16, 64)])
    nest = _tile_anchor(nest, anchor, heavy, (lane, shape.lanes, blocks[0]), (row, shape.rows, blocks[1]))
    panel = f"{lane}.s"
    if crosses_panels(p.lanes, p.lane, setting.strides):
        together = setting.choose(f"{anchor}.panels", panels_together(setting.target, b, blocks[0]), (1, 2, 4, 8))
        panel = f"{lane}.w"
        nest = split(nest, anchor, f"{lane}.s", together, f"{lane}.g", panel)
    inner = [x for x in (f"{lane}.g", panel, f"{row}.s") if x in nest[anchor].order]
    nest = _place_sums(nest, anchor, p, dots, shape, ([*batch, f"{row}.p", f"{lane}.p"], inner, [f"{row}.i", f"{lane}.i"]))
    for x in (*batch, f"{row}.p", f"{lane}.p"):
        nest = set_role(nest, anchor, x, "parallel")
    packing = Packing(heavy, setting, (dots.axis, dots.terms, dots.depth))
    assert p.rows is not None and p.lanes is not None and p.row is not None
    nest = pack_rows(nest, packing, p.rows, p.row, shape.rows, (anchor, f"{lane}.p"))
    nest = pack_lanes(nest, packing, p.lanes, p.lane, shape.lanes, (anchor, inner[0]))
    return contract(nest, heavy, dots)


def _shape(p: Product, anchor: str, dots: Dots, setting: Setting) -> TileShape:
    """The block of accumulators and of the sum."""
    target, terms = setting.target, size(dots.axis.extent)
    nr, mr = setting.choose(f"{anchor}.register_tile", tile_shape(target, dots, p.columns, p.lines), _shapes(dots, p.columns, p.lines))
    whole = -(-terms // dots.depth) * dots.depth
    known = dots.axis.extent is not None and dots.axis.extent.is_const and len(p.stage.bound) == 1
    default = sum_block(target, dots, nr, terms) if known else whole
    block = setting.choose(f"{anchor}.sum_block", default, [n * dots.depth for n in (4, 8, 16, 32)] if known else ())
    return TileShape(nr, mr, block if block < whole else whole)


def _sums(nest: Nest, anchor: str, p: Product, apart: bool) -> tuple[Nest, str, str]:
    """(nest, the stage that finishes, the stage of sums), apart where they are rounded, or `apart` says so."""
    heavy = p.stage.name
    if anchor == heavy and p.stage.tensors[0].dtype == p.accumulator and not apart:
        return nest, anchor, heavy
    if anchor != heavy and p.stage.tensors[0].dtype == p.accumulator:
        return nest, anchor, heavy
    nest, sums = finish_apart(nest, heavy)
    return (nest, anchor, sums) if anchor == heavy else (compute_inline(nest, heavy), anchor, sums)


def _tile_anchor(nest: Nest, anchor: str, heavy: str, lane: tuple[str, int, int], row: tuple[str, int, int]) -> Nest:
    """Split lane and row loops into blocks, tiles and points: the tile's own where the anchor is the product, else rows of vectors."""
    roles = {lane[0]: "vectorize", row[0]: "unroll" if anchor == heavy else "serial"}
    for loop, points, tiles in (row, lane):
        nest = split(nest, anchor, loop, points)
        nest = split(nest, anchor, f"{loop}.o", tiles, f"{loop}.p", f"{loop}.s")
        nest = set_role(nest, anchor, f"{loop}.i", roles[loop])
    return nest


def _place_sums(nest: Nest, anchor: str, p: Product, dots: Dots, shape: TileShape, loops: tuple[list[str], list[str], list[str]]) -> Nest:
    """Order the loops: sums inside a block's row tiles, or, where the sum is cut, block by block of it inside a panel."""
    heavy, (grid, inner, tile) = p.stage.name, loops
    names = nest[heavy].axis_names()
    bound = [names[v] for v in p.stage.bound]
    if anchor == heavy:
        return reorder(nest, anchor, [*grid, *inner, *bound, *tile])
    nest = reorder(nest, anchor, [*grid, *inner, *tile])
    cut = shape.block < size(dots.axis.extent)
    nest = compute_at(nest, heavy, anchor, inner[-2] if cut else inner[-1])
    assert p.row is not None
    row, lane, k = names[p.row], names[p.lane], names[dots.axis]
    rest = [names[v] for v in p.stage.axes if v is not p.lane and v is not p.row]
    order = [*rest, *bound, row, lane]
    if cut:
        nest = split(nest, heavy, row, shape.rows, f"{row}.t", f"{row}.u")
        nest = split(nest, heavy, k, shape.block, f"{k}.b", f"{k}.r", tail="exact")
        order, row = [*rest, f"{k}.b", f"{row}.t", f"{k}.r", f"{row}.u", lane], f"{row}.u"
    nest = reorder(nest, heavy, order)
    nest = set_role(nest, heavy, lane, "vectorize")
    return set_role(nest, heavy, row, "unroll")
