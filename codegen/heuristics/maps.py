"""Schedules of pointwise stages: which axis lies along the lanes, what is turned in registers, which loops are parallel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from codegen.analysis.access import Access, Strides, accesses, cost, size
from codegen.heuristics.decisions import Setting
from codegen.heuristics.lanes import span
from codegen.target.model import Target, full_lanes
from dsl.algebra import divisions, index_terms, reads, walk
from dsl.dim import Div, Term, Var, as_term
from dsl.expr import Expr, Index
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, fuse, reorder, set_role, split

SERIAL_WORK = 30_000  # operations below which starting a second thread costs more than it gains
WEAVES = (2, 3, 4)  # results side by side in memory whose vectors are shuffled into one another
_REPEATS = 4  # runs of an index that starts anew which get a loop of their own; a loop over fewer is cut when it is lowered
_RUN = 4096  # elements in a row that one thread takes, where there are too few rows
_OVERFLOW = 2  # times the last-level cache that a stage moves when its results are stored past the caches
_TURNED = 8  # the least extent of blocks that are turned in registers
_LONGER = 4  # times as long as what is written without gaps: then lanes lie along what is read so


def width_of(target: Target, stage: Stage) -> int:
    """Lanes of a stage's vectors: as many as fill a register with the narrowest elements it moves, or that a reduction computes in."""
    stored, computed = bits_of(stage)
    return full_lanes(target.vector_bits, computed if stage.kind == "reduce" else stored, computed)


def bits_of(stage: Stage) -> tuple[int, int]:
    """(bits of the narrowest element that a stage reads or writes, bits of the widest value that it computes)."""
    made = [t.dtype for t in stage.tensors]
    moved = [*made, *(r.dtype for t in stage.tensors for r in reads(t.body))]
    computed = [*made, *(e.dtype for t in stage.tensors for e in walk(t.body) if not isinstance(e, Index))]
    return 8 * min(d.itemsize for d in moved), 8 * max(d.held.itemsize for d in computed)


def tile_lane(nest: Nest, name: str, loop: str, extent: int, setting: Setting, work: int) -> tuple[Nest, list[str]]:
    """Split a loop into a peeled serial loop and a tile of several vectors; returns the new inner loops."""
    width, most = width_of(setting.target, nest[name]), 4 if work <= 8 else 2
    narrow = setting.target.vector_bits // min(32, bits_of(nest[name])[1])
    while width > 1 and (width // 2 >= extent or width > most * narrow):
        width //= 2
    unroll = max(1, (most if work <= 40 else 1) * narrow // max(width, narrow))
    while unroll > 1 and width * unroll > extent:
        unroll //= 2
    unroll = setting.choose(f"{name}.vectors", unroll, [n for n in (1, 2, 4, 8) if width * n <= max(extent, width)])
    nest = split(nest, name, loop, width * unroll, f"{loop}.o", f"{loop}.w", tail="peel")
    if unroll > 1:
        nest = split(nest, name, f"{loop}.w", width, f"{loop}.u", f"{loop}.v")
        nest = set_role(set_role(nest, name, f"{loop}.u", "unroll"), name, f"{loop}.v", "vectorize")
        return nest, [f"{loop}.o", f"{loop}.u", f"{loop}.v"]
    return set_role(nest, name, f"{loop}.w", "vectorize"), [f"{loop}.o", f"{loop}.w"]


def schedule_map(nest: Nest, stage: Stage, setting: Setting) -> Nest:
    """Pointwise: collapse axes that memory does not tell apart, lanes along the contiguous axis, the rest in parallel."""
    name = stage.name
    nest = annotate(nest, name, "parted", True)
    nest, loops, ends = collapse(nest, stage, setting.strides)
    if not loops:
        return annotate(nest, name, "serial", True)
    work = max(cost(t.body) for t in stage.tensors)
    touched = accesses(stage, setting.strides)
    lane = _map_lane(name, touched, loops, ends, setting)
    small = math.prod(loops.values()) * max(work, 1) <= SERIAL_WORK
    remainders = _remainders(stage, loops, ends)
    if lane in remainders and loops[lane] >= 2 * remainders[lane] * _narrow(setting.target, stage):
        nest = _schedule_remainders(nest, name, loops, lane, remainders, setting)
    elif woven := _woven(touched, loops, ends, lane, 2 * width_of(setting.target, stage)):
        nest = _schedule_woven(nest, name, loops, lane, woven, setting)
    elif (across := _crossed(touched, loops, ends, lane)) and setting.choose(f"{name}.turned", True, (True, False)):
        nest = _schedule_turned(nest, name, loops, lane, across, setting)
    else:
        nest = annotate(nest, name, "streaming", streams(stage, sum(span(x, stage) * x.dtype.itemsize for x in touched), setting))
        extent = loops.pop(lane)
        period, runs = _period(stage, ends[lane], extent), list[str]()
        if period >= width_of(setting.target, stage):
            nest = split(nest, name, lane, period, f"{lane}.r", f"{lane}.e", tail="exact")
            lane, extent, runs = f"{lane}.e", period, [f"{lane}.r"]
        nest, lane, extent, outer = _share_out(nest, name, (lane, extent), loops, setting)
        nest, inner = tile_lane(nest, name, lane, extent, setting, work)
        nest = gridify(reorder(nest, name, [*outer, *runs, *inner]), name, outer if loops else [*outer, *runs])
    return annotate(nest, name, "serial", True) if small else nest


def _narrow(target: Target, stage: Stage) -> int:
    """Lanes of a register of the widest values that a stage computes."""
    return target.vector_bits // max(32, bits_of(stage)[1])


def _remainders(stage: Stage, loops: dict[str, int], ends: dict[str, Var]) -> dict[str, int]:
    """The loops over one axis that indices see through quotients or remainders by one small number, and that number."""
    names = stage.axis_names()
    found: dict[Var, set[int]] = {}
    for t in (t for tensor in stage.tensors for t in index_terms(tensor.body)):
        for atom in divisions(t):
            for v in atom.num.vars:
                step, known = atom.num.coef(v), atom.den.const if atom.den.is_const else 0
                if step is None or not known or step % known:
                    found.setdefault(v, set()).add(0 if step is None else known)
    near = {loop: found.get(a, set()) for loop, a in ends.items() if loop == names[a]}
    return {loop: n for loop, some in near.items() if len(some) == 1 and (n := next(iter(some))) in WEAVES}


def _schedule_remainders(nest: Nest, name: str, loops: dict[str, int], lane: str, found: dict[str, int], setting: Setting) -> Nest:
    """Every remainder of an axis by itself, so that what is left of its indices are plain ones; the lanes' are shuffled together."""
    width = _narrow(setting.target, nest[name])
    for loop, n in found.items():
        nest = split(nest, name, loop, n, f"{loop}.w", f"{loop}.p", tail="exact" if loops[loop] % n == 0 else "peel")
        nest = set_role(nest, name, f"{loop}.p", "unroll")
    nest = split(nest, name, f"{lane}.w", width, tail="peel")
    nest = set_role(nest, name, f"{lane}.w.i", "vectorize")
    outer = {f"{x}.w" if x in found else x: -(-n // found.get(x, 1)) for x, n in loops.items() if x != lane}
    near = [f"{x}.p" for x in found if x != lane]
    nest = reorder(nest, name, [*outer, f"{lane}.w.o", *near, f"{lane}.p", f"{lane}.w.i"])
    *far, last = outer or [""]
    plenty = math.prod(outer[x] for x in far) >= 4 * setting.target.threads
    return gridify(nest, name, far if plenty else [*outer])


def _period(stage: Stage, axis: Var, extent: int) -> int:
    """After how many elements along an axis the indices that start anew do so, where that is more often than loops are cut for; else 0."""
    terms = (i for t in stage.tensors for r in reads(t.body) for i in r.indices if isinstance(i, Term))
    found = {a.den for t in terms for mono in t.parts for a in mono if isinstance(a, Div) and axis in a.num.vars}
    period = next(iter(found)) if len(found) == 1 else as_term(extent)
    if period == 0:
        return 0
    whole = period.is_const and axis.extent == extent and extent % period.const == 0
    return period.const if whole and extent // period.const >= _REPEATS else 0


def streams(stage: Stage, moved: int, setting: Setting) -> bool:
    """Whether results are stored past the caches: so many more bytes are moved than the last of them holds that nothing is found there.

    Otherwise a line would be read before it is written, only to be written back. What a smaller stage stores is still there when it is
    read next, and storing past the caches would be slower (measured, ``docs/performance.md``).
    """
    if not all(a.extent is not None and a.extent.is_const for a in stage.axes):
        return False
    room = setting.target.caches[2]
    return moved >= room and setting.choose(f"{stage.name}.streaming", moved >= _OVERFLOW * room, (False, True))


def _share_out(nest: Nest, name: str, inner: tuple[str, int], outer: dict[str, int],
               setting: Setting) -> tuple[Nest, str, int, list[str]]:
    """Runs of a long inner loop for the threads, where the outer loops are too few; the inner loop, its extent, and all outer ones."""
    loop, extent = inner
    if math.prod(outer.values()) >= 4 * setting.target.threads or extent <= _RUN:
        return nest, loop, extent, [*outer]
    nest = split(nest, name, loop, _RUN, f"{loop}.p", f"{loop}.c")
    return nest, f"{loop}.c", _RUN, [*outer, f"{loop}.p"]


def _map_lane(name: str, touched: list[Access], loops: dict[str, int], ends: dict[str, Var], setting: Setting) -> str:
    """The loop along the lanes: one whose axis is contiguous where the stage writes, the last one in the order in which it is stored.

    A much longer one along which it reads comes first: what is read then runs on, and whole lines are written across the lanes.
    """
    written = [loop for x in touched if x.write for loop, a in ends.items() if x.stride(a) == 1]
    lane = written[0] if written else list(ends)[-1]
    seen = [x for x in touched if not x.write]
    read = [loop for x in seen if x.stride(ends[lane]) not in (0, 1, None) for loop, a in ends.items() if x.stride(a) == 1]
    longest = max(read, key=lambda x: loops[x], default=lane)
    longer = all(x.stride(ends[lane]) != 1 for x in seen) and loops[longest] >= _LONGER * loops[lane] >= _LONGER * 2 * _TURNED
    return setting.choose(f"{name}.lane", longest if longer else lane, [*written, *read])


def _crossed(touched: list[Access], loops: dict[str, int], ends: dict[str, Var], lane: str) -> str:
    """A loop along which something lies that is across the lanes, where both are long enough for blocks to be turned in registers."""
    for x in touched:
        if x.stride(ends[lane]) not in (0, 1, None):
            for loop, a in ends.items():
                if loop != lane and x.stride(a) == 1 and min(loops[loop], loops[lane]) >= _TURNED:
                    return loop
    return ""


def _woven(touched: list[Access], loops: dict[str, int], ends: dict[str, Var], lane: str, least: int) -> str:
    """A loop along which vectors are read whose elements the few results along ``lane`` take turns with in memory; empty where none is."""
    if loops[lane] not in WEAVES or any(not x.write and x.uses(ends[lane]) for x in touched):
        return ""
    for loop, a in ends.items():
        if (loop != lane and loops[loop] >= least and any(not x.write and x.stride(a) == 1 for x in touched)
                and all(x.stride(a) == loops[lane] for x in touched if x.write)):
            return loop
    return ""


def _schedule_woven(nest: Nest, name: str, loops: dict[str, int], lane: str, along: str, setting: Setting) -> Nest:
    """Vectors along one loop for every result of the short one, which are shuffled into whole vectors of memory."""
    rest = {x: n for x, n in loops.items() if x not in (lane, along)}
    nest, along, _, outer = _share_out(nest, name, (along, loops[along]), rest, setting)
    nest = split(nest, name, along, width_of(setting.target, nest[name]), tail="peel")
    nest = set_role(set_role(nest, name, f"{along}.i", "vectorize"), name, lane, "unroll")
    return gridify(reorder(nest, name, [*outer, f"{along}.o", lane, f"{along}.i"]), name, outer)


def _schedule_turned(nest: Nest, name: str, loops: dict[str, int], lane: str, across: str, setting: Setting) -> Nest:
    """Blocks of a vector by a cache line, which are loaded along one axis and stored along the other."""
    width = min(width_of(setting.target, nest[name]), 8)
    count = setting.choose(f"{name}.across", 16 if loops[across] >= 16 else _TURNED, [n for n in (4, 8, 16, 32) if n <= loops[across]])
    nest = split(nest, name, lane, width, tail="peel")
    nest = split(nest, name, across, count, tail="peel")
    nest = set_role(set_role(nest, name, f"{lane}.i", "vectorize"), name, f"{across}.i", "unroll")
    outer = [*(x for x in loops if x not in (lane, across)), f"{across}.o"]
    nest = reorder(nest, name, [*outer, f"{lane}.o", f"{across}.i", f"{lane}.i"])
    return gridify(nest, name, outer)


def collapse(nest: Nest, stage: Stage, strides: Strides, among: Sequence[Var] | None = None) -> tuple[Nest, dict[str, int], dict[str, Var]]:
    """Fuse neighbouring axes across which every access runs on with one stride, and no index that is looked at starts anew.

    Args:
        nest: the nest.
        stage: a stage without a schedule.
        strides: how the inputs lie in memory.
        among: the axes, all those of the stage's results when None.

    Returns:
        The loops with their extents, and with the axis along which a loop's next iteration lies.
    """
    touched = accesses(stage, strides)
    seen = [t for x in stage.tensors for t in looked_at(x.body)]
    names = stage.axis_names()
    own = stage.axes if among is None else among
    axes = [a for a in own if size(a.extent) != 1 or a is own[-1]]
    loops: dict[str, int] = {}
    ends: dict[str, Var] = {}
    last: Var | None = None
    for a in axes:
        if last is not None and all(runs_on(x, last, a) for x in touched) and all(keeps(t, last, a) for t in seen):
            previous = next(reversed(loops))
            fused = f"{previous}{names[a]}"
            nest = reorder(nest, stage.name, _bring(nest[stage.name].order, previous, names[a]))
            nest = fuse(nest, stage.name, previous, names[a], fused)
            loops[fused] = loops.pop(previous) * size(a.extent)
            del ends[previous]
            ends[fused] = a
        else:
            loops[names[a]] = size(a.extent)
            ends[names[a]] = a
        last = a
    return nest, loops, ends


def looked_at(body: Expr) -> Iterator[Term]:
    """The indices that a body compares or computes with."""
    return (e.term for e in walk(body) if isinstance(e, Index))


def keeps(t: Term, outer: Var, inner: Var) -> bool:
    """Whether an index is as simple along two axes fused as it is along either: it runs on, or changes with the outer one alone."""
    a, b = t.coef(outer), t.coef(inner)
    return a is not None and (b == 0 or (b is not None and inner.extent is not None and inner.extent.is_const
                                         and a == b * inner.extent.const))


def _bring(order: tuple[str, ...], outer: str, inner: str) -> list[str]:
    rest = [x for x in order if x != inner]
    at = rest.index(outer) + 1
    return [*rest[:at], inner, *rest[at:]]


def runs_on(x: Access, outer: Var, inner: Var) -> bool:
    """Whether an access goes on from the end of one point of the outer axis to the next, with one stride."""
    a, b = x.stride(outer), x.stride(inner)
    return (x.offset is not None and a is not None and b is not None and inner.extent is not None and inner.extent.is_const
            and a == b * inner.extent.const)


def gridify(nest: Nest, name: str, outer: list[str]) -> Nest:
    """Make the outer loops parallel."""
    for x in outer:
        nest = set_role(nest, name, x, "parallel")
    return nest
