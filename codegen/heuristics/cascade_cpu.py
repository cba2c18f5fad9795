"""Schedules of rolling stages on CPUs: a block of rows to a thread, its states in the cache, every stage of a block tiled on its own."""

from __future__ import annotations

import math

from codegen.analysis.access import accesses, cost, read_access, size
from codegen.heuristics.blocking import crowded, register_tile
from codegen.heuristics.cascade import across_rows, row_of, summed_along
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes, is_contraction
from codegen.heuristics.packing import Packing, pack_lanes, pack_rows, separable
from codegen.heuristics.product import Product, analyse
from codegen.heuristics.turned import side_by_side
from dsl.dim import Var
from dsl.expr import Read
from dsl.nest import Nest, Stage
from dsl.placing import place
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.placement import compute_at
from dsl.primitives.roll import region
from dsl.primitives.storage import store_as

_REPAID = 8  # row tiles that read a panel before bringing its lines together is repaid
_ACROSS = 512  # rows side by side that one thread takes at most: their states and a block of their elements stay in the second cache
_START = 16  # such rows that take as long as what is done once for all of them
_SHARED = 5  # rows whose products take as long as the copy of the factor that a block of rows shares


def schedule_roll(nest: Nest, host: str, anchor: str | None, setting: Setting) -> Nest:
    """Schedule a rolling stage, what is attached in it, and the pointwise stage ``anchor`` that finishes it where there is one."""
    h = nest[host]
    blocked = _row_axis(nest, h, setting)
    across = across_rows(nest, h, setting.strides) if blocked is None else None
    lanes = blocked if blocked is not None and _along_lanes(nest, h, blocked, setting) else across
    rows = 1
    if across is not None:
        blocked, rows = across, _columns(h, across, setting)
    elif blocked is not None:
        rows = _rows(nest, h, blocked, _whole_tiles(nest, h, blocked, lanes is not None, setting), setting)
    names = h.axis_names()
    if anchor is None:
        order = []
        serial = summed_along(nest, host)
        for v in sorted(h.axes, key=lambda v: v in serial):
            loop = names[v]
            if v is blocked:
                nest = split(nest, host, loop, rows, tail="mask" if across is None else "peel")
                nest = region(nest, host, f"{loop}.i")
                loop = f"{loop}.o"
            order.append(loop)
        nest = reorder(nest, host, [*order, h.order[-1]])
        for x in order[:len(order) - len(serial)]:
            nest = set_role(nest, host, x, "parallel")
    else:
        nest = _schedule_anchor(nest, host, anchor, blocked, rows, across is not None, setting)
        nest = region(nest, host, names[blocked]) if blocked is not None else nest
    for s in [s for s in nest.stages if s.attach is not None and s.attach[0] == host]:
        lane = next((v for v in s.axes if lanes is not None and row_of(nest, h, s, v) is lanes), None)
        if is_contraction(s):
            nest = _register_tile(nest, host, s.name, setting, lane if across is None and not _reduces_points(s, h) else None)
            continue
        nest = schedule_inside(nest, s.name, setting, lane)
    return nest


def _columns(h: Stage, across: Var, setting: Setting) -> int:
    """Rows of memory side by side that one thread takes: long runs of several vectors each, the fewest for the thread that has most."""
    lanes, n, threads = setting.target.vector_bits // 32, size(across.extent), setting.target.threads
    others = math.prod(size(v.extent) for v in h.axes if v is not across)
    unit = 4 * lanes if n >= 4 * lanes else lanes
    sizes = [k for k in range(unit, _ACROSS + 1, unit) if k < n + unit]
    default = min(sizes, key=lambda k: (-(-others * -(-n // k) // threads) * (k + _START), -k))
    return setting.choose(f"{h.name}.columns", default, [lanes * k for k in (1, 2, 4, 8, 16, 32, 64, 128)])


def _products(nest: Nest, h: Stage) -> list[Stage]:
    """The products made in the loop of a rolling stage."""
    return [s for s in nest.stages if s.attach == (h.name, h.order[-1]) and is_contraction(s)]


def _reduces_points(s: Stage, h: Stage) -> bool:
    """Whether a stage has the block among its axes: it brings a state up to date, and makes no elements of the block."""
    return s.axes[0].name == h.bound[0].name


def _row_axis(nest: Nest, h: Stage, setting: Setting) -> Var | None:
    """The row axis whose points share the factors of products made in the loop."""
    for s in _products(nest, h):
        p = analyse(s, setting.strides)
        for own in (p.row, p.lane):
            v = row_of(nest, h, s, own) if own is not None else None
            if v is not None:
                return v
    return None


def _along_lanes(nest: Nest, h: Stage, blocked: Var, setting: Setting) -> bool:
    """Whether the rows of a block lie along the lanes of what is computed in it.

    A product of rows and points then copies its rows, once for all blocks, and not the points of each block; and no reduction over points
    ends across the lanes. Not where something of every row is read that memory runs along the points in.
    """
    if size(blocked.extent) < setting.target.vector_bits // 32 or summed_along(nest, h.name):
        return False
    copies = False
    for s in (s for s in nest.stages if s.attach == (h.name, h.order[-1])):
        row = next((v for v in s.axes if row_of(nest, h, s, v) is blocked), None)
        if row is not None and is_contraction(s):
            copied = not _reduces_points(s, h) and not analyse(s, setting.strides).contiguous_lanes(setting.strides)
            copies |= copied and _turned(s, row, setting) is not None
        elif row is not None and _across_memory(nest, s, row, setting):
            return False
    return copies


def _across_memory(nest: Nest, s: Stage, row: Var, setting: Setting) -> bool:
    """Whether a stage reads something of every row, from outside of the loop, that memory runs along another axis in."""
    others = [v for v in (*s.axes, *s.bound) if v is not row and size(v.extent) > 1]
    outside = [x for x in accesses(s, setting.strides) if (made := nest.producer(x.tensor)) is None or made.attach is None]
    return any(x.uses(row) and any(x.stride(v) == 1 for v in others) for x in outside)


def _turned(s: Stage, row: Var, setting: Setting) -> Product | None:
    """A product with its rows along the lanes; None where no other axis could be that of the register tile's rows then."""
    p = analyse(s, setting.strides, {row: 1})
    return p if p.lane is row and p.lanes is not None and p.row is not None and p.row not in p.lanes.free else None


def _whole_tiles(nest: Nest, h: Stage, blocked: Var, turned: bool, setting: Setting) -> int:
    """The fewest rows that are whole register tiles of every product, and whole vectors."""
    unit = setting.target.vector_bits // 32
    for s in _products(nest, h):
        p = analyse(s, setting.strides)
        if turned and not _reduces_points(s, h):
            p = next((_turned(s, v, setting) for v in s.axes if row_of(nest, h, s, v) is blocked), None) or p
        nr, mr = register_tile(setting.target, p.columns, p.lines, p.accumulator.bits)
        for own, n in ((p.row, mr), (p.lane, nr)):
            unit = math.lcm(unit, n) if own is not None and row_of(nest, h, s, own) is blocked else unit
    return unit


def _rows(nest: Nest, h: Stage, blocked: Var, unit: int, setting: Setting) -> int:
    """Rows of a block: whole register tiles and whole vectors of rows, so many that half of a core's second cache holds what they need.

    Three quarters are taken where sums along the rows go on in memory, which blocks of more rows go through less often. Among those, the
    fewest rows for the thread with the largest share, what a block shares counted as rows.
    """
    threads, extent = setting.target.threads, size(blocked.extent)
    each, shared = _footprint(nest, h, blocked, setting)
    room = setting.target.caches[1] * 3 // 4 if summed_along(nest, h.name) else setting.target.caches[1] // 2
    most = max(unit, min(-(-extent // unit) * unit, (room - shared) // each // unit * unit))
    others = math.prod(size(v.extent) for v in h.axes if v is not blocked)

    def load(rows: int) -> int:
        blocks = -(-extent // rows)
        share = -(-others * blocks // threads)
        return share * (rows + _SHARED) - share // blocks * (blocks * rows - extent)

    sizes = range(unit, most + 1, unit)
    return setting.choose(f"{h.name}.rows", min(sizes, key=lambda n: (load(n), -n)), [unit * n for n in (1, 2, 4, 8)])


def _footprint(nest: Nest, h: Stage, blocked: Var, setting: Setting) -> tuple[int, int]:
    """Bytes of private memory for each row of a block, and those of the factors that its rows share."""
    placed, each, shared = place(nest), 0, 0
    for s in (s for s in nest.stages if s.attach == (h.name, h.order[-1])):
        if s.along:  # a factor has the rows, the sums have the points of the block
            shared += math.prod(size(placed[s.name].extent[v]) for v in s.axes) * s.tensors[0].dtype.itemsize
            each += size(s.axes[-1].extent) * s.tensors[0].dtype.itemsize
            continue
        if any(row_of(nest, h, s, v) is blocked for v in s.axes):
            each += sum(math.prod(size(placed[s.name].extent[v]) for v in s.axes) * t.dtype.itemsize for t in s.tensors)
        if is_contraction(s):
            p = analyse(s, setting.strides)
            shared += p.depth * size(placed[s.name].extent[p.lane]) * p.accumulator.itemsize
    return each, shared


def _schedule_anchor(nest: Nest, host: str, anchor: str, blocked: Var | None, rows: int, across: bool, setting: Setting) -> Nest:
    """Rows in parallel, blocks of the one that has reuse; the rolling stage is computed for each, then the anchor's own points.

    Lanes run ``across`` the block of rows where those lie side by side in memory, else along the anchor's own points.
    """
    h, a = nest[host], nest[anchor]
    up = identity_axes(a, h) or {}
    names = a.axis_names()
    grid: list[str] = []
    inner: list[str] = []
    for v in h.axes:
        loop = names[up[v]]
        if v is blocked:
            nest = split(nest, anchor, loop, rows, tail="peel" if across else "mask")
            grid.append(f"{loop}.o")
            inner.append(f"{loop}.i")
        else:
            grid.append(loop)
    nest = reorder(nest, anchor, [*grid, *(x for x in nest[anchor].order if x not in grid)])
    for x in grid:
        nest = set_role(nest, anchor, x, "parallel")
    nest = compute_at(nest, host, anchor, grid[-1] if grid else "")
    own = [v for v in a.axes if v not in up.values()]
    if across:
        nest, step, tile = _lanes(nest, anchor, inner[0], rows, setting)
        return reorder(nest, anchor, [*grid, *(names[v] for v in own), step, *tile])
    return _tile(nest, anchor, grid, inner, own, [], setting)


def schedule_inside(nest: Nest, name: str, setting: Setting, lane: Var | None = None) -> Nest:
    """A stage that is computed in the loop of another: lanes along ``lane`` or the contiguous axis of its region, or over rows too short.

    The rest lies in loops.
    """
    s = nest[name]
    extent = place(nest)[name].extent
    own = [v for v in s.axes if extent[v] != 1]
    names = s.axis_names()
    lane = lane if lane in own else None
    if lane is not None and s.kind == "map" and s.axes[-1] is not lane:
        nest = store_as(nest, name, [names[v] for v in (*(v for v in s.axes if v is not lane), lane)])
    row = side_by_side([(s, s.axes)], tuple(own), setting) if lane is None else None
    if row is not None and _lane(s, [*own, *s.bound], setting) in s.bound:
        nest = split(nest, name, names[row], setting.target.vector_bits // 32, tail="peel")
        for x in (names[v] for v in s.bound):
            nest = set_role(nest, name, x, "unroll")
        nest = set_role(nest, name, f"{names[row]}.i", "vectorize")
        loops = [f"{names[v]}.o" if v is row else names[v] for v in s.axes]
        return reorder(nest, name, [*loops, *(names[v] for v in s.bound), f"{names[row]}.i"])
    return _tile(nest, name, [names[v] for v in s.axes if v not in own], [], own, list(s.bound), setting, lane)


def _tile(nest: Nest, name: str, outer: list[str], middle: list[str], own: list[Var], bound: list[Var], setting: Setting,
          lane: Var | None = None) -> Nest:
    """Order a stage's loops: the outer ones, those in the middle, its own spatial ones, its reduction, the tile of vectors."""
    s = nest[name]
    names = s.axis_names()
    extent = place(nest)[name].extent
    lane = lane or _lane(s, [v for v in (*own, *bound) if size(extent[v]) > 1], setting)
    spatial, sums = [names[v] for v in own if v is not lane], [names[v] for v in bound if v is not lane]
    if lane is None:
        return reorder(nest, name, [*outer, *middle, *spatial, *sums])
    nest, step, tile = _lanes(nest, name, names[lane], size(extent[lane]), setting)
    if lane in own:
        return reorder(nest, name, [*outer, *middle, *spatial, step, *sums, *tile])
    return reorder(nest, name, [*outer, *middle, *spatial, *sums, step, *tile])


def _lane(s: Stage, among: list[Var], setting: Setting) -> Var | None:
    """The axis along which most bytes are contiguous."""
    extent = {v: size(v.extent) for v in (*s.axes, *s.bound)}
    votes = {v: sum(math.prod(n for w, n in extent.items() if x.uses(w)) for x in accesses(s, setting.strides) if x.stride(v) == 1)
             for v in among}
    best = max(among, key=lambda v: (votes[v], size(v.extent)), default=None)
    return best if best is not None and votes[best] else None


def _lanes(nest: Nest, name: str, loop: str, extent: int, setting: Setting) -> tuple[Nest, str, list[str]]:
    """Split a loop into a peeled loop and a tile of several vectors; returns the loop and the tile."""
    width = setting.target.vector_bits // 32
    while width > 1 and width // 2 >= extent:
        width //= 2
    work = max(cost(t.body) for t in nest[name].tensors)
    unroll = 4 if work <= 8 else 2 if work <= 40 else 1
    while unroll > 1 and (width * unroll > extent or (extent % width == 0 and extent % (width * unroll))):
        unroll //= 2  # what is read past the end of a region would be computed, by all that comes before it
    nest = split(nest, name, loop, width * unroll, f"{loop}.o", f"{loop}.w", tail="peel")
    if unroll == 1:
        return set_role(nest, name, f"{loop}.w", "vectorize"), f"{loop}.o", [f"{loop}.w"]
    nest = split(nest, name, f"{loop}.w", width, f"{loop}.u", f"{loop}.v")
    nest = set_role(set_role(nest, name, f"{loop}.u", "unroll"), name, f"{loop}.v", "vectorize")
    return nest, f"{loop}.o", [f"{loop}.u", f"{loop}.v"]


def _register_tile(nest: Nest, host: str, name: str, setting: Setting, lanes: Var | None = None) -> Nest:
    """A product of a block: register tiles of rows by lanes over the whole sum; along the lanes what memory says, or ``lanes``.

    The lane factor is packed where it does not lie along the lanes, and either where it is converted.
    """
    s = nest[name]
    p = (_turned(s, lanes, setting) if lanes is not None else None) or analyse(s, setting.strides)
    region = place(nest)[name].extent
    lines = size(region[p.row]) if p.row is not None else 1
    nr, mr = register_tile(setting.target, size(region[p.lane]), lines, p.accumulator.bits)
    names = s.axis_names()
    lane, row = names[p.lane], names[p.row] if p.row is not None else ""
    if s.axes[-1] is not p.lane:
        nest = store_as(nest, name, [names[v] for v in (*(v for v in s.axes if v is not p.lane), p.lane)])
    rest = [names[v] for v in s.axes if names[v] not in (lane, row)]
    nest = split(nest, name, lane, nr, tail="peel")
    tile = [f"{lane}.i"]
    loops = [f"{lane}.o"]
    if row:
        nest = split(nest, name, row, mr, tail="peel")
        nest = set_role(nest, name, f"{row}.i", "unroll")
        tile.insert(0, f"{row}.i")
        loops.append(f"{row}.o")
    nest = set_role(nest, name, f"{lane}.i", "vectorize")
    nest = reorder(nest, name, [*rest, *loops, *(names[v] for v in p.walk(setting.strides)), *tile])
    return _pack(nest, host, name, p, (nr, mr), lines, setting)


def _pack(nest: Nest, host: str, name: str, p: Product, tile: tuple[int, int], rows: int, setting: Setting) -> Nest:
    packing = Packing(name, setting, p.walk(setting.strides), dtype=p.wider)
    if p.row is not None and p.rows is not None and p.rows.dtype != p.accumulator and separable(p.rows, p.row, p.batch):
        nest = pack_rows(nest, packing, p.rows, p.row, tile[1], _place(nest, host, p, p.rows))
    if p.lanes is None or not separable(p.lanes, p.lane, p.batch):
        return nest
    if p.contiguous_lanes(setting.strides) and p.wider is None and not (rows >= _REPAID * tile[1] and _fills_sets(p, setting)):
        return nest
    return pack_lanes(nest, packing, p.lanes, p.lane, tile[0], _place(nest, host, p, p.lanes))


def _fills_sets(p: Product, setting: Setting) -> bool:
    """Whether the lines of a panel, as far apart as they lie, leave nothing of their cache sets to the other factor."""
    access = read_access(p.lanes, setting.strides) if p.lanes is not None else None
    return access is not None and any(
        crowded(n * access.dtype.itemsize, 2 * size(v.extent)) for v in p.stage.bound if (n := access.stride(v)) is not None)


def _place(nest: Nest, host: str, p: Product, factor: Read) -> tuple[str, str]:
    """Where a factor is copied: once for all blocks where they share it, else for each."""
    h, serial = nest[host], summed_along(nest, host)
    rows = [row_of(nest, h, p.stage, v) for v in p.stage.axes if v in factor.free]
    once = not any(v in serial for v in rows) if serial else None not in rows and not _reduces_points(p.stage, h)
    return host, "" if once else h.order[-1]
