"""Register and cache tiles for contractions: matrix products, convolutions, anything that sums products with reuse."""

from __future__ import annotations

from codegen.analysis.access import Strides, product_reads, read_access, size
from codegen.heuristics.decisions import Setting
from codegen.target.model import Target
from dsl.dim import Term, Var, as_term
from dsl.expr import Read
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.storage import cache_read, compute_at


def schedule_contraction(nest: Nest, anchor: str, heavy: str, setting: Setting) -> Nest:
    """Lanes along one factor's axis, unrolled rows along the other's; the accumulators stay in registers over the whole sum."""
    s = nest[heavy]
    sides = product_reads(s.body.args[0])
    assert sides is not None
    lane, row = _choose_axes(nest, s, sides, setting.strides)
    nr, mr = _register_tile(setting.target, size(lane.extent), size(row.extent) if row is not None else 1, _conflicts(s, sides, lane, row, setting.strides))
    nr, mr = setting.choose(f"{anchor}.register_tile", (nr, mr), _register_tiles(setting.target, nr, mr))
    names = s.axis_names()
    up = _anchor_axes(nest, anchor, heavy)
    a = nest[anchor]
    axes = a.axis_names()
    lane_loop, row_loop = axes[up[lane]], axes[up[row]] if row is not None else ""
    nest = split(nest, anchor, lane_loop, nr)
    nest = set_role(nest, anchor, f"{lane_loop}.i", "vectorize")
    tile = [f"{lane_loop}.i"]
    inner: list[str] = []
    if row is not None:
        nest = split(nest, anchor, row_loop, mr)
        nest = set_role(nest, anchor, f"{row_loop}.i", "unroll")
        tile.insert(0, f"{row_loop}.i")
        inner = [f"{row_loop}.o"]
    batch = [axes[v] for v in a.axes if v is not up[lane] and (row is None or v is not up[row])]
    bound = [names[v] for v in s.bound]
    if anchor == heavy:
        nest = reorder(nest, anchor, [*batch, f"{lane_loop}.o", *inner, *bound, *tile])
        at = ""
    else:
        nest = reorder(nest, anchor, [*batch, f"{lane_loop}.o", *inner, *tile])
        at = inner[-1] if inner else f"{lane_loop}.o"
        nest = compute_at(nest, heavy, anchor, at)
        rest = [names[v] for v in s.axes if v is not lane and v is not row]
        spatial = [*rest, *([names[row]] if row is not None else []), names[lane]]
        nest = reorder(nest, heavy, [*rest, *bound, *spatial[len(rest):]])
        nest = set_role(nest, heavy, names[lane], "vectorize")
        if row is not None:
            nest = set_role(nest, heavy, names[row], "unroll")
    for x in batch:
        nest = set_role(nest, anchor, x, "parallel")
    nest = set_role(nest, anchor, f"{lane_loop}.o", "parallel")
    nest = _spread(nest, anchor, batch, f"{lane_loop}.o", inner, setting.target)
    nest = _pack(nest, heavy, sides, lane, setting.strides)
    flops = 2
    for v in (*s.axes, *s.bound):
        flops *= size(v.extent)
    return annotate(nest, anchor, "serial", True) if flops < 200_000 else nest


def _anchor_axes(nest: Nest, anchor: str, heavy: str) -> dict[Var, Var]:
    """Axis of the contraction -> axis of its anchor."""
    from codegen.heuristics.fusion import identity_axes  # noqa: PLC0415
    s = nest[heavy]
    return {v: v for v in s.axes} if anchor == heavy else identity_axes(nest[anchor], s) or {}


def _choose_axes(nest: Nest, s: Stage, sides: tuple[Read, Read], strides: Strides) -> tuple[Var, Var | None]:
    """(lane axis, row axis): lanes where the result is contiguous; rows along an axis only the other factor has."""
    spatial = [v for v in s.axes if size(v.extent) > 1] or list(s.axes)
    written = _result_strides(nest, s, strides)

    def fitness(v: Var) -> tuple[int, int, int]:
        others = [r for r in sides if v not in r.free]
        loads = [2 if read_access(r, strides).stride(v) == 1 else 1 if _separable(r, v) else 0 for r in sides if v in r.free]
        return (1 if others else 0, 2 * min(loads, default=0) + (1 if written.get(v) == 1 else 0), min(size(v.extent), 64))

    lane = max(spatial, key=fitness)
    rows = [v for v in spatial if v is not lane and any(v in r.free and lane not in r.free for r in sides)]
    shared = [v for v in rows if all(v not in r.free for r in sides if lane in r.free)]
    row = max(shared or rows, key=lambda v: size(v.extent), default=None)
    return lane, row


def _separable(r: Read, v: Var) -> bool:
    """Whether one index of the read is the axis itself and no other index mentions it: a permuted copy makes it contiguous."""
    own = [i for i in r.indices if v in (i.vars if isinstance(i, Term) else i.free)]
    return len(own) == 1 and own[0] == as_term(v)


def worth_tiling(nest: Nest, heavy: str, strides: Strides) -> bool:
    """Whether register tiles pay: the lane factor is contiguous, or enough rows share a contiguous copy of it."""
    s = nest[heavy]
    sides = product_reads(s.body.args[0])
    assert sides is not None
    lane, row = _choose_axes(nest, s, sides, strides)
    factor = next((r for r in sides if lane in r.free), None)
    contiguous = factor is None or read_access(factor, strides).stride(lane) == 1
    return contiguous or (row is not None and size(row.extent) >= 8)


def _result_strides(nest: Nest, s: Stage, strides: Strides) -> dict[Var, int]:
    t = s.tensors[0]
    x = read_access(t.read(*t.axes), strides)  # type: ignore[arg-type]
    return {v: n for v in s.axes if (n := x.stride(v)) is not None}


def _register_tile(target: Target, lanes: int, rows: int, conflict: bool) -> tuple[int, int]:
    """(lane extent, row extent) of the accumulator tile."""
    w = target.vector_bits // 32
    while w > 4 and w // 2 >= lanes:
        w //= 2
    many = target.vector_registers >= 32
    shapes = ((6, 4), (8, 3), (12, 2)) if many and conflict else ((14, 2), (12, 2)) if many else ((6, 2), (4, 3))
    mr, nv = shapes[0]
    while nv > 1 and (nv - 1) * w >= lanes:
        nv -= 1
        mr = 14 if many and nv > 1 else 24 if many else 12
    if rows < mr:
        mr = rows
        room = (28 if many else 12) // max(mr, 1)
        nv = max(1, min(max(nv, room), 8, -(-lanes // w)))
    elif rows % mr:
        blocks = -(-rows // mr)
        mr = -(-rows // blocks)
    return nv * w, max(mr, 1)


def _register_tiles(target: Target, lanes: int, rows: int) -> list[tuple[int, int]]:
    """Other accumulator tiles no larger than the registers hold, and no larger than twice the default in either direction."""
    w = target.vector_bits // 32
    room = target.vector_registers - 2
    return [(nv * w, mr) for nv in (1, 2, 3, 4) for mr in (1, 2, 4, 6, 8, 12, 14, 24)
            if nv * mr + nv <= room and nv * w <= max(2 * lanes, w) and mr <= 2 * rows]


def _conflicts(s: Stage, sides: tuple[Read, Read], lane: Var, row: Var | None, strides: Strides) -> bool:
    """Whether the rows of the broadcast factor fall into the same cache sets."""
    if row is None:
        return False
    other = next((r for r in sides if lane not in r.free), None)
    if other is None:
        return False
    n = read_access(other, strides).stride(row)
    return n is not None and n != 0 and (n * other.dtype.itemsize) % 2048 == 0


def _spread(nest: Nest, anchor: str, batch: list[str], lane_loop: str, inner: list[str], target: Target) -> Nest:
    """Give every thread work: where the lane blocks are few, blocks of rows become parallel too; long rows are cut for the cache."""
    if not inner:
        return nest
    from dsl.nest import place  # noqa: PLC0415
    loops = {x.name: size(x.extent) for x in place(nest)[anchor].loops}
    points = loops[lane_loop]
    for x in batch:
        points *= loops[x]
    rows = loops[inner[0]]
    want = 4 * target.threads
    pieces = min(rows, -(-want // points)) if points < want else 1
    pieces = max(pieces, -(-rows // 64))
    if pieces <= 1:
        return nest
    x = inner[0]
    nest = split(nest, anchor, x, -(-rows // pieces), f"{x}.p", f"{x}.s")
    order = list(nest[anchor].order)
    order.remove(f"{x}.p")
    order.insert(order.index(lane_loop), f"{x}.p")
    nest = reorder(nest, anchor, order)
    nest = set_role(nest, anchor, f"{x}.p", "parallel")
    for s in nest.stages:
        if s.attach == (anchor, x):
            nest = compute_at(nest, s.name, anchor, f"{x}.s")
    return nest


def _pack(nest: Nest, heavy: str, sides: tuple[Read, Read], lane: Var, strides: Strides) -> Nest:
    """Read the lane factor through a copy in which its lane dimension is contiguous, when it is not."""
    factor = next((r for r in sides if lane in r.free), None)
    if factor is None or read_access(factor, strides).stride(lane) == 1 or not _separable(factor, lane):
        return nest
    at = next(n for n, i in enumerate(factor.indices) if isinstance(i, Term) and i == as_term(lane))
    order = [n for n in range(factor.tensor.ndim) if n != at] + [at]
    nest, copy = cache_read(nest, heavy, factor.tensor, f"{factor.tensor.name}.packed", order)
    c = nest[copy]
    names = c.axis_names()
    loops = [names[c.axes[n]] for n in order]
    extent = size(c.axes[at].extent)
    width = 16
    while width > 1 and width // 2 >= extent:
        width //= 2
    nest = split(nest, copy, loops[-1], width)
    nest = reorder(nest, copy, [f"{loops[-1]}.o", *loops[:-1], f"{loops[-1]}.i"])
    nest = set_role(nest, copy, f"{loops[-1]}.i", "vectorize")
    nest = set_role(nest, copy, f"{loops[-1]}.o", "parallel")
    if len(loops) > 1:
        nest = set_role(nest, copy, loops[0], "parallel")
    total = 1
    for v in c.axes:
        total *= size(v.extent)
    return annotate(nest, copy, "serial", True) if total < 20_000 else nest
