"""Rows: a program takes some rows whole, everything attached computed on the same tile; in several passes where a row is too long."""

from __future__ import annotations

import math

from codegen.analysis.access import accesses, cost, size
from codegen.heuristics.decisions import Setting
from codegen.heuristics.gpu.fusing import WIDEST
from codegen.heuristics.gpu.tiles import SECTOR, blocks, launch, power, tile_loop
from codegen.heuristics.groups import Group
from dsl.dim import Var
from dsl.expr import Tensor
from dsl.nest import Nest, Stage
from dsl.primitives.loops import reorder, set_role
from dsl.primitives.storage import compute_at

_ROWS = 4096  # elements of a program that reduces rows
_PER_THREAD, _MOST_WARPS = 16, 16
_LONG = 120  # operations of a formula whose parts fill a thread's registers
_PASS = 8192  # elements of a row taken at a time where it does not fit


def schedule_rows(nest: Nest, group: Group, rows: tuple[Var, ...], setting: Setting) -> Nest:
    """A program takes some rows whole."""
    name = group.anchor
    stages = [name, *group.members]
    inner = max(math.prod(size(v.extent) for v in _inside(nest[m], rows, group)) for m in stages)
    lane, strided = _contiguous_row(nest, group, rows, setting)
    width, block = _row_tile(rows, lane, inner, name, setting, strided)
    each, most = _share([nest[m] for m in stages], setting)
    block = min(block, most * setting.target.warp * each)
    names = nest[name].axis_names()
    grid: list[str] = []
    tile: list[str] = []
    for v in rows:
        nest, outer, made = tile_loop(nest, name, names[v], width if v is lane else 1)
        grid.append(outer)
        tile += made
    nest = _tile_inside(nest, name, rows, group, [*grid], tile, block)
    nest = launch(nest, name, grid, _warps(width * min(block, power(inner)), setting, each, most), setting)
    for member, up in group.members.items():
        nest = compute_at(nest, member, name, grid[-1] if grid else "")
        own = nest[member].axis_names()
        mine = [own[v] for v in nest[member].axes if v in up]
        wide = [own[v] for v in nest[member].axes if up.get(v) is lane and width > 1]
        for x in wide:
            nest = set_role(nest, member, x, "vectorize")
        nest = _tile_inside(nest, member, rows, group, [x for x in mine if x not in wide], wide, block)
    return nest


def _warps(elements: int, setting: Setting, each: int = _PER_THREAD, most: int = _MOST_WARPS) -> int:
    if elements > _ROWS or each < _PER_THREAD:
        return max(1, min(most, elements // (each * setting.target.warp)))
    return min(8, 2 * elements // (each * setting.target.warp))


def _share(stages: list[Stage], setting: Setting) -> tuple[int, int]:
    """Elements of a thread and warps of a program at most: fewer of either where a long formula, of random numbers say, fills registers."""
    work = max(cost(t.body) for s in stages for t in s.tensors)
    return (_PER_THREAD, _MOST_WARPS) if work <= _LONG else (_PER_THREAD * 8 // setting.target.warp, _MOST_WARPS // 2)


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
        nest, loop, axes = tile_loop(nest, name, names[v], block)
        (spatial if v in s.axes else bound).append(loop)
        made += axes
    return reorder(nest, name, [*outer, *spatial, *bound, *tile, *made])


def _contiguous_row(nest: Nest, group: Group, rows: tuple[Var, ...], setting: Setting) -> tuple[Var | None, bool]:
    """The row axis that several rows of one program lie along, and whether memory is contiguous along it; the last axis where none is."""
    found: dict[Var, int] = {}
    for m in (group.anchor, *group.members):
        up = group.members.get(m, {v: v for v in rows})
        for x in accesses(nest[m], setting.strides):
            for v, row in up.items():
                if x.stride(v) == 1 and size(row.extent) > 1 and row in rows and not _within(nest, x.tensor, group):
                    found[row] = found.get(row, 0) + (1 if x.write else 2)
    contiguous = {v: n for v, n in found.items() if n > 1 or not any(k > 1 for k in found.values())}
    best = max(contiguous, key=lambda v: contiguous[v], default=None)
    inner = any(x.stride(v) == 1 for m in (group.anchor, *group.members) for x in accesses(nest[m], setting.strides) if not x.write
                for v in _inside(nest[m], rows, group) if size(v.extent) > 1 and not _within(nest, x.tensor, group))
    if best is not None:
        return best, not inner
    return next((v for v in reversed(rows) if size(v.extent) > 1), None), False


def _within(nest: Nest, tensor: Tensor, group: Group) -> bool:
    """Whether a tensor is made in the group, so that it does not lie in memory."""
    maker = nest.producer(tensor)
    return maker is not None and maker.name in group.members


def _row_tile(rows: tuple[Var, ...], lane: Var | None, inner: int, name: str, setting: Setting, strided: bool = False) -> tuple[int, int]:
    """(rows, elements inside a row) of one program's tile; a sector's worth of neighbouring rows at least where those are contiguous."""
    block = power(inner) if inner <= WIDEST else _PASS
    if lane is None:
        return 1, block
    least = min(SECTOR // 4, power(size(lane.extent))) if strided else 1
    if strided:
        block = min(block, WIDEST // least)
    total = math.prod(size(v.extent) for v in rows)
    width = max(least, min(power(size(lane.extent)), max(1, _ROWS // block)))
    while width > least and total // width < 2 * setting.target.threads:
        width //= 2
    width = setting.choose(f"{name}.rows", width, [n for n in (1, 2, 4, 8, 16, 32, 64) if n * block <= 4 * _ROWS])
    return width, block


# -- scans ---------------------------------------------------------------------------------------------------------
def schedule_scan(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """A program takes some rows; along the scan a tile at a time, its last prefix carried on."""
    name, names = stage.name, stage.axis_names()
    rows = tuple(v for v in stage.axes if v is not stage.position)
    (scanned,) = stage.bound
    block = min(power(size(scanned.extent)), _ROWS)
    lane, strided = _contiguous_row(nest, Group(name, rows), rows, setting)
    width, block = _row_tile(rows, lane, block, name, setting, strided)
    grid: list[str] = []
    tile: list[str] = []
    for v in rows:
        nest, outer, made = tile_loop(nest, name, names[v], width if v is lane else 1)
        grid.append(outer)
        tile += made
    nest, along, made = tile_loop(nest, name, names[scanned], block)
    nest = reorder(nest, name, [*grid, along, *tile, *made])
    return launch(nest, name, grid, _warps(width * block, setting), setting)
