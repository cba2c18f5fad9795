"""Schedules of contractions: matrix products, convolutions, anything that sums products with reuse.

One of three forms, chosen by how often the operands are reused and how they lie in memory:

- *panels*: lanes along an axis of one factor, unrolled rows along an axis of the other; accumulators stay in registers over the whole
  sum. Blocks of both factors are packed into private memory where the reuse pays for the copy.
- *dots*: lanes along the reduction, for few rows of factors that are contiguous along it.
- *stream*: few rows of a factor that is contiguous along the lanes: whole rows pass by, the results stay in the nearest cache.
"""

from __future__ import annotations

import math

from codegen.analysis.access import Strides, read_access, size
from codegen.heuristics.blocking import Blocks, crowded, panels_together, register_rows, register_tile, register_tiles, thread_blocks
from codegen.heuristics.decisions import Setting
from codegen.heuristics.dots import choose_dots, contract, pad_product, sums_apart
from codegen.heuristics.fusion import computed_by_reader, identity_axes
from codegen.heuristics.packing import Packing, crosses_panels, pack_lanes, pack_rows, separable
from codegen.heuristics.product import COPIED, Product, analyse, result_strides
from codegen.heuristics.slender import kept_in_memory, passing, schedule_dots, schedule_stream
from codegen.heuristics.tiled import schedule_tiled
from codegen.target.model import Target
from dsl.dim import Var
from dsl.expr import Read
from dsl.nest import Nest
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.storage import compute_at

_SERIAL_FLOPS = 400_000  # a product smaller than this is not worth a second thread
_REPAID = 24  # tiles that read a packed panel before bringing its lines together is repaid
_FAR = 5  # second-level caches: rows up to so large are read as well from where they lie


def worth_tiling(nest: Nest, heavy: str, strides: Strides) -> bool:
    """Whether register tiles pay: a factor that can be read as it lies, or enough rows to share a copy of it."""
    p = analyse(nest[heavy], strides)
    return p.contiguous_lanes(strides) or p.contiguous_terms(strides) is not None or (p.row is not None and p.reuse >= COPIED)


def schedule_contraction(nest: Nest, anchor: str, heavy: str, setting: Setting) -> Nest:
    """The schedule of a contraction, and of the map stage ``anchor`` that finishes it where that is another."""
    p = analyse(nest[heavy], setting.strides, written(nest, anchor, heavy, setting.strides))
    form = setting.choose(f"{anchor}.form", _form(nest, anchor, p, setting), _forms(p, setting))
    up = _anchor_axes(nest, anchor, heavy)
    terms = p.contiguous_terms(setting.strides)
    if form == "dots" and terms is not None:
        nest = schedule_dots(nest, anchor, p, terms, up, setting)
    elif form == "stream":
        nest = schedule_stream(nest, anchor, p, up, setting)
    else:
        nest = _panels(nest, anchor, p, up, setting)
    return annotate(nest, anchor, "serial", True) if p.flops < _SERIAL_FLOPS else nest


def written(nest: Nest, anchor: str, heavy: str, strides: Strides) -> dict[Var, int]:
    """Elements between neighbours along the contraction's axes, in what its anchor stores."""
    apart = result_strides(nest[anchor], strides)
    return {v: apart[a] for v, a in _anchor_axes(nest, anchor, heavy).items() if a in apart}


def schedule_passing(nest: Nest, anchor: str, name: str, setting: Setting) -> Nest | None:
    """The schedule of a reduction of whole rows into one, when ``name`` is one and ``anchor`` is it or what finishes it."""
    p = passing(nest, name, setting)
    up = _anchor_axes(nest, anchor, name)
    if p is None or set(up) != set(p.stage.axes) or any(size(v.extent) > 1 for v in nest[anchor].axes if v not in up.values()):
        return None
    form = setting.choose(f"{anchor}.form", "stream", ("stream", "rows"))
    return schedule_stream(nest, anchor, p, up, setting) if form == "stream" else None


def most_dots(target: Target) -> int:
    """How many rows are few: results of one column of each stay in registers beside what is loaded."""
    return target.vector_registers // 2


def _forms(p: Product, setting: Setting) -> list[str]:
    """The forms that are possible."""
    forms = ["panels"]
    if p.panel is not None:
        return forms
    if p.lines > most_dots(setting.target):
        return forms
    if p.contiguous_terms(setting.strides) is not None:
        forms.append("dots")
    if p.contiguous_lanes(setting.strides) and kept_in_memory(p.stage) and len(p.stage.bound) == 1:
        forms.append("stream")
    return forms


def _form(nest: Nest, anchor: str, p: Product, setting: Setting) -> str:
    """Panels, unless the rows are too few to repay a copy of the lane factor, or to read it in pieces."""
    forms = _forms(p, setting)
    if "stream" in forms and p.lanes is not None and _bytes(p, p.lanes) > setting.target.caches[1] // 2:
        return "stream"
    return "dots" if "dots" in forms and not p.contiguous_lanes(setting.strides) else "panels"


def _anchor_axes(nest: Nest, anchor: str, heavy: str) -> dict[Var, Var]:
    """Axis of the contraction -> axis of its anchor."""
    s = nest[heavy]
    return {v: v for v in s.axes} if anchor == heavy else identity_axes(nest[anchor], s) or {}


# -- panels --------------------------------------------------------------------------------------------------------
def _panels(nest: Nest, anchor: str, p: Product, up: dict[Var, Var], setting: Setting) -> Nest:
    """Register tiles inside cache blocks: grid of blocks, panels of lanes, rows, the whole sum in registers."""
    dots = choose_dots(p, anchor, setting)
    if dots is not None and dots.instruction.tiled:
        return schedule_tiled(nest, anchor, p, dots, setting)
    if dots is not None:
        nest, p = sums_apart(nest, anchor, p, dots, apart=False)
        nest, p, dots, setting = pad_product(nest, p, dots, dots.depth, setting)
        up = _anchor_axes(nest, anchor, p.stage.name)
    target, heavy = setting.target, p.stage.name
    if p.panel is not None:
        nr, mr = p.panel, setting.choose(f"{anchor}.register_rows", *register_rows(target, p.panel, p.lines, p.accumulator.bits))
    else:
        tile = register_tile(target, p.columns, p.lines, p.accumulator.bits)
        nr, mr = setting.choose(f"{anchor}.register_tile", tile, register_tiles(target, *tile, p.accumulator.bits))
    packs = (True, True) if dots is not None else _packs(nest, p, anchor, nr, mr, setting)
    axes = nest[anchor].axis_names()
    lane = axes[up[p.lane]]
    row = axes[up[p.row]] if p.row is not None else ""
    inside = [] if packs[1] or not packs[0] else _sharing(p, {axes[up[v]]: v for v in p.stage.axes if axes[up[v]] not in (lane, row)})
    batch = [axes[v] for v in nest[anchor].axes if axes[v] not in (lane, row, *inside)]
    extents = {axes[v]: size(v.extent) for v in nest[anchor].axes}
    shape = Blocks(p.columns, p.lines, nr, mr, p.depth, math.prod(extents[x] for x in batch), math.prod(extents[x] for x in inside))
    blocks = setting.choose(f"{anchor}.blocks", thread_blocks(target, shape, packs),
                            [(c, r) for c in (1, 4, 16, 64) for r in (1, 4, 16, 64)])
    padded = (packs[0] or p.panel is not None, packs[1])
    nest, grid, inner, tiles = _tile_anchor(nest, anchor, (lane, nr, blocks[0]), (row, mr, blocks[1]), padded)
    at = inner[0]
    if packs[0] and crosses_panels(p.lanes, p.lane, setting.strides):
        together = setting.choose(f"{anchor}.panels", panels_together(target, shape, blocks[0]), (1, 2, 4, 8))
        at = f"{lane}.g"
        nest = split(nest, anchor, f"{lane}.s", together, at, f"{lane}.w")
        inner[:1] = [at, f"{lane}.w"]
    inner[-1:-1] = inside
    walk = p.walk(setting.strides)
    bound = [nest[heavy].axis_names()[v] for v in walk]
    if anchor == heavy:
        nest = reorder(nest, anchor, [*batch, *grid, *inner, *bound, *tiles])
    else:
        nest = reorder(nest, anchor, [*batch, *grid, *inner, *tiles])
        nest = _attach(nest, anchor, inner[-1], p, walk)
    for x in (*batch, *grid):
        nest = set_role(nest, anchor, x, "parallel")
    packing = (Packing(heavy, setting, walk, dtype=p.wider) if dots is None
               else Packing(heavy, setting, walk, (dots.axis, dots.terms, dots.depth), dots.instruction.operand))
    if packs[1] and p.rows is not None and p.row is not None:
        nest = pack_rows(nest, packing, p.rows, p.row, mr, (anchor, grid[-1]))
    if packs[0] and p.lanes is not None:
        nest = pack_lanes(nest, packing, p.lanes, p.lane, nr, (anchor, at))
    return contract(nest, heavy, dots) if dots is not None else nest


def _sharing(p: Product, others: dict[str, Var]) -> list[str]:
    """The loops, besides the tile's, over products that share the lane factor: a packed panel serves all of them."""
    return [x for x, v in others.items() if p.lanes is not None and v not in p.lanes.free]


def _tile_anchor(nest: Nest, anchor: str, lane: tuple[str, int, int], row: tuple[str, int, int],
                 padded: tuple[bool, bool]) -> tuple[Nest, list[str], list[str], list[str]]:
    """Split lane and row loops into blocks, tiles and points; returns (grid, loops inside a block, tile) outermost first.

    A packed factor ends in zeros; where one is read as it lies, the ragged tiles have code of their own, so that the others read
    without masks.
    """
    grid: list[str] = []
    inner: list[str] = []
    tile: list[str] = []
    for (loop, points, tiles), role, whole in ((row, "unroll", padded[1]), (lane, "vectorize", padded[0])):
        if loop:
            nest = split(nest, anchor, loop, points, tail="mask" if whole else "peel")
            nest = split(nest, anchor, f"{loop}.o", tiles, f"{loop}.p", f"{loop}.s")
            nest = set_role(nest, anchor, f"{loop}.i", role)
            grid.append(f"{loop}.p")
            inner.insert(0, f"{loop}.s")
            tile.append(f"{loop}.i")
    return nest, grid, inner, tile


def _attach(nest: Nest, anchor: str, loop: str, p: Product, walk: tuple[Var, ...]) -> Nest:
    """Compute the contraction's tile where the anchor finishes it; its loops run over the tile and the sum alone."""
    heavy = p.stage.name
    nest = compute_at(nest, heavy, anchor, loop)
    names = nest[heavy].axis_names()
    rest = [names[v] for v in p.stage.axes if v is not p.lane and v is not p.row]
    tile = [*([names[p.row]] if p.row is not None else []), names[p.lane]]
    nest = reorder(nest, heavy, [*rest, *(names[v] for v in walk), *tile])
    nest = set_role(nest, heavy, names[p.lane], "vectorize")
    return set_role(nest, heavy, names[p.row], "unroll") if p.row is not None else nest


def _packs(nest: Nest, p: Product, anchor: str, nr: int, mr: int, setting: Setting) -> tuple[bool, bool]:
    """(pack the lane factor, pack the row factor): where a block is read often enough, or cannot be read well as it lies."""
    lanes = rows = False
    if p.lanes is not None and separable(p.lanes, p.lane, p.batch):
        contiguous = read_access(p.lanes, setting.strides).stride(p.lane) == 1
        far = p.reuse >= 2 * mr and _bytes(p, p.lanes) > setting.target.caches[1] // 2
        worth = far or p.lines >= _REPAID * mr or ((p.wider is not None or _computed(nest, p.lanes)) and p.lines >= 4)
        lanes = setting.choose(f"{anchor}.pack_lanes", worth, (False, True)) if contiguous else True
    if p.rows is not None and p.row is not None and separable(p.rows, p.row, p.batch):
        worth = p.columns >= 4 * nr and p.flops > _SERIAL_FLOPS and (p.wider is not None or _scattered(p, nr, mr, setting))
        worth = worth or (_computed(nest, p.rows) and p.columns >= nr and p.reuse <= p.lines)  # else panels of lanes are shared instead
        rows = setting.choose(f"{anchor}.pack_rows", worth, (False, True))
    return lanes, rows


def _scattered(p: Product, nr: int, mr: int, setting: Setting) -> bool:
    """Whether the row factor lies so that tiles read it badly: far away and often, or in lines that fall into the same cache sets."""
    assert p.rows is not None and p.row is not None
    access, nearby = read_access(p.rows, setting.strides), setting.target.caches[1]
    apart = access.stride(p.row)
    if apart == 1:
        steps = [n for v in p.stage.bound if (n := access.stride(v))]
        return _bytes(p, p.rows) > nearby // 2 or any(crowded(n * p.rows.dtype.itemsize, p.depth // 2) for n in steps)
    far = _bytes(p, p.rows) > _FAR * nearby and p.columns >= _REPAID * nr
    return far or (apart is not None and crowded(apart * p.rows.dtype.itemsize, mr))


def _computed(nest: Nest, factor: Read) -> bool:
    """Whether a factor can be computed while it is packed."""
    producer = nest.producer(factor.tensor)
    return producer is not None and computed_by_reader(nest, producer)


def _bytes(p: Product, r: Read) -> int:
    """Bytes of a factor that belong to one product of a batch."""
    out = r.dtype.itemsize
    for v in {*p.stage.axes, *p.stage.bound} & r.free:
        if v in p.stage.bound or v is p.lane or v is p.row:
            out *= size(v.extent)
    return out
