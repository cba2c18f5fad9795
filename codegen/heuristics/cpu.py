"""Default CPU schedules: which loops are parallel, which axis lies along the lanes, how many registers a tile takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from codegen.analysis.access import Strides, accesses, cost, size
from codegen.heuristics.beside import find_rows, join_rows, part_rows
from codegen.heuristics.cascade import schedule_rolls
from codegen.heuristics.cascade_cpu import schedule_roll
from codegen.heuristics.chunks import part_reductions
from codegen.heuristics.contraction import schedule_contraction, schedule_passing, worth_tiling
from codegen.heuristics.decisions import Setting
from codegen.heuristics.divided import part_sums
from codegen.heuristics.factors import part_factors
from codegen.heuristics.fusion import fuse_stages, is_contraction, iterations
from codegen.heuristics.groups import Group, fills, group_stages, row_map
from codegen.heuristics.kept import keep_beside, keeps
from codegen.heuristics.lanes import NEAR, lane_axis, run, span
from codegen.heuristics.maps import SERIAL_WORK, collapse, schedule_map, streams, tile_lane
from codegen.heuristics.order import order_intermediates
from codegen.heuristics.rolling import roll_cascades
from codegen.heuristics.seeking import schedule_sought
from codegen.heuristics.turned import side_by_side
from codegen.heuristics.windows import overlapping, spell_out, unroll_rows
from codegen.target.model import Target
from dsl.dim import Var, as_term
from dsl.nest import Nest, Stage
from dsl.placing import place
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.storage import compute_at, lay_out

_PASSING = 8  # vectors of columns that are summed together
_LIGHT = 8  # operations a term, above which a few vectors keep the core busy
_SHORT = 7  # terms of a sum that are not worth lanes


def schedule_cpu(nest: Nest, setting: Setting) -> Nest:
    """The default schedule: fuse, group by rows, then tile every group."""
    rows = find_rows(_fused(nest, setting), setting) if any(s.kind == "reduce" for s in nest.stages) else []
    nest, rolls = roll_cascades(nest, setting, frozenset(name for r in rows for name in r.sums))
    nest = _fused(nest, setting)
    nest, done = schedule_rolls(nest, rolls, functools.partial(schedule_roll, setting=setting))
    nest, sought = schedule_sought(nest, setting)
    done |= sought
    nest, passes = part_rows(nest, rows, done, setting)
    done |= {name for p in passes for name in p.own}
    nest = part_reductions(nest, setting, done)
    nest, setting = order_intermediates(nest, setting, done)
    blocks = frozenset(name for p in passes if p.together for name in (p.rows.anchor, *p.inside))
    joins = functools.partial(_joins, blocks=blocks, setting=setting)
    for group in group_stages(nest, joins, done).values():
        left = [name for name in (group.anchor, *group.members) if any(s.name == name for s in nest.stages)]
        if left and left[0] != group.anchor:  # a contraction computes it while it packs it: each of the others is on its own
            for name in left:
                nest = _schedule_group(nest, Group(name), setting)
        elif left:
            nest = _schedule_group(nest, group, setting)
    for p in passes:
        nest = join_rows(nest, p, setting)
    return nest


def _fused(nest: Nest, setting: Setting) -> Nest:
    return part_sums(part_factors(fuse_stages(nest, setting.target, setting.choose), setting.strides), setting.strides)


# -- grouping ------------------------------------------------------------------------------------------------------
def _joins(nest: Nest, s: Stage, groups: dict[str, Group], home: dict[str, str], blocks: AbstractSet[str],
           setting: Setting) -> str | None:
    """The anchor a stage can be computed inside of, recorded in its group; None when it must be a root.

    Nothing is kept beside those of which ``blocks`` are made at a time.
    """
    consumers = nest.consumers(s)
    anchors = list(dict.fromkeys(home[c.name] for c in consumers))
    if s.kind == "scan" or not anchors or any(c.kind == "scan" for c in consumers):
        return None
    lasting = nest.is_output(s) or len(anchors) > 1
    group = groups[max(anchors, key=lambda a: iterations(nest[a]))]
    anchor = nest[group.anchor]
    rows = row_map(s, [c for c in consumers if home[c.name] == group.anchor], group)
    if not rows or (lasting and (group.anchor in blocks or not keeps(nest, s, group, rows, setting))):
        return None
    kept = tuple(a for a in anchor.axes if a in rows.values())
    whole = all(a in kept or size(a.extent) == 1 for a in anchor.axes) and len(rows) == len(s.axes)
    if is_contraction(s) and not (whole and fills(rows) and anchor.kind == "map" and not group.members):
        return None
    if anchor.kind == "reduce" or (group.rows and group.rows != kept) or any(is_contraction(nest[m]) for m in group.members):
        return None
    inner = [size(a.extent) for a in s.axes if a not in rows]
    room = 1
    for n in inner:
        room *= n
    if room * s.tensors[0].dtype.itemsize > setting.target.caches[1] // 4 or not _enough_rows(kept, s, setting.target):
        return None
    if not setting.choose(f"{s.name}.inside", not _passes_whole_rows(s, rows, setting), (True, False)):
        return None
    group.rows = kept
    group.members[s.name] = rows
    group.kept |= {s.name} if lasting else set()
    return group.anchor


def _passes_whole_rows(s: Stage, rows: Mapping[Var, Var], setting: Setting) -> bool:
    """Whether partial sums of columns are made of whole rows, one after another.

    Computed for a few columns at a time, inside of what finishes them, they would take a line of every row, and rows are far apart.
    """
    if s.kind != "reduce" or len(rows) == len(s.axes) or lane_axis(s, setting.strides, (*s.axes, *s.bound)) not in rows:
        return False
    moved = max(span(x, s) * x.dtype.itemsize for x in accesses(s, setting.strides))
    return moved > setting.target.threads * setting.target.caches[1]


def _enough_rows(rows: tuple[Var, ...], s: Stage, target: Target) -> bool:
    """Rows must keep every thread busy, unless the whole stage is small."""
    n = 1
    for a in rows:
        n *= size(a.extent)
    return n >= 2 * target.threads or iterations(s) <= SERIAL_WORK


# -- tiling one group ----------------------------------------------------------------------------------------------
def _schedule_group(nest: Nest, group: Group, setting: Setting) -> Nest:
    anchor = nest[group.anchor]
    heavy = next((m for m in (group.anchor, *group.members) if is_contraction(nest[m])), None)
    if heavy is not None and worth_tiling(nest, heavy, setting.strides):
        return schedule_contraction(nest, group.anchor, heavy, setting)
    if len(group.members) <= 1:
        passing = schedule_passing(nest, group.anchor, next(iter(group.members), group.anchor), setting)
        if passing is not None:
            return passing
    if anchor.kind == "scan":
        return _schedule_scan(nest, anchor, setting)
    if anchor.kind == "map" and not group.members:
        return schedule_map(nest, anchor, setting)
    rows = anchor.axes if anchor.kind == "reduce" else group.rows
    if group.kept and _row_lane(nest, group, rows, setting.strides) is not None:
        for name in (group.anchor, *group.members):
            nest = _schedule_group(nest, Group(name), setting)
        return nest
    return _schedule_rows(nest, group, rows, setting)


# -- rows ----------------------------------------------------------------------------------------------------------
def _schedule_rows(nest: Nest, group: Group, rows: tuple[Var, ...], setting: Setting) -> Nest:
    """Row by row: everything attached is computed per row (or per vector of rows), then the anchor's own axes."""
    stages = [group.anchor, *group.members]
    row = side_by_side([(nest[m], tuple(group.members.get(m, rows))) for m in stages], rows, setting)
    lane = _row_lane(nest, group, rows, setting.strides)
    turned = (row is not None and _row_lane(nest, group, rows, setting.strides, 1) is None
              and (lane is None or _gathers(nest, group, rows, lane, setting.strides)))
    lane = row if turned else lane
    name = group.anchor
    names = nest[name].axis_names()
    nest = annotate(nest, name, "streaming", nest[name].kind == "map" and streams(nest[name], _moved(nest, group), setting))
    loops = [names[a] for a in rows]
    rest = [x for x in nest[name].order if x not in loops]
    nest = reorder(nest, name, [*loops, *rest])
    row_loop = names[lane] if lane is not None else loops[-1] if loops else ""
    beside = None if turned else _beside(nest, group, lane)
    if lane is not None:
        columns = None if beside is not None or turned else _columns(nest, group, rows)
        width = _lanes(name, lane, setting, turned, beside is not None) if columns is None else _columns_width(columns, lane, setting)
        nest = split(nest, name, row_loop, width, tail="mask" if beside is None and columns is None and not turned else "peel")
        nest = reorder(nest, name, [*(x if x != row_loop else f"{row_loop}.o" for x in loops), *rest, f"{row_loop}.i"])
        nest = set_role(nest, name, f"{row_loop}.i", "vectorize")
        loops = [x if x != row_loop else f"{row_loop}.o" for x in loops]
    if beside is not None:
        nest, loops = unroll_rows(nest, name, beside, loops, setting)
        loops = [*(x for x in loops if x != f"{row_loop}.o"), f"{row_loop}.o"]
        nest = reorder(nest, name, [*loops, *(x for x in nest[name].order if x not in loops)])
    total = sum(iterations(nest[m]) * max(1, cost(nest[m].body)) for m in stages)
    for member, rows_of in group.members.items():
        nest = keep_beside(nest, member, rows_of, name, loops) if member in group.kept else compute_at(nest, member, name, loops[-1])
        nest = _tile_inner(nest, member, tuple(rows_of), rows_of, lane, setting, turned)
        if turned:
            nest = _lane_last(nest, member, next(a for a, v in rows_of.items() if v is lane))
        if beside is not None:
            nest = _unroll_attached(nest, member, next(a for a, v in rows_of.items() if v is beside))
    nest = _tile_inner(nest, name, rows, {a: a for a in rows}, lane, setting, turned)
    if beside is not None:
        nest = spell_out(nest, next(m for m in stages if nest[m].kind == "reduce"))
    for x in loops[:-1] if _peels(nest, name, loops, beside is not None, setting.target) else loops:
        nest = set_role(nest, name, x, "parallel")
    return annotate(nest, name, "serial", True) if total <= SERIAL_WORK else nest


def _moved(nest: Nest, group: Group) -> int:
    """Bytes of what a group reads and writes that is not made inside of it."""
    made = {t for m in group.members for t in nest[m].tensors}
    tensors = {t for m in (group.anchor, *group.members) for t in (*nest[m].sources(), *nest[m].tensors)} - made
    return sum(math.prod(size(n) for n in t.shape) * t.dtype.itemsize for t in tensors)


def _peels(nest: Nest, name: str, loops: list[str], surely: bool, target: Target) -> bool:
    """Whether the last row loop stays serial, where a ragged tail has code of its own, because the others occupy the threads."""
    placed = {x.name: x for x in place(nest)[name].loops}
    outside = math.prod(size(placed[x].extent) for x in loops[:-1])
    return len(loops) > 1 and (surely or (placed[loops[-1]].tail == "peel" and outside >= 4 * target.threads))


def _beside(nest: Nest, group: Group, lane: Var | None) -> Var | None:
    """The row axis along which windows overlap: the anchor's own, or those of the only stage it finishes."""
    if lane is None or not group.members:
        return None if lane is None else overlapping(nest[group.anchor], lane)
    (member, rows_of), *more = group.members.items()
    mine = next((a for a, v in rows_of.items() if v is lane), None)
    if more or mine is None or len(rows_of) != len(nest[member].axes) or lane is not group.rows[-1]:
        return None  # results that are stored across the lanes are better stored line by line
    found = overlapping(nest[member], mine)
    return None if found is None else rows_of[found]


def _unroll_attached(nest: Nest, name: str, axis: Var) -> Nest:
    """The rows of an attached stage's tile next to its lanes, inside of its sum."""
    loop, order = nest[name].axis_names()[axis], nest[name].order
    nest = reorder(nest, name, [*(x for x in order[:-1] if x != loop), loop, order[-1]])
    return set_role(nest, name, loop, "unroll")


def _lane_last(nest: Nest, name: str, lane: Var) -> Nest:
    """Store an attached stage with one axis last."""
    return lay_out(nest, name, lambda axes: tuple(as_term(a) for a in (*(a for a in axes if a is not lane), lane)))


def _lanes(name: str, lane: Var, setting: Setting, turned: bool, beside: bool) -> int:
    """Lanes of rows with other stages in them: a vector of rows that are ``turned``; few where several rows go ``beside`` each other."""
    lanes, extent = setting.target.vector_bits // 32, size(lane.extent)
    if turned:
        return lanes
    even = [n * lanes for n in range(1, 2 * _PASSING) if n in (1, 2, 4) or extent % (n * lanes) == 0]
    return setting.choose(f"{name}.width", _row_width(setting.target, extent, 1 if beside else _PASSING), even)


def _row_width(target: Target, extent: int, most: int = 1) -> int:
    """Lanes of rows that are computed side by side: all of them where they are ``most`` vectors or fewer, else equal shares of few vectors.

    Masks of a ragged share cost more than the registers of a large one.
    """
    width = target.vector_bits // 32
    while width > 1 and width // 2 >= extent:
        width //= 2
    if extent <= most * width:
        return -(-extent // width) * width
    if extent < 8 * width:
        return width
    even = [n * width for n in range(2, most + 1) if extent % (n * width) == 0]
    return even[-1] if even and extent % (2 * width) else 2 * width


def _columns(nest: Nest, group: Group, rows: tuple[Var, ...]) -> Stage | None:
    """The reduction of a group that is just one, with the map that finishes it if there is one: a mean, a sum that is rounded."""
    stages = [nest[x] for x in (group.anchor, *group.members)]
    reductions = [s for s in stages if s.kind == "reduce" and not is_contraction(s)]
    alone = len(reductions) == 1 and len(stages) <= 2 and all(a in rows or size(a.extent) == 1 for a in stages[0].axes)
    return reductions[0] if alone else None


def _columns_width(stage: Stage, lane: Var, setting: Setting) -> int:
    """Lanes that pass down a reduction together: long runs of every row, as many sums as the adders need, equal shares of the extent."""
    lanes = setting.target.vector_bits // 32
    narrow = _row_width(setting.target, size(lane.extent))
    total = -(-size(lane.extent) // lanes)
    states = len(stage.body.data[0].state(tuple(a.dtype for a in stage.body.args)))
    if narrow < 2 * lanes or states > 1 or max(cost(t.body) for t in stage.tensors) > _LIGHT:
        return narrow
    shares = -(-total // _PASSING)
    return setting.choose(f"{stage.name}.columns", -(-total // shares) * lanes, [n * lanes for n in (1, 2, 4, 8) if n <= total])


def _row_lane(nest: Nest, group: Group, rows: tuple[Var, ...], strides: Strides, short: int = _SHORT) -> Var | None:
    """The row axis to put along the lanes, when memory is contiguous along it; None when lanes run inside a row.

    What is read with gaps alone, every second element say, counts along the axis in which it is nearest. A sum of up to
    ``short`` terms, too few to fill a vector (the window of a convolution), has no say.
    """
    votes: dict[Var | None, int] = {None: 0}
    for m in (group.anchor, *group.members):
        s = nest[m]
        up = {a: a for a in rows} if m == group.anchor else group.members[m]
        for x in accesses(s, strides):
            made = nest.producer(x.tensor)
            if made is not None and not (x.write and nest.is_output(s)) and made.name in group.members:
                continue
            least = 1 if x.write else min((n for a in (*s.axes, *s.bound) if (n := x.stride(a))), key=abs, default=1)
            for a in (*s.axes, *s.bound):
                key = up.get(a)
                if x.stride(a) == least in (-1, *range(1, NEAR + 1)) and run(x, s, a) > (1 if key is not None or a in s.axes else short):
                    votes[key] = votes.get(key, 0) + span(x, s) * x.dtype.itemsize
    best = max(votes, key=lambda k: votes[k])
    if best is not None or not _gathers(nest, group, rows, None, strides):
        return best
    others = [k for k in votes if k is not None and not _gathers(nest, group, rows, k, strides)]
    return max(others, key=lambda k: votes[k], default=None)


def _gathers(nest: Nest, group: Group, rows: tuple[Var, ...], lane: Var | None, strides: Strides) -> bool:
    """Whether lanes along a row axis, or inside of a row, take elements of memory one by one."""
    made = {t for m in group.members for t in nest[m].tensors}
    for m in (group.anchor, *group.members):
        s = nest[m]
        up = {a: a for a in rows} if m == group.anchor else group.members[m]
        mine = [x for x in accesses(s, strides) if x.tensor not in made]
        along = [a for a in (*s.axes, *s.bound) if up.get(a) is lane]
        axis = max(along, key=lambda a: sum(span(x, s) for x in mine if x.stride(a) == 1), default=None)
        if axis is not None and any(abs(NEAR + 1 if (n := x.stride(axis)) is None else n) > NEAR for x in mine):
            return True
    return False


def _tile_inner(nest: Nest, name: str, rows: tuple[Var, ...], up: dict[Var, Var], lane: Var | None, setting: Setting,
                turned: bool = False) -> Nest:
    """Order and tile a stage's loops inside its row: spatial loops, reduction loops, the tile, which has whole rows if they are turned."""
    s = nest[name]
    names = s.axis_names()
    mine = [a for a in (*s.axes, *s.bound) if a not in rows]
    row_loops = [x for x in s.order if x.split(".")[0] in {names[a] for a in rows}]
    work = max(cost(t.body) for t in s.tensors)
    if lane is not None:
        tile = [x for x in row_loops if s.role(x) in ("unroll", "vectorize")]
        if name != "" and not tile:
            mapped = next((names[a] for a, v in up.items() if v is lane), None)
            if mapped is not None and s.attach is not None:
                nest = set_role(nest, name, mapped, "vectorize")
                tile = [mapped]
        ordered = [names[a] for a in mine if a in s.axes] + [names[a] for a in mine if a in s.bound]
        for x in ordered if turned else ():
            nest = set_role(nest, name, x, "unroll")
        return reorder(nest, name, [*(x for x in row_loops if x not in tile), *ordered, *tile])
    if not mine:
        return nest
    long = [a for a in mine if size(a.extent) != 1] or mine
    inner = lane_axis(s, setting.strides, tuple(long)) or long[-1]
    boxes = [[a for a in box if a in mine and (a is inner or size(a.extent) != 1)] for box in (s.axes, s.bound)]
    nest, own, ends = collapse(nest, s, setting.strides, boxes[0])
    nest, sums, more = collapse(nest, nest[name], setting.strides, boxes[1])
    near = next(x for x, a in (ends | more).items() if a is inner)
    nest, loops = tile_lane(nest, name, near, (own | sums)[near], setting, work)
    outer = [*(x for x in own if x != near), *(x for x in sums if x != near)]
    at = len(own) - 1 if inner in s.axes else len(outer)
    return reorder(nest, name, [*row_loops, *outer[:at], loops[0], *outer[at:], *loops[1:]])


# -- scans ---------------------------------------------------------------------------------------------------------
def _schedule_scan(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """Rows in parallel; along the scan one step at a time, with lanes over a row axis where there is one.

    Where memory is contiguous along the scan instead, blocks of steps are turned in registers.
    """
    names = stage.axis_names()
    rows = tuple(a for a in stage.axes if names[a] in stage.order)
    name, loops, steps = stage.name, [names[a] for a in rows], [names[a] for a in stage.bound]
    near, width = lane_axis(stage, setting.strides, (*rows, *stage.bound)), setting.target.vector_bits // 32
    most = max(rows, key=lambda v: size(v.extent), default=None)
    tile: list[str] = []
    if near in rows:
        nest, loops, tile = _cut(nest, name, near, loops, _row_width(setting.target, size(near.extent)), "vectorize", "mask")
    elif near is not None and most is not None and size(most.extent) >= width:
        nest, steps, block = _cut(nest, name, near, steps, min(width, size(near.extent)), "unroll", "peel")
        nest, loops, lanes = _cut(nest, name, most, loops, width, "vectorize", "peel")
        tile = [*block, *lanes]
    nest = reorder(nest, name, [*loops, *steps, *tile])
    for x in loops:
        nest = set_role(nest, name, x, "parallel")
    return annotate(nest, name, "serial", True) if iterations(stage) * max(1, cost(stage.body)) <= SERIAL_WORK else nest


def _cut(nest: Nest, name: str, axis: Var, loops: list[str], count: int, role: str, tail: str) -> tuple[Nest, list[str], list[str]]:
    """Cut the loop over an axis into tiles; the nest, the loops with the outer one in its place, and the inner one."""
    loop = nest[name].axis_names()[axis]
    nest = set_role(split(nest, name, loop, count, tail=tail), name, f"{loop}.i", role)
    return nest, [x if x != loop else f"{loop}.o" for x in loops], [f"{loop}.i"]
