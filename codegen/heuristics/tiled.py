"""Products on tile registers: blocks of accumulators that stay there over a block of the sum.

Sums are kept in a stage of their own, in the accumulator's dtype, and finished row by row by whoever reads them: tile by tile where the
whole sum passes through the registers at once, panel by panel where it is cut into blocks so that a panel of the lane factor stays in the
nearest cache. Both factors are packed: rows of the one in whole lines, lanes of the other with the terms of an instruction's step side by
side, and zeros where the sum is no multiple of an instruction's terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from codegen.analysis.access import size
from codegen.heuristics.blocking import Blocks, thread_blocks
from codegen.heuristics.decisions import Setting
from codegen.heuristics.dots import Dots, contract, pad_product, sums_apart
from codegen.heuristics.fusion import identity_axes
from codegen.heuristics.packing import Packing, pack_lanes, pack_rows
from codegen.heuristics.product import Product
from codegen.micro.tile_block import fits
from codegen.target.model import Target
from dsl.dim import Term, Var, as_term
from dsl.nest import Nest
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.storage import compute_at, lay_out

_LOAD = 8.0  # cycles of loading a tile
_COLLISIONS = 0.25  # share of a load that shows all the same
_LATENCY = 52.0  # cycles from one product to the next on the same accumulator
_COPY = 64  # copying an element into a packed block, in multiply-adds
_WIDE = 512  # columns of panels that are packed and worked on together
_NEAR = 0.6  # share of the nearest cache for a panel of the lane factor
_AROUND = 1.5  # loading and storing a block of accumulators, in steps of its sum
_MASKED = 0.75  # copying with masks, likewise


@dataclass(frozen=True)
class TileShape:
    """A block of accumulators, and how many terms of the sum it takes at a time; whether that cuts the sum."""

    lanes: int
    rows: int
    block: int
    cut: bool


def tile_shape(d: Dots, columns: int, lines: int) -> tuple[int, int]:
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
    parts = min(rounds, key=lambda r: r * (-(-steps // r) + _AROUND) + _MASKED * (steps % r > 0)) if steps > most else 1
    return -(-steps // parts) * d.depth


def schedule_tiled(nest: Nest, anchor: str, p: Product, dots: Dots, setting: Setting) -> Nest:
    """The schedule of a product on tile registers, and of the map stage that finishes it."""
    shape = _shape(p, anchor, dots, setting)
    apart = p.stage.tensors[0].dtype != p.accumulator or (shape.cut and anchor == p.stage.name)
    nest, p = sums_apart(nest, anchor, p, dots, apart)
    nest, p, dots, setting = pad_product(nest, p, dots, shape.block if shape.cut else dots.depth, setting)
    heavy = p.stage.name
    up = {v: v for v in p.stage.axes} if anchor == heavy else identity_axes(nest[anchor], nest[heavy]) or {}
    axes = nest[anchor].axis_names()
    assert p.rows is not None and p.lanes is not None and p.row is not None
    lane, row = axes[up[p.lane]], axes[up[p.row]]
    batch = [axes[v] for v in nest[anchor].axes if axes[v] not in (lane, row)]
    products = math.prod(size(v.extent) for v in nest[anchor].axes if axes[v] in batch)
    itemsize = dots.instruction.operand.itemsize
    b = Blocks(p.columns, p.lines, shape.lanes, shape.rows, p.depth, products, itemsize=itemsize, copy=_COPY)
    together, most = _near_sizes(setting.target, b, shape)
    blocks = setting.choose(f"{anchor}.blocks", thread_blocks(setting.target, b, (True, True), most),
                            [(c, r) for c in (1, 4, 16, 64) for r in (1, 4, 16, 64)])
    together = setting.choose(f"{anchor}.panels", -(-blocks[0] // -(-blocks[0] // together)), (1, 2, 4, 8, 16))
    nest = _tile_anchor(nest, anchor, heavy, (lane, shape.lanes, blocks[0], together), (row, shape.rows, blocks[1]))
    grid, walk = [*batch, f"{row}.p", f"{lane}.p"], p.walk(setting.strides)
    nest = (_sums_by_panel if shape.cut else _sums_by_tile)(nest, anchor, p, shape, grid, (row, lane), walk)
    for x in grid:
        nest = set_role(nest, anchor, x, "parallel")
    packing = Packing(heavy, setting, walk, (dots.axis, dots.terms, dots.depth), dots.instruction.operand)
    nest = pack_rows(nest, packing, p.rows, p.row, shape.rows, (anchor, f"{lane}.p"))
    nest = pack_lanes(nest, packing, p.lanes, p.lane, shape.lanes, (anchor, f"{lane}.g"))
    return contract(nest, heavy, dots)


def _near_sizes(target: Target, b: Blocks, shape: TileShape) -> tuple[int, int]:
    """(panels, row tiles) that are worked on together: what they read again and again stays in the second cache.

    Those are the packed rows of one block of the sum and its unfinished results, or the packed rows whole with the panels of one pass.
    """
    room, line = target.caches[1], b.itemsize * shape.block
    if shape.cut:
        panels = max(1, _WIDE // shape.lanes)
        return panels, max(1, 3 * room // 4 // ((line + 4 * panels * shape.lanes) * shape.rows))
    return max(1, min(room // 4 // (line * shape.lanes), _WIDE // shape.lanes)), max(1, room // 2 // (line * shape.rows))


def _shape(p: Product, anchor: str, dots: Dots, setting: Setting) -> TileShape:
    """The block of accumulators and of the sum."""
    target, terms = setting.target, size(dots.axis.extent)
    nr, mr = setting.choose(f"{anchor}.register_tile", tile_shape(dots, p.columns, p.lines), _shapes(dots, p.columns, p.lines))
    whole = -(-terms // dots.depth) * dots.depth
    known = dots.axis.extent is not None and dots.axis.extent.is_const and len(p.stage.bound) == 1
    default = sum_block(target, dots, nr, terms) if known else whole
    block = setting.choose(f"{anchor}.sum_block", default, [n * dots.depth for n in (4, 8, 16, 32)] if known else ())
    return TileShape(nr, mr, min(block, whole), block < whole)


def _tile_anchor(nest: Nest, anchor: str, heavy: str, lane: tuple[str, int, int, int], row: tuple[str, int, int]) -> Nest:
    """Split lane and row loops into blocks, groups of panels, tiles and points; roles for the points.

    They are the tile's own where the anchor is the product, else rows of vectors.
    """
    for loop, points, tiles in (row, lane[:3]):
        nest = split(nest, anchor, loop, points)
        nest = split(nest, anchor, f"{loop}.o", tiles, f"{loop}.p", f"{loop}.s")
    nest = split(nest, anchor, f"{lane[0]}.s", lane[3], f"{lane[0]}.g", f"{lane[0]}.w")
    nest = set_role(nest, anchor, f"{lane[0]}.i", "vectorize")
    return set_role(nest, anchor, f"{row[0]}.i", "unroll") if anchor == heavy else nest


def _sums_by_tile(nest: Nest, anchor: str, p: Product, shape: TileShape, grid: list[str], axes: tuple[str, str],
                  walk: tuple[Var, ...]) -> Nest:
    """Whole sums, a block of accumulators at a time, each finished before the next."""
    heavy, (row, lane) = p.stage.name, axes
    inner, tile = [f"{lane}.g", f"{lane}.w", f"{row}.s"], [f"{row}.i", f"{lane}.i"]
    bound = [nest[heavy].axis_names()[v] for v in walk]
    if anchor == heavy:
        return reorder(nest, anchor, [*grid, *inner, *bound, *tile])
    nest = reorder(nest, anchor, [*grid, *inner, *tile])
    return _tile_sums(compute_at(nest, heavy, anchor, f"{row}.s"), p, [], bound)


def _sums_by_panel(nest: Nest, anchor: str, p: Product, shape: TileShape, grid: list[str], axes: tuple[str, str],
                   walk: tuple[Var, ...]) -> Nest:
    """The results of a group of panels together, a block of their sums at a time; then they are finished row by row."""
    heavy, (row, lane) = p.stage.name, axes
    nest = reorder(nest, anchor, [*grid, f"{lane}.g", f"{row}.s", f"{row}.i", f"{lane}.w", f"{lane}.i"])
    nest = compute_at(nest, heavy, anchor, f"{lane}.g")
    assert p.row is not None
    names, (k,) = nest[heavy].axis_names(), walk
    i, j, t = names[p.row], names[p.lane], names[k]
    nest = lay_out(nest, heavy, lambda axes: _by_panels(axes, p.row, p.lane, shape.lanes))
    nest = split(nest, heavy, t, shape.block, f"{t}.b", f"{t}.r", tail="exact")
    nest = split(nest, heavy, j, shape.lanes, f"{j}.t", f"{j}.u")
    nest = split(nest, heavy, i, shape.rows, f"{i}.t", f"{i}.u")
    return _tile_sums(nest, p, [f"{t}.b", f"{j}.t", f"{i}.t"], [f"{t}.r"])


def _by_panels(axes: tuple[Var, ...], row: Var | None, lane: Var, lanes: int) -> tuple[Term, ...]:
    """Results panel by panel, row by row in each."""
    return (*(as_term(v) for v in axes if v is not row and v is not lane), as_term(lane) // lanes,
            *(as_term(v) for v in axes if v is row), as_term(lane) % lanes)


def _tile_sums(nest: Nest, p: Product, outer: list[str], bound: list[str]) -> Nest:
    """The loops of the sums: products of a batch, ``outer``, the sum, and the tile."""
    heavy, names = p.stage.name, nest[p.stage.name].axis_names()
    assert p.row is not None
    row, lane = (next(x for x in (f"{names[v]}.u", names[v]) if x in nest[heavy].order) for v in (p.row, p.lane))
    rest = [names[v] for v in p.stage.axes if v is not p.lane and v is not p.row]
    nest = reorder(nest, heavy, [*rest, *outer, *bound, row, lane])
    nest = set_role(nest, heavy, lane, "vectorize")
    return set_role(nest, heavy, row, "unroll")
