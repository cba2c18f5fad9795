"""Tiles whose lanes run across memory.

Which axis memory is contiguous in, and the shuffles between registers along it and along the lanes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from llvmlite import ir

from codegen.emit.llvm_regs import Coord, Shape
from codegen.emit.llvm_transpose import alternate, concatenate, lanes_between, transpose
from dsl.dim import Term, Var, as_term

_LEAST = 2  # a smaller block is as well gathered


@dataclass(frozen=True)
class Turn:
    """Two register shapes of one tile, and the side of the square blocks in which one is transposed into the other.

    Attributes:
        registers: lanes along the axis that the program computes along.
        memory: lanes along ``contiguous``, in vectors of ``block`` elements; the program's lane axis is its last unrolled one.
        contiguous: the axis in which memory is contiguous.
    """

    registers: Shape
    memory: Shape
    contiguous: Var
    block: int

    @staticmethod
    def of(offset: Term, shape: Shape) -> Turn | None:
        """How to turn a tile at an element offset; None when its lanes are contiguous already or nothing else is."""
        lane = shape.lane
        if lane is None or lane not in offset.vars or offset.coef(lane) in (1, -1) or shape.width & (shape.width - 1):
            return None
        axis = next((v for v in shape.unrolled if offset.coef(v) == 1), None)
        block = 1 if axis is None else _common_power(axis.size, shape.width)
        if axis is None or block < _LEAST:
            return None
        others = tuple(v for v in shape.unrolled if v is not axis)
        return Turn(shape, Shape((*others, lane), axis, block, axis.size // block), axis, block)

    def exchange(self, b: ir.IRBuilder, rows: dict[Coord, ir.Value]) -> dict[Coord, ir.Value]:
        """Registers of the memory shape to those of the register shape."""
        out: dict[Coord, ir.Value] = {}
        width, groups = self.registers.width, self.registers.width // self.block
        for others, chunk, at in self._blocks():
            columns = [transpose(b, [rows[(*others, chunk * width + g * self.block + n, at)] for n in range(self.block)])
                       for g in range(groups)]
            for n in range(self.block):
                out[self._coord(others, at * self.block + n, chunk)] = concatenate(b, [c[n] for c in columns])
        return out

    def restore(self, b: ir.IRBuilder, regs: dict[Coord, ir.Value]) -> dict[Coord, ir.Value]:
        """Registers of the register shape to those of the memory shape."""
        out: dict[Coord, ir.Value] = {}
        width, groups = self.registers.width, self.registers.width // self.block
        for others, chunk, at in self._blocks():
            block = [regs[self._coord(others, at * self.block + n, chunk)] for n in range(self.block)]
            for g in range(groups):
                for n, v in enumerate(transpose(b, [lanes_between(b, v, g * self.block, self.block) for v in block])):
                    out[(*others, chunk * width + g * self.block + n, at)] = v
        return out

    def _blocks(self) -> list[tuple[Coord, int, int]]:
        """(coordinate of the other unrolled axes, chunk of lanes, block along the contiguous axis)."""
        others = itertools.product(*(range(v.size) for v in self.memory.unrolled[:-1]))
        return [(o, c, at) for o in others for c in range(self.registers.chunks) for at in range(self.memory.chunks)]

    def _coord(self, others: Coord, n: int, chunk: int) -> Coord:
        rest = iter(others)
        return (*(n if v is self.contiguous else next(rest) for v in self.registers.unrolled), chunk)


@dataclass(frozen=True)
class Interleave:
    """Registers whose lanes alternate in memory: ``terms`` neighbours along ``axis`` lie between one lane and the next."""

    shape: Shape
    axis: Var
    terms: int

    @staticmethod
    def of(offset: Term, shape: Shape) -> Interleave | None:
        """How the registers of a tile at an element offset interleave; None when they do not."""
        terms = offset.coef(shape.lane) if shape.lane is not None else None
        if terms is None or terms not in (2, 3, 4):
            return None
        for axis in shape.unrolled:
            at = [offset.subs({axis: as_term(n)}) for n in range(axis.size)]
            if axis.size % terms == 0 and all(at[n] - at[n - n % terms] == n % terms for n in range(axis.size)):
                return Interleave(shape, axis, terms)
        return None

    def join(self, b: ir.IRBuilder, offset: Term, regs: dict[Coord, ir.Value]) -> list[tuple[Term, ir.Value]]:
        """(offset, register) of the whole runs of memory that the registers make up."""
        place = self.shape.unrolled.index(self.axis)
        out = []
        for coord in regs:
            if coord[place] % self.terms == 0:
                parts = [regs[(*coord[:place], coord[place] + n, *coord[place + 1:])] for n in range(self.terms)]
                assert self.shape.lane is not None
                env = {v: as_term(n) for v, n in zip(self.shape.unrolled, coord)} | {self.shape.lane: as_term(coord[-1] * self.shape.width)}
                out.append((offset.subs(env), alternate(b, parts)))
        return out


def _common_power(a: int, b: int) -> int:
    """The largest power of two that divides both."""
    both = a | b
    return both & -both


__all__ = ["Interleave", "Turn"]
