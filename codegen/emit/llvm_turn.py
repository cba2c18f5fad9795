"""Tiles whose lanes run across memory.

Which axis memory is contiguous in, and the shuffles between registers along it and along the lanes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_regs import Coord, Shape
from codegen.emit.llvm_transpose import alternate, concatenate, lanes_between, transpose
from dsl.dim import Term, Var, as_term

NEAR = 4  # up to this distance between elements, loading all that lies between them is quicker than gathering them
_LEAST = 2  # a smaller block is as well gathered
_OVERLAPS = 4  # least length of runs that may overlap


@dataclass(frozen=True)
class Turn:
    """Two register shapes of a run of one tile, and the side of the square blocks in which one is transposed into the other.

    Attributes:
        registers: lanes along the axis that the program computes along, of the whole tile.
        memory: lanes along ``contiguous``, one vector of ``block`` elements; the program's lane axis is its last unrolled one.
        contiguous: the axis in which memory is contiguous.
        first: where along it the run begins.
    """

    registers: Shape
    memory: Shape
    contiguous: Var
    first: int
    block: int

    @staticmethod
    def of(offset: Term, shape: Shape) -> list[Turn]:
        """How to turn a tile at an element offset, run by run; none when its lanes are contiguous already or nothing else is."""
        lane = shape.lane
        if lane is None or lane not in offset.vars or offset.coef(lane) in (1, -1) or shape.width & (shape.width - 1):
            return []
        axis = next((v for v in shape.unrolled if offset.coef(v) == 1), None)
        if axis is None:
            return []
        others, step = tuple(v for v in shape.unrolled if v is not axis), offset.coef(lane)
        runs = _runs(axis.size, shape.width, step is not None and 1 < step <= NEAR)
        return [Turn(shape, Shape((*others, lane), axis, block, 1), axis, first, block) for first, block in runs]

    def seen(self, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        """Terms of the tile as those of the run."""
        return tuple(t.subs({self.contiguous: as_term(self.contiguous) + self.first}) for t in terms) if self.first else terms

    def exchange(self, b: Builder, rows: dict[Coord, ir.Value]) -> dict[Coord, ir.Value]:
        """Registers of the memory shape to those of the register shape."""
        out: dict[Coord, ir.Value] = {}
        width, groups = self.registers.width, self.registers.width // self.block
        for others, chunk in self._blocks():
            columns = [transpose(b, [rows[(*others, chunk * width + g * self.block + n, 0)] for n in range(self.block)])
                       for g in range(groups)]
            for n in range(self.block):
                out[self._coord(others, self.first + n, chunk)] = concatenate(b, [c[n] for c in columns])
        return out

    def restore(self, b: Builder, regs: dict[Coord, ir.Value]) -> dict[Coord, ir.Value]:
        """Registers of the register shape to those of the memory shape."""
        out: dict[Coord, ir.Value] = {}
        width, groups = self.registers.width, self.registers.width // self.block
        for others, chunk in self._blocks():
            block = [regs[self._coord(others, self.first + n, chunk)] for n in range(self.block)]
            for g in range(groups):
                for n, v in enumerate(transpose(b, [lanes_between(b, v, g * self.block, self.block) for v in block])):
                    out[(*others, chunk * width + g * self.block + n, 0)] = v
        return out

    def _blocks(self) -> list[tuple[Coord, int]]:
        """(coordinate of the other unrolled axes, chunk of lanes)."""
        others = itertools.product(*(range(v.size) for v in self.memory.unrolled[:-1]))
        return [(o, c) for o in others for c in range(self.registers.chunks)]

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

    def join(self, b: Builder, offset: Term, regs: dict[Coord, ir.Value],
             masks: dict[Coord, ir.Value]) -> list[tuple[Term, ir.Value, ir.Value | None]]:
        """(offset, register, mask) of the whole runs of memory that the registers make up; those without a mask are stored whole."""
        place = self.shape.unrolled.index(self.axis)
        out = []
        for coord in regs:
            if coord[place] % self.terms == 0:
                sides = [(*coord[:place], coord[place] + n, *coord[place + 1:]) for n in range(self.terms)]
                where = alternate(b, [masks[c] for c in sides]) if sides[0] in masks else None
                assert self.shape.lane is not None
                env = {v: as_term(n) for v, n in zip(self.shape.unrolled, coord)} | {self.shape.lane: as_term(coord[-1] * self.shape.width)}
                out.append((offset.subs(env), alternate(b, [regs[c] for c in sides]), where))
        return out


def _runs(size: int, width: int, near: bool) -> list[tuple[int, int]]:
    """(start, length) of runs of powers of two that cover an axis; the last may overlap the one before it.

    Where lanes are ``near`` each other, whole vectors and shuffles are as good as runs that do not divide the axis.
    """
    block = min(1 << size.bit_length() - 1, width)
    if size % block and (near or block < _OVERLAPS):
        block = (size | width) & -(size | width)
    whole, rest = size // block * block, size % block
    last = [(size - max(_LEAST, 1 << (rest - 1).bit_length()), max(_LEAST, 1 << (rest - 1).bit_length()))] if rest else []
    return [(n, block) for n in range(0, whole, block)] + last if block >= _LEAST else []


__all__ = ["NEAR", "Interleave", "Turn"]
