"""Schedules of pointwise stages: which axis lies along the lanes, what is turned in registers, which loops are parallel."""

from __future__ import annotations

import math

from codegen.analysis.access import Access, Strides, accesses, cost, size
from codegen.heuristics.decisions import Setting
from codegen.target.model import Target
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, fuse, reorder, set_role, split

SERIAL_WORK = 30_000  # operations below which starting a second thread costs more than it gains
_TURNED = 8  # the least extent of blocks that are turned in registers


def width_of(target: Target, stage: Stage) -> int:
    """Lanes of one vector of the widest dtype a stage computes in, at least those of f32."""
    return target.vector_bits // 32


def tile_lane(nest: Nest, name: str, loop: str, extent: int, setting: Setting, work: int) -> tuple[Nest, list[str]]:
    """Split a loop into a peeled serial loop and a tile of several vectors; returns the new inner loops."""
    width = width_of(setting.target, nest[name])
    while width > 1 and width // 2 >= extent:
        width //= 2
    unroll = 4 if work <= 8 else 2 if work <= 40 else 1
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
    nest, loops = collapse(nest, stage, setting.strides)
    if not loops:
        return annotate(nest, name, "serial", True)
    work = max(cost(t.body) for t in stage.tensors)
    lane = _map_lane(nest[name], loops, setting.strides)
    across = _crossed(nest[name], loops, lane, setting.strides)
    if across:
        nest = _schedule_turned(nest, name, loops, lane, across, setting)
        return annotate(nest, name, "serial", True) if math.prod(loops.values()) * max(work, 1) <= SERIAL_WORK else nest
    extent = loops.pop(lane)
    outer = list(loops)
    points = 1
    for n in loops.values():
        points *= n
    small = points * extent * max(work, 1) <= SERIAL_WORK
    if points < 4 * setting.target.threads and not small and extent > 4096:
        nest = split(nest, name, lane, 4096, f"{lane}.p", f"{lane}.c")
        outer.append(f"{lane}.p")
        lane, extent = f"{lane}.c", 4096
    nest, inner = tile_lane(nest, name, lane, extent, setting, work)
    nest = reorder(nest, name, [*outer, *inner])
    nest = gridify(nest, name, outer)
    return annotate(nest, name, "serial", True) if small else nest


def _map_lane(stage: Stage, loops: dict[str, int], strides: Strides) -> str:
    """The loop whose axis is contiguous where the stage writes: the last one in the order in which it is stored."""
    names = stage.axis_names()
    near = next((names[a] for x in accesses(stage, strides) if x.write for a in stage.axes if x.stride(a) == 1), "")
    return near if near in loops else list(loops)[-1]


def _crossed(stage: Stage, loops: dict[str, int], lane: str, strides: Strides) -> str:
    """A loop along which something is read that lies across the lanes, where both are long enough for blocks to be turned in registers."""
    names = {n: a for a, n in stage.axis_names().items()}
    for x in accesses(stage, strides):
        if not x.write and lane in names and x.stride(names[lane]) not in (0, 1, None):
            for loop in loops:
                if loop != lane and loop in names and x.stride(names[loop]) == 1 and min(loops[loop], loops[lane]) >= _TURNED:
                    return loop
    return ""


def _schedule_turned(nest: Nest, name: str, loops: dict[str, int], lane: str, across: str, setting: Setting) -> Nest:
    """Blocks of a vector by a cache line, which are loaded along one axis and stored along the other."""
    width = min(width_of(setting.target, nest[name]), 8)
    count = setting.choose(f"{name}.across", 16 if loops[across] >= 16 else _TURNED, (4, 8, 16))
    nest = split(nest, name, lane, width, tail="peel")
    nest = split(nest, name, across, count, tail="peel")
    nest = set_role(set_role(nest, name, f"{lane}.i", "vectorize"), name, f"{across}.i", "unroll")
    outer = [*(x for x in loops if x not in (lane, across)), f"{across}.o"]
    nest = reorder(nest, name, [*outer, f"{lane}.o", f"{across}.i", f"{lane}.i"])
    return gridify(nest, name, outer)


def collapse(nest: Nest, stage: Stage, strides: Strides) -> tuple[Nest, dict[str, int]]:
    """Fuse neighbouring axes across which every access runs on with one stride; returns the loops and their extents."""
    touched = accesses(stage, strides)
    names = stage.axis_names()
    axes = [a for a in stage.axes if size(a.extent) != 1 or a is stage.axes[-1]]
    loops: dict[str, int] = {}
    last: Var | None = None
    for a in axes:
        if last is not None and all(_runs_on(x, last, a) for x in touched):
            previous = next(reversed(loops))
            fused = f"{previous}{names[a]}"
            nest = reorder(nest, stage.name, _bring(nest[stage.name].order, previous, names[a]))
            nest = fuse(nest, stage.name, previous, names[a], fused)
            loops[fused] = loops.pop(previous) * size(a.extent)
        else:
            loops[names[a]] = size(a.extent)
        last = a
    return nest, loops


def _bring(order: tuple[str, ...], outer: str, inner: str) -> list[str]:
    rest = [x for x in order if x != inner]
    at = rest.index(outer) + 1
    return [*rest[:at], inner, *rest[at:]]


def _runs_on(x: Access, outer: Var, inner: Var) -> bool:
    a, b = x.stride(outer), x.stride(inner)
    return (x.offset is not None and a is not None and b is not None and inner.extent is not None and inner.extent.is_const
            and a == b * inner.extent.const)


def gridify(nest: Nest, name: str, outer: list[str], points: int = 4096) -> Nest:
    """Make the outer loops parallel; where they have very many iterations, keep runs of the innermost serial."""
    s = nest[name]
    grid: list[str] = []
    for x in outer:
        nest = set_role(nest, name, x, "parallel")
        grid.append(x)
    return nest if s else nest
