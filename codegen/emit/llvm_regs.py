"""Tiles as arrays of LLVM registers: which axes are unrolled, which lies along the lanes, and how tiles meet by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_types import splat
from codegen.tile.ir import Value
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

    def at(self, b: ir.IRBuilder, shape: Shape, coord: Coord) -> ir.Value:
        """The register seen from a coordinate of a wider tile: broadcast by name, splatted into lanes where needed."""
        own = self.shape
        if own == shape:
            return self.regs[coord]
        env = dict(zip(shape.unrolled, coord))
        key = tuple(env[v] for v in own.unrolled) + ((coord[-1],) if own.lane is not None else (0,))
        reg = self.regs[key]
        if own.lane is None and shape.lane is not None:
            slot = (key, shape.width)
            if slot not in self.cache or not _reusable(b, self.cache[slot]):
                self.cache[slot] = splat(b, reg, shape.width)
            return self.cache[slot]
        return reg


def _reusable(b: ir.IRBuilder, v: ir.Value) -> bool:
    """A splat made in this basic block, or a constant, may be used again here."""
    return isinstance(v, ir.Constant) or getattr(v, "parent", None) is b.block


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
