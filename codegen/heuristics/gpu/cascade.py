"""Schedules of rolling stages on GPUs: a program takes some rows; a loop over blocks carries the states as tiles in registers."""

from __future__ import annotations

import math

from codegen.analysis.access import size
from codegen.analysis.product import Product, product_of
from codegen.heuristics.cascade import across_rows, attached, row_of
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes
from codegen.heuristics.gpu.tiles import launch, power, tile_loop
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.placing import place
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.placement import compute_at
from dsl.primitives.roll import region

_SHARED = 128 * 64  # results in registers from which eight warps share them
_SIDE = 32  # rows side by side in memory that a program takes
_LEAST = 16  # rows of a tile that a matrix unit takes


def schedule_roll(nest: Nest, host: str, anchor: str | None, setting: Setting) -> Nest:
    """Schedule a rolling stage, what is attached in it, and the pointwise stage ``anchor`` that finishes it where there is one."""
    h = nest[host]
    blocked, p = _product_rows(nest, h)
    rows = 1
    if blocked is None:
        blocked = across_rows(nest, h, setting.strides)
        rows = rows if blocked is None else setting.choose(f"{host}.columns", min(_SIDE, power(size(blocked.extent))), (16, 32, 64, 128))
    elif p is not None:
        most = max(_LEAST, min(128, _WIDE // max(power(n) for n in _columns(nest, h))))
        default = max(_LEAST, min(most, (128 if p.dtype.bits <= 16 else 64) // _share(nest, h), power(size(blocked.extent))))
        rows = setting.choose(f"{host}.rows", default, [n for n in (16, 32, 64, 128) if n <= most])
    names = h.axis_names()
    if anchor is None:
        grid = []
        for v in h.axes:
            loop = names[v]
            if v is blocked:
                nest = split(nest, host, loop, rows)
                nest = region(nest, host, f"{loop}.i")
                loop = f"{loop}.o"
            grid.append(loop)
        nest = reorder(nest, host, [*grid, nest[host].order[-1]])
    else:
        nest, grid = _schedule_anchor(nest, host, anchor, blocked, rows, setting)
        nest = region(nest, host, names[blocked]) if blocked is not None else nest
    nest = launch(nest, anchor or host, grid, _warps(nest, host, rows, p, blocked, setting), setting)
    nest = annotate(nest, host, "stages", setting.choose(f"{host}.stages", 2, (1, 2, 3)))
    for s in [s for s in nest.stages if s.attach is not None and s.attach[0] == host]:
        nest = _one_tile(nest, s.name)
    return nest


def _share(nest: Nest, h: Stage) -> int:
    """By how much fewer rows there are where more products than those of attention lie in the registers: their results, and wide states."""
    products = sum(product_of(s) is not None for s in nest.stages if s.attach == (h.name, h.order[-1]))
    if products < 3:
        return 1
    widest = max(_columns(nest, h), default=1)
    return (products + 1) // 2 * max(1, widest // 64)


def _warps(nest: Nest, host: str, rows: int, p: Product | None, blocked: Var | None, setting: Setting) -> int:
    """So many that no thread holds more of the tiles than its registers: f32 products without a matrix unit need both factors there."""
    if p is None:
        widest = max((_area(nest, s, blocked) for s in attached(nest, host)), default=1)
        return max(4, min(8, rows * widest // (32 * setting.target.warp)))
    by_hand = p.dtype.bits == 32 and p.precision == "ieee" and setting.target.kind == "cuda"
    least = min(8, 2 * _share(nest, nest[host]))
    if by_hand:
        return max(least, min(8, rows // 8))
    wide = rows * max(power(n) for n in _columns(nest, nest[host])) > _SHARED
    return max(least, min(8 if wide else 4, rows // 16 if rows >= 128 or not wide else rows // 8))


def _product_rows(nest: Nest, h: Stage) -> tuple[Var | None, Product | None]:
    """The row axis whose points share the factors of the products made in the loop, and one of those products."""
    for s in nest.stages:
        p = product_of(s) if s.attach == (h.name, h.order[-1]) else None
        rows = ([(size(v.extent), n, w) for n, v in enumerate((*p.rows, *p.columns)) if (w := row_of(nest, h, s, v)) is not None]
                if p is not None else [])
        if rows:
            return max(rows, key=lambda x: x[:2])[2], p
    return None, None


def _columns(nest: Nest, h: Stage) -> list[int]:
    """Axes of the results besides the rows, in elements: those a program keeps for each row."""
    return [math.prod(size(v.extent) for v in t.axes[len(h.axes):]) for t in h.tensors]


def _area(nest: Nest, s: Stage, blocked: Var | None) -> int:
    """Elements of a stage's tile for one row."""
    extent = place(nest)[s.name].extent
    return math.prod(size(extent[v]) for v in (*s.axes, *s.bound) if blocked is None or v.name != blocked.name)


def _schedule_anchor(nest: Nest, host: str, anchor: str, blocked: Var | None, rows: int, setting: Setting) -> tuple[Nest, list[str]]:
    """The grid of rows, the rolling stage in it, then the anchor's own points as one tile."""
    h, a = nest[host], nest[anchor]
    up = identity_axes(a, h) or {}
    names = a.axis_names()
    grid: list[str] = []
    tile: list[str] = []
    loops: list[str] = []
    for v in h.axes:
        nest, outer, made = tile_loop(nest, anchor, names[up[v]], rows if v is blocked else 1)
        grid.append(outer)
        tile += made
    room = _WIDE // rows
    for v in reversed([v for v in a.axes if v not in up.values()]):
        block = max(1, min(power(size(v.extent)), room))
        nest, outer, made = tile_loop(nest, anchor, names[v], block)
        loops.insert(0, outer)
        tile += made
        room //= block
    nest = reorder(nest, anchor, [*grid, *loops, *tile])
    return compute_at(nest, host, anchor, grid[-1] if grid else ""), grid


_WIDE = 16384  # elements of a tile of results


def _one_tile(nest: Nest, name: str) -> Nest:
    """The whole region of a stage as one tile: states and values stay in registers."""
    s = nest[name]
    extent = place(nest)[name].extent
    names = s.axis_names()
    p = product_of(s)
    outer: list[str] = []
    tile: list[str] = []
    for v in (*s.axes, *s.bound):
        loop, n = names[v], size(extent[v])
        if n == 1:
            outer.append(loop)
            continue
        role = "dot" if p is not None and p.unit and v in p.contracted else "vectorize"
        wide = max(power(n), _LEAST if role == "dot" else 1)
        if wide != n:
            nest = split(nest, name, loop, wide)
            outer.append(f"{loop}.o")
            loop = f"{loop}.i"
        nest = set_role(nest, name, loop, role)
        tile.append(loop)
    return reorder(nest, name, [*outer, *tile])
