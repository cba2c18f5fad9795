"""Products of tiles: a tile of rows by columns to a program, a dot for every step along the contracted axes.

Matrix products, batched ones, and convolutions, which are products whose rows are the places of the output: no matrix of patches is
ever made, the operand is read where it lies, through masks at the borders.
"""

from __future__ import annotations

import math

from codegen.analysis.access import cost, size
from codegen.analysis.product import Product, product_of
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes
from codegen.heuristics.gpu.tiles import blocks, launch, power, tile_loop
from codegen.target.model import Target
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.storage import compute_at

_LEAST = 16  # rows, columns and contracted elements that a matrix unit takes: shorter sides are padded by masks
_GROUP = 8  # rows of tiles that are walked together, column by column, so that neighbours share operands in the second-level cache
_SMALL, _SMALL_WIDE = 32 * 32, 64 * 32  # elements of the smallest tile
_FINISH = 8  # operations on a result that the largest tile leaves registers for
_BUSY = 2  # tiles to a processor from which the largest ones pay


def schedule_contraction(nest: Nest, anchor: str, heavy: list[str], setting: Setting) -> Nest:
    """The schedule of one product, or two tiled alike, and of the map stage ``anchor`` that finishes them where that is another."""
    a, first = nest[anchor], nest[heavy[0]]
    p = product_of(first)
    assert p is not None
    tile = matrix_tile(first, p, anchor, setting, len(heavy), finish=max(cost(t.body) for t in a.tensors) if anchor != heavy[0] else 0)
    up = {v: v for v in first.axes} if anchor == heavy[0] else identity_axes(a, first) or {}
    by_anchor = {up[v]: tile[v] for v in (*p.rows, *p.columns)}
    names = a.axis_names()
    grid: list[str] = []
    inner: list[str] = []
    for v in (*p.rows, *p.columns):
        nest, outer, made = tile_loop(nest, anchor, names[up[v]], by_anchor[up[v]])
        grid.append(outer)
        inner += made
    batch = [names[v] for v in a.axes if v not in by_anchor]
    outer_loops = [*batch, *grid]
    area = math.prod(by_anchor.values())
    depths = contracted_tiles(p, first, setting.target, anchor, setting)
    if anchor == heavy[0]:
        nest = _contract(nest, anchor, outer_loops, inner, depths, p.unit)
    else:
        nest = reorder(nest, anchor, [*outer_loops, *inner])
        for name in heavy:
            nest = _attach(nest, name, anchor, outer_loops[-1], by_anchor, depths if name == heavy[0] else None, setting)
    stages = setting.choose(f"{anchor}.stages", _stages(p, tile, depths, setting.target), (1, 2, 3, 4, 5))
    nest = launch(nest, anchor, outer_loops, _warps(area * len(heavy), p, setting.target), setting, stages)
    if len(p.rows) == 1 and len(p.columns) == 1:
        nest = annotate(nest, anchor, "group", setting.choose(f"{anchor}.group", _GROUP, (1, 4, 8, 16)))
    return nest


def _attach(nest: Nest, name: str, anchor: str, loop: str, by_anchor: dict[Var, int], depths: dict[Var, int] | None,
            setting: Setting) -> Nest:
    """Compute a product's tile where the anchor finishes it."""
    s = nest[name]
    p = product_of(s)
    assert p is not None
    up = identity_axes(nest[anchor], s) or {}
    nest = compute_at(nest, name, anchor, loop)
    own = s.axis_names()
    wide = [v for v in (*p.rows, *p.columns) if by_anchor[up[v]] > 1]
    for v in wide:
        nest = set_role(nest, name, own[v], "vectorize")
    if depths is None:
        depths = contracted_tiles(p, s, setting.target)
    return _contract(nest, name, [own[v] for v in s.axes if v not in wide], [own[v] for v in wide], depths, p.unit)


def _contract(nest: Nest, heavy: str, outer: list[str], inner: list[str], depths: dict[Var, int], unit: bool) -> Nest:
    """Order the contraction's loops: its place, the loops along summed axes, the tile."""
    s = nest[heavy]
    names = s.axis_names()
    steps: list[str] = []
    contracted: list[str] = []
    for v in s.bound:
        if depths[v] == 1:
            steps.append(names[v])
            continue
        nest = split(nest, heavy, names[v], depths[v])
        nest = set_role(nest, heavy, f"{names[v]}.i", "dot" if unit else "vectorize")
        steps.append(f"{names[v]}.o")
        contracted.append(f"{names[v]}.i")
    return reorder(nest, heavy, [*outer, *steps, *inner, *contracted])


# -- sizes ---------------------------------------------------------------------------------------------------------
def matrix_tile(s: Stage, p: Product, name: str, setting: Setting, products: int = 1, finish: int = 0, ask: bool = True) -> dict[Var, int]:
    """Power-of-two tile of every axis of rows and columns: so large that operands are reused, but that every processor has one.

    Args:
        s: the product's stage.
        p: the product.
        name: of the stage that finishes it.
        setting: the target, and whom to ask.
        products: of this size that one program finishes together.
        finish: operations on every result after the sum; many of them need registers beside the accumulators.
        ask: whether the tile is a choice here.
    """
    m, n = (math.prod(size(v.extent) for v in side) for side in (p.rows, p.columns))
    batch = math.prod(size(v.extent) for v in s.axes if v not in p.rows and v not in p.columns)
    high = _largest(p, batch * m * n, setting.target, products, finish)
    low = _SMALL_WIDE if p.unit and p.dtype.bits <= 16 and _wide(setting.target) else _SMALL
    bm, bn = (max(_LEAST, min(h, power(x))) for h, x in zip(high if m >= n else high[::-1], (m, n)))
    while batch * -(-m // bm) * -(-n // bn) < setting.target.threads and bm * bn > low:
        bm, bn = (bm // 2, bn) if bm >= bn else (bm, bn // 2)
    if ask:
        bm, bn = setting.choose(f"{name}.tile", (bm, bn), _tile_options(p, m, n, bm * bn))
    out = dict(zip(p.rows, _at_least(blocks([size(v.extent) for v in p.rows], bm), bm)))
    return out | dict(zip(p.columns, _at_least(blocks([size(v.extent) for v in p.columns], bn), bn)))


def _wide(target: Target) -> bool:
    """Whether products are made by groups of warps, which want large tiles, and shared memory has room for those."""
    return target.kind == "cuda" and target.caches[0] > (200 << 10)


def _largest(p: Product, results: int, target: Target, products: int, finish: int) -> tuple[int, int]:
    """The tile of a product so large that every processor has several."""
    if not p.unit:
        return 64, 64
    if p.dtype.bits == 64:
        return 32, 32
    if p.dtype.bits == 32:
        return (64, 64) if p.precision == "ieee" and target.kind == "cuda" else (128, 64)
    many = results >= _BUSY * target.threads * 128 * 256
    return (128, 256) if _wide(target) and many and products == 1 and finish <= _FINISH else (128, 128)


def _tile_options(p: Product, m: int, n: int, area: int) -> list[tuple[int, int]]:
    most = 128 * 256 if p.dtype.bits <= 16 else 128 * 128
    sizes = (16, 32, 64, 128, 256)
    return [(x, y) for x in sizes for y in sizes
            if 256 <= x * y <= most and x <= 2 * power(m) and y <= 2 * power(n) and x * y >= area // 16]


def _at_least(tiles: list[int], wanted: int) -> list[int]:
    """A matrix unit takes so many rows and columns at least: short sides are padded by masks."""
    if tiles and math.prod(tiles) < _LEAST <= wanted:
        tiles[-1] *= _LEAST // math.prod(tiles)
    return tiles


def contracted_tiles(p: Product, s: Stage, target: Target, name: str = "", setting: Setting | None = None) -> dict[Var, int]:
    """Tiles of the summed axes: the longest contracted one if it fills a step, else several together; one for axes of a single factor."""
    single = dict.fromkeys(s.bound, 1)
    if not p.unit:
        return single
    deep = {64: 16, 32: 16, 16: 64, 8: 128}[p.dtype.bits]
    if p.dtype.bits == 32 and (p.precision != "ieee" or target.kind == "hip"):
        deep = 32
    if setting is not None:
        deep = setting.choose(f"{name}.depth", deep, (16, 32, 64, 128))
    longest = max(p.contracted, key=lambda v: size(v.extent))
    least = 32 if p.dtype.bits == 8 else _LEAST
    if size(longest.extent) >= _LEAST or len(p.contracted) == 1:
        return single | {longest: max(least, min(deep, power(size(longest.extent))))}
    out = dict(zip(p.contracted, blocks([size(v.extent) for v in p.contracted], deep)))
    made = math.prod(out.values())
    return single | (out if made >= least else out | {longest: out[longest] * least // made})


def _warps(area: int, p: Product, target: Target) -> int:
    """Four warps keep a matrix unit busy; eight share the accumulators of a large tile."""
    per_thread = area // target.warp
    if target.kind == "hip":
        return 4 if per_thread >= 64 else 2
    if not p.unit or (p.dtype.bits == 32 and p.precision == "ieee"):
        return max(2, min(8, per_thread // 8))
    return 8 if area > 64 * 128 else 4 if area > 32 * 32 else 2


def _stages(p: Product, tile: dict[Var, int], depths: dict[Var, int], target: Target) -> int:
    """As many steps fetched ahead as half of the shared memory holds, four at most."""
    if target.kind == "hip":
        return 2
    deep = math.prod(depths.values())
    step = sum(math.prod(tile[v] for v in side) for side in (p.rows, p.columns)) * deep * p.dtype.itemsize
    room = target.caches[0] if step * 3 > target.caches[0] // 2 else target.caches[0] // 2
    return max(1, min(4 if target.caches[0] > (200 << 10) else 3, room // max(step, 1)))
