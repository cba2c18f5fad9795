"""Default GPU schedules: which points share a program, and the power-of-two tiles it works on.

A root stage is one Triton kernel. Its outer loops are the grid, its tile axes one Triton tensor. Stages attached to it (a softmax's
maximum and sum, the product under an activation) are computed in the same program on the same tile, so their values stay in registers.
"""

from __future__ import annotations

import math
from dataclasses import replace

from codegen.analysis.access import accesses, product_reads, size
from codegen.heuristics.cpu import Group, collapse, group_stages
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import fuse_stages, identity_axes, is_contraction, iterations
from dsl.dim import Var
from dsl.dtype import Dtype
from dsl.expr import Read
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.storage import compute_at, neutral_input, rfactor

_POINTWISE = 1024  # elements of a program without reuse
_ROWS = 4096  # elements of a program that reduces rows
_WIDEST = 16384  # elements along a row that one program holds at once
_FACTOR = 1 << 15  # elements from which a reduction over few rows is worth two kernels


def schedule_gpu(nest: Nest, setting: Setting) -> Nest:
    """Fuse, group by rows, then give every group its grid and its tiles."""
    nest = fuse_stages(nest)
    nest = _factor_reductions(nest, setting)
    alone = replace(setting.target, threads=1)  # a row is worth one program however few rows there are: kernels apart cost more
    for group in group_stages(nest, alone).values():
        nest = _schedule_group(nest, group, setting)
    return nest


def _schedule_group(nest: Nest, group: Group, setting: Setting) -> Nest:
    anchor = nest[group.anchor]
    heavy = next((m for m in (group.anchor, *group.members) if is_contraction(nest[m])), None)
    if heavy is not None and not set(group.members) - {heavy}:
        return _schedule_contraction(nest, group.anchor, heavy, setting)
    if anchor.kind == "scan":
        return _schedule_scan(nest, anchor, setting)
    if anchor.kind == "map" and not group.members:
        return _schedule_pointwise(nest, anchor, setting)
    return _schedule_rows(nest, group, anchor.axes if anchor.kind == "reduce" else group.rows, setting)


# -- tiles ---------------------------------------------------------------------------------------------------------
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


def _tile(nest: Nest, stage: str, loop: str, block: int) -> tuple[Nest, str, list[str]]:
    """Split a loop by a block that becomes a tile axis; returns the loop over blocks and the tile axes (none for a block of one)."""
    if block == 1:
        return nest, loop, []
    nest = split(nest, stage, loop, block)
    return set_role(nest, stage, f"{loop}.i", "vectorize"), f"{loop}.o", [f"{loop}.i"]


def _launch(nest: Nest, stage: str, grid: list[str], elements: int, setting: Setting, stages: int = 2) -> Nest:
    for x in grid:
        nest = set_role(nest, stage, x, "grid")
    default = max(1, min(8, elements // (8 * setting.target.warp)))
    warps = setting.choose(f"{stage}.warps", 1 << (default.bit_length() - 1), (1, 2, 4, 8, 16))
    return annotate(annotate(nest, stage, "warps", warps), stage, "stages", stages)


# -- pointwise -----------------------------------------------------------------------------------------------------
def _schedule_pointwise(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """Axes that memory does not tell apart become one; a tile along the last, and along another one that is contiguous elsewhere."""
    name = stage.name
    nest, loops = collapse(nest, stage, setting.strides)
    order = list(loops)
    across = _other_contiguous(nest[name], order, setting)
    room = setting.choose(f"{name}.block", _POINTWISE, (256, 512, 1024, 2048, 4096))
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
        nest, outer, tile = _tile(nest, name, x, tiles[x])
        grid.append(outer)
        inner += tile
    nest = reorder(nest, name, [*grid, *inner])
    return _launch(nest, name, grid, math.prod(tiles.values()), setting)


def _other_contiguous(stage: Stage, order: list[str], setting: Setting) -> str | None:
    """A loop other than the last along which some access is contiguous: a transposed operand."""
    names = stage.axis_names()
    for x in accesses(stage, setting.strides):
        for a in stage.axes:
            if x.stride(a) == 1 and names[a] in order[:-1] and size(a.extent) > 1:
                return names[a]
    return None


# -- rows ----------------------------------------------------------------------------------------------------------
def _schedule_rows(nest: Nest, group: Group, rows: tuple[Var, ...], setting: Setting) -> Nest:
    """A program takes some rows whole: everything attached is computed on the same tile."""
    name = group.anchor
    stages = [name, *group.members]
    inner = max(math.prod(size(v.extent) for v in _inside(nest[m], rows, group)) for m in stages)
    lane = _contiguous_row(nest[name], rows, setting)
    width, block = _row_tile(rows, lane, inner, name, setting)
    names = nest[name].axis_names()
    grid: list[str] = []
    tile: list[str] = []
    for v in rows:
        nest, outer, made = _tile(nest, name, names[v], width if v is lane else 1)
        grid.append(outer)
        tile += made
    nest = _tile_inside(nest, name, rows, group, [*grid], tile, block)
    nest = _launch(nest, name, grid, width * min(block, power(inner)), setting)
    for member, up in group.members.items():
        nest = compute_at(nest, member, name, grid[-1] if grid else "")
        own = nest[member].axis_names()
        mine = [own[v] for v in nest[member].axes if v in up]
        wide = [own[v] for v in nest[member].axes if up.get(v) is lane and width > 1]
        for x in wide:
            nest = set_role(nest, member, x, "vectorize")
        nest = _tile_inside(nest, member, rows, group, [x for x in mine if x not in wide], wide, block)
    return nest


def _inside(stage: Stage, rows: tuple[Var, ...], group: Group) -> list[Var]:
    """The axes of a stage that are not rows, bound ones last."""
    mine = group.members.get(stage.name)
    return [v for v in (*stage.axes, *stage.bound) if (v not in mine if mine is not None else v not in rows)]


def _tile_inside(nest: Nest, name: str, rows: tuple[Var, ...], group: Group, outer: list[str], tile: list[str], room: int) -> Nest:
    """Tile what lies inside a row: loops over blocks, then the tile."""
    s = nest[name]
    names = s.axis_names()
    inside = _inside(s, rows, group)
    spatial: list[str] = []
    bound: list[str] = []
    made: list[str] = []
    for v, block in zip(inside, blocks([size(v.extent) for v in inside], room)):
        nest, loop, axes = _tile(nest, name, names[v], block)
        (spatial if v in s.axes else bound).append(loop)
        made += axes
    return reorder(nest, name, [*outer, *spatial, *bound, *tile, *made])


def _contiguous_row(anchor: Stage, rows: tuple[Var, ...], setting: Setting) -> Var | None:
    """The row axis that several rows of one program lie along: a contiguous one, else the last."""
    found = [v for v in rows if size(v.extent) > 1 and any(x.stride(v) == 1 and not x.write for x in accesses(anchor, setting.strides))]
    return found[0] if found else next((v for v in reversed(rows) if size(v.extent) > 1), None)


def _row_tile(rows: tuple[Var, ...], lane: Var | None, inner: int, name: str, setting: Setting) -> tuple[int, int]:
    """(rows, elements inside a row) of one program's tile."""
    block = min(power(inner), _WIDEST)
    if lane is None:
        return 1, block
    total = math.prod(size(v.extent) for v in rows)
    width = min(power(size(lane.extent)), max(1, _ROWS // block))
    while width > 1 and total // width < 2 * setting.target.threads:
        width //= 2
    width = setting.choose(f"{name}.rows", width, [n for n in (1, 2, 4, 8, 16, 32, 64) if n * block <= 4 * _ROWS])
    return width, block


# -- scans ---------------------------------------------------------------------------------------------------------
def _schedule_scan(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """A program takes some rows; along the scan a tile at a time, its last prefix carried on."""
    name, names = stage.name, stage.axis_names()
    rows = [v for v in stage.axes if v is not stage.position]
    (scanned,) = stage.bound
    block = min(power(size(scanned.extent)), _ROWS)
    lane = _contiguous_row(stage, tuple(rows), setting)
    width, _ = _row_tile(tuple(rows), lane, block, name, setting)
    grid: list[str] = []
    tile: list[str] = []
    for v in rows:
        nest, outer, made = _tile(nest, name, names[v], width if v is lane else 1)
        grid.append(outer)
        tile += made
    nest, along, made = _tile(nest, name, names[scanned], block)
    nest = reorder(nest, name, [*grid, along, *tile, *made])
    return _launch(nest, name, grid, width * block, setting)


# -- long reductions over few rows ---------------------------------------------------------------------------------
def _factor_reductions(nest: Nest, setting: Setting) -> Nest:
    """Reductions too long for one program, over too few rows to occupy the processors, are made from partial results."""
    for s in nest.stages:
        rows = math.prod(size(a.extent) for a in s.axes)
        if s.kind == "reduce" and not is_contraction(s) and rows < setting.target.threads and iterations(s) // max(rows, 1) >= _FACTOR:
            axis = max(s.bound, key=lambda a: size(a.extent))
            step = _chunk(s, size(axis.extent), rows, setting)
            if step is not None:
                loop = s.axis_names()[axis]
                nest, _ = rfactor(split(nest, s.name, loop, step), s.name, f"{loop}.o")
    return nest


def _chunk(s: Stage, extent: int, rows: int, setting: Setting) -> int | None:
    """Points along the longest axis that make one partial result; a divisor of it for a carrier that has no neutral input."""
    each = max(1, iterations(s) // max(rows, 1) // extent)
    wanted = min(2 * setting.target.threads // max(rows, 1), each * extent // _ROWS)
    chunks = setting.choose(f"{s.name}.chunks", max(1, wanted), [n for n in (8, 32, 128, 512) if n * each < each * extent])
    step = -(-extent // chunks)
    step = power(step) if step * each >= 256 and chunks > 1 else step
    if extent % step and neutral_input(s.body, 0) is None:  # type: ignore[arg-type]
        step = next(n for n in range(step, 0, -1) if extent % n == 0)
    return step if chunks > 1 and step < extent and step * each >= 64 else None


# -- contractions --------------------------------------------------------------------------------------------------
def _schedule_contraction(nest: Nest, anchor: str, heavy: str, setting: Setting) -> Nest:
    """A tile of rows by columns to a program, a dot for every step along the contracted axes."""
    s, a = nest[heavy], nest[anchor]
    sides = product_reads(s.body.args[0])
    assert sides is not None
    up = {v: v for v in s.axes} if anchor == heavy else identity_axes(a, s) or {}
    rows, columns = _sides(s, sides)
    tile = _matrix_tile(s, sides, rows, columns, anchor, setting)
    names = a.axis_names()
    grid: dict[Var, str] = {}
    inner: list[str] = []
    for v in (*rows, *columns):
        nest, grid[v], made = _tile(nest, anchor, names[up[v]], tile[v])
        inner += made
    taken = {up[v] for v in grid}
    batch = [names[v] for v in a.axes if v not in taken]
    outer = [*batch, *(grid[v] for v in rows), *(grid[v] for v in columns)]
    if anchor == heavy:
        nest = _contract(nest, heavy, outer, inner, tile, _has_unit(sides))
    else:
        nest = reorder(nest, anchor, [*outer, *inner])
        nest = compute_at(nest, heavy, anchor, outer[-1])
        own = s.axis_names()
        wide = [v for v in (*rows, *columns) if tile[v] > 1]
        for v in wide:
            nest = set_role(nest, heavy, own[v], "vectorize")
        nest = _contract(nest, heavy, [own[v] for v in s.axes if v not in wide], [own[v] for v in wide], tile, _has_unit(sides))
    elements = math.prod(tile[v] for v in (*rows, *columns))
    nest = _launch(nest, anchor, outer, elements * 2, setting, setting.choose(f"{anchor}.stages", 3 if setting.target.kind == "cuda" else 2, (1, 2, 3, 4)))
    return annotate(nest, anchor, "group", 8) if len(rows) == 1 and len(columns) == 1 else nest


def _contract(nest: Nest, heavy: str, outer: list[str], inner: list[str], tile: dict[Var, int], unit: bool) -> Nest:
    """Order the contraction's loops: its place, the loops along contracted axes, the tile."""
    s = nest[heavy]
    names = s.axis_names()
    steps: list[str] = []
    contracted: list[str] = []
    for v in s.bound:
        if tile[v] == 1:
            steps.append(names[v])
            continue
        nest = split(nest, heavy, names[v], tile[v])
        nest = set_role(nest, heavy, f"{names[v]}.i", "dot" if unit else "vectorize")
        steps.append(f"{names[v]}.o")
        contracted.append(f"{names[v]}.i")
    return reorder(nest, heavy, [*outer, *steps, *inner, *contracted])


def _sides(s: Stage, sides: tuple[Read, Read]) -> tuple[list[Var], list[Var]]:
    """Axes of the first factor alone, and of the second alone; the longer side may have several."""
    first, second = (
        [v for v in s.axes if v in here.free and v not in there.free and size(v.extent) > 1] for here, there in (sides, sides[::-1]))
    return first, second


def _operand(sides: tuple[Read, Read]) -> Dtype:
    return max((r.dtype for r in sides), key=lambda d: d.bits)


def _has_unit(sides: tuple[Read, Read]) -> bool:
    """Whether a matrix unit multiplies operands of this dtype; wide integers are multiplied one by one."""
    d = _operand(sides)
    return d.is_float or d.bits == 8


def _matrix_tile(s: Stage, sides: tuple[Read, Read], rows: list[Var], columns: list[Var], name: str, setting: Setting) -> dict[Var, int]:
    """Power-of-two tile of every axis: rows by columns so large that operands are reused, but that every processor has one."""
    bits = _operand(sides).bits
    unit = _has_unit(sides)
    least = 16
    high, deep = {64: (32, 16), 32: (64, 16), 16: (128, 64), 8: (128, 64)}[bits] if unit else (64, 1)
    m, n = (math.prod(size(v.extent) for v in side) for side in (rows, columns))
    batch = math.prod(size(v.extent) for v in s.axes if v not in rows and v not in columns)
    bm, bn = (max(least, min(high, power(x))) for x in (m, n))
    while batch * -(-m // bm) * -(-n // bn) < setting.target.threads and bm * bn > 32 * 32:
        bm, bn = (bm // 2, bn) if bm >= bn else (bm, bn // 2)
    bm, bn = setting.choose(f"{name}.tile", (bm, bn), _tile_options(high, bm, bn))
    deep = setting.choose(f"{name}.depth", deep, (16, 32, 64, 128)) if unit else 1
    out = dict(zip(rows, _at_least(blocks([size(v.extent) for v in rows], bm), bm)))
    out |= dict(zip(columns, _at_least(blocks([size(v.extent) for v in columns], bn), bn)))
    return out | _depths(s, deep)


def _tile_options(high: int, bm: int, bn: int) -> list[tuple[int, int]]:
    sizes = [x for x in (16, 32, 64, 128, 256) if x <= 2 * high]
    return [(x, y) for x in sizes for y in sizes if bm * bn // 8 <= x * y <= 2 * high * high]


def _at_least(tiles: list[int], wanted: int) -> list[int]:
    """A matrix unit takes 16 rows and columns at least: short sides are padded by masks."""
    if tiles and math.prod(tiles) < 16 <= wanted:
        tiles[-1] *= 16 // math.prod(tiles)
    return tiles


def _depths(s: Stage, deep: int) -> dict[Var, int]:
    """Tiles of the contracted axes: the longest one if it fills a step, else several together."""
    if deep == 1:
        return dict.fromkeys(s.bound, 1)
    longest = max(s.bound, key=lambda v: size(v.extent))
    if size(longest.extent) >= 16 or len(s.bound) == 1:
        return dict.fromkeys(s.bound, 1) | {longest: max(16, min(deep, power(size(longest.extent))))}
    out = dict(zip(s.bound, blocks([size(v.extent) for v in s.bound], deep)))
    return out if math.prod(out.values()) >= 16 else out | {longest: out[longest] * 16 // math.prod(out.values())}
