"""Reductions and scans of register tiles: along unrolled axes pairwise in order, then along the lanes by halves."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_ops import RegisterAlgebra
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_types import I1, I32, lane_numbers, lanes_of, splat, undefined, vector
from codegen.tile.ir import Reduce, Scan, Value, union_axes
from dsl.carrier import Carrier
from dsl.dim import Var
from dsl.dtype import Dtype

State = list[ir.Value]


def emit_reduce(b: Builder, op: Reduce, tiles: dict[Value, Tile], shape_of: Callable[[tuple[Var, ...]], Shape]) -> list[Tile]:
    """The result tiles of a reduction."""
    states = [tiles[s] for s in op.states]
    dtypes = [t.dtype for t in states]
    union = union_axes(*op.states)
    shape, out = shape_of(union), shape_of(tuple(v for v in union if v not in op.axes))
    across = shape.lane is not None and shape.lane in op.axes
    if across and out.lane is not None:
        return _into_lanes(b, op, states, shape, out)
    regs: list[dict[Coord, ir.Value]] = [{} for _ in states]
    for coord in out.coords():
        env = dict(zip(out.unrolled, coord))
        parts = [[t.at(b, shape, c) for t in states] for c in _merged(shape, env, op.axes, None if across else coord[-1])]
        state = _tree(b, op.carrier, parts, dtypes, shape.width)
        state = _across_lanes(b, op.carrier, state, dtypes, shape.width) if across else state
        for store, v in zip(regs, state):
            store[coord] = v
    return [Tile(out, r.dtype, found) for r, found in zip(op.results, regs)]


def _into_lanes(b: Builder, op: Reduce, states: list[Tile], shape: Shape, out: Shape) -> list[Tile]:
    """The lanes are reduced, and the results lie along the lanes of another axis: one result after another."""
    dtypes = [t.dtype for t in states]
    regs: list[dict[Coord, ir.Value]] = [{} for _ in states]
    assert out.lane is not None
    for coord in out.coords():
        env = dict(zip(out.unrolled, coord))
        for n in range(out.width):
            here = env | {out.lane: coord[-1] * out.width + n}
            parts = [[t.at(b, shape, c) for t in states] for c in _merged(shape, here, op.axes, None)]
            state = _across_lanes(b, op.carrier, _tree(b, op.carrier, parts, dtypes, shape.width), dtypes, shape.width)
            for store, v in zip(regs, state):
                whole = store.get(coord, undefined(vector(v.type, out.width)))
                store[coord] = b.insert_element(whole, v, I32(n))
    return [Tile(out, r.dtype, found) for r, found in zip(op.results, regs)]


def emit_scan(b: Builder, op: Scan, tiles: dict[Value, Tile], shape_of: Callable[[tuple[Var, ...]], Shape]) -> list[Tile]:
    """The prefixes along an axis: register after register along an unrolled one, in steps of doubling length along the lanes."""
    states = [tiles[s] for s in op.states]
    dtypes = [t.dtype for t in states]
    shape = shape_of(union_axes(*op.states))
    regs: list[dict[Coord, ir.Value]] = [{} for _ in states]
    along = shape.lane is op.axis
    length = shape.chunks if along else op.axis.size
    place = len(shape.unrolled) if along else shape.unrolled.index(op.axis)
    for first in (c for c in shape.coords() if c[place] == 0):
        before: State | None = None
        for n in reversed(range(length)) if op.reverse else range(length):
            coord = (*first[:place], n, *first[place + 1:])
            state = [t.at(b, shape, coord) for t in states]
            state = _within(b, op, state, dtypes, shape.width) if along else state
            state = state if before is None else _combine(b, op.carrier, before, state, dtypes)
            last = 0 if op.reverse else shape.width - 1
            before = [splat(b, b.extract_element(v, I32(last)), shape.width) for v in state] if along else state
            for store, v in zip(regs, state):
                store[coord] = v
    return [Tile(shape, r.dtype, found) for r, found in zip(op.results, regs)]


def _within(b: Builder, op: Scan, state: State, dtypes: list[Dtype], width: int) -> State:
    """Prefixes of one vector."""
    step = 1
    while step < width:
        far = [n + step if op.reverse else n - step for n in range(width)]
        moved = lane_numbers(*(n if 0 <= n < width else 0 for n in far))
        there = ir.Constant(vector(I1, width), [I1(0 <= n < width) for n in far])
        joined = _combine(b, op.carrier, [b.shuffle_vector(v, v, moved) for v in state], state, dtypes)
        state = [b.select(there, new, old) for new, old in zip(joined, state)]
        step *= 2
    return state


def _merged(shape: Shape, env: dict[Var, int], gone: tuple[Var, ...], chunk: int | None) -> list[Coord]:
    """The registers that become one: every coordinate of the axes in ``gone``, every chunk unless one is given."""
    ranges = [range(v.size) if v in gone else (env[v],) for v in shape.unrolled]
    return list(itertools.product(*ranges, range(shape.chunks) if chunk is None else (chunk,)))


def _combine(b: Builder, carrier: Carrier, x: State, y: State, dtypes: list[Dtype]) -> State:
    algebra = RegisterAlgebra(b)
    algebra.lanes = lanes_of(x[0])
    return [v for v, _ in carrier.combine(algebra, tuple(zip(x, dtypes)), tuple(zip(y, dtypes)))]


def _tree(b: Builder, carrier: Carrier, parts: list[State], dtypes: list[Dtype], width: int) -> State:
    """The states combined pairwise; of none, along an axis without points, the identity."""
    if not parts:
        algebra = RegisterAlgebra(b)
        algebra.lanes = width
        return [v for v, _ in carrier.identity(algebra, tuple(dtypes))]
    while len(parts) > 1:
        odd = [parts[-1]] if len(parts) % 2 else []
        parts = [_combine(b, carrier, parts[n], parts[n + 1], dtypes) for n in range(0, len(parts) - 1, 2)] + odd
    return parts[0]


def _across_lanes(b: Builder, carrier: Carrier, state: State, dtypes: list[Dtype], width: int) -> State:
    """One state of the lanes of a vector, by halves.

    The last two are combined as a vector too: LLVM makes branches of selections between numbers, which are guessed wrong half of the time.
    """
    while width > 1:
        half, odd = width // 2, width % 2
        if odd:
            lanes = [[b.extract_element(v, I32(n)) for v in state] for n in range(width)]
            return _tree(b, carrier, lanes, dtypes, 0)
        low, high = (lane_numbers(*((k, k) if half == 1 else range(k, k + half))) for k in (0, half))
        x = [b.shuffle_vector(v, v, low) for v in state]
        y = [b.shuffle_vector(v, v, high) for v in state]
        state, width = _combine(b, carrier, x, y, dtypes), half
    return [b.extract_element(v, I32(0)) for v in state]
