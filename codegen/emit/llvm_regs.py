"""Tiles as arrays of LLVM registers: which axes are unrolled, which lies along the lanes, and how tiles meet by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_types import splat, undefined, vector
from codegen.target import full_lanes
from codegen.tile.ir import Dot, For, Load, Phase, Reduce, Scan, Store, Value, walk_ops
from dsl.dim import Var
from dsl.dtype import Dtype

Coord = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """How a tile with these axes lies in registers.

    Attributes:
        unrolled: axes with one register (group) per coordinate.
        lane: the axis along the lanes, cut in ``chunks`` vectors of ``width``; None for scalars.
    """

    unrolled: tuple[Var, ...]
    lane: Var | None
    width: int
    chunks: int

    def coords(self) -> Iterator[Coord]:
        """Every coordinate of the unrolled axes, then of the chunk (0 when there is no lane axis)."""
        return itertools.product(*(range(v.size) for v in self.unrolled), range(self.chunks))


@dataclass
class Tile:
    """The registers of one value: coordinate to LLVM value (a vector when the shape has a lane axis)."""

    shape: Shape
    dtype: Dtype
    regs: dict[Coord, ir.Value]
    cache: dict[Any, ir.Value] = field(default_factory=dict)

    def at(self, b: Builder, shape: Shape, coord: Coord) -> ir.Value:
        """The register seen from a coordinate of a wider tile: broadcast by name, splatted into lanes where needed.

        Where the two have their lanes along different axes, elements are taken out and put together one by one.
        """
        own = self.shape
        if own == shape:
            return self.regs[coord]
        env = dict(zip(shape.unrolled, coord))
        if own.lane is shape.lane and (own.lane is None or own.width == shape.width):
            return self.regs[(*(env[v] for v in own.unrolled), coord[-1] if own.lane is not None else 0)]
        slot = (*(env[v] for v in (*own.unrolled, own.lane) if v in env), shape, coord[-1] if shape.lane in own.unrolled else 0)
        if slot not in self.cache or not _reusable(b, self.cache[slot]):
            self.cache[slot] = self._across(b, shape, env, coord[-1])
        return self.cache[slot]

    def _across(self, b: Builder, shape: Shape, env: dict[Var, int], chunk: int) -> ir.Value:
        if shape.lane is None or shape.lane not in self.shape.unrolled:
            return splat(b, self._element(b, env), shape.width)
        out: ir.Value | None = None
        for n in range(shape.width):
            element = self._element(b, env | {shape.lane: chunk * shape.width + n})
            out = undefined(vector(element.type, shape.width)) if out is None else out
            out = b.insert_element(out, element, ir.Constant(ir.IntType(32), n))
        return out

    def _element(self, b: Builder, env: dict[Var, int]) -> ir.Value:
        """One element, by its coordinates along every axis."""
        own = self.shape
        at = tuple(env[v] for v in own.unrolled)
        if own.lane is None:
            return self.regs[(*at, 0)]
        n = env[own.lane]
        return b.extract_element(self.regs[(*at, n // own.width)], ir.Constant(ir.IntType(32), n % own.width))


def _reusable(b: Builder, v: ir.Value) -> bool:
    """A splat made in this basic block, or a constant, may be used again here."""
    return isinstance(v, ir.Constant) or getattr(v, "parent", None) is b.block


def lanes_of_phase(phase: Phase, vector_bits: int) -> int:
    """The most lanes of one vector in a phase: a register's of what it moves, or of what it computes in where values go round a loop."""
    ops = list(walk_ops(phase.body))
    computed = 8 * max((v.dtype.held.itemsize for op in ops for v in (*op.operands(), *op.results)), default=4)
    moved = min((8 * op.buffer.dtype.itemsize for op in ops if isinstance(op, (Load, Store))), default=32)
    kept = any(isinstance(op, (Reduce, Scan, Dot)) or isinstance(op, For) and op.inits for op in ops)
    return full_lanes(vector_bits, computed if kept else moved, computed)


def shape_of(axes: tuple[Var, ...], lanes: frozenset[Var], width: int) -> Shape:
    """The register shape of a tile: the last lane axis lies along the lanes, in vectors of at most ``width``."""
    lane = next((v for v in reversed(axes) if v in lanes and v.size > 1), None)
    unrolled = tuple(v for v in axes if v is not lane)
    if lane is None:
        return Shape(unrolled, None, 0, 1)
    w = lane.size if lane.size <= width else width
    while lane.size % w:
        w -= 1
    return Shape(unrolled, lane, w, lane.size // w)


def make(shape: Shape, dtype: Dtype, fn: Callable[[Coord], ir.Value]) -> Tile:
    """A tile filled coordinate by coordinate."""
    return Tile(shape, dtype, {c: fn(c) for c in shape.coords()})


def describe(v: Value) -> str:
    """A readable register name."""
    return "".join(ch for ch in v.hint if ch.isalnum() or ch == "_")
