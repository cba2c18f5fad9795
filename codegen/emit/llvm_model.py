"""Dot instructions in software: what each computes, spelled out in plain vector operations.

For machines without them, so that schedules, packing, edges and loops made for an instruction can be run and held against the oracle
anywhere. Tile registers are memory. The order of the sums, and what the processor does with denormals, are not the instruction's.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_ops import emit_op
from codegen.emit.llvm_types import I8, I64, PTR, alloca, convert, counted, lane_numbers, scalar_type, splat, vector
from codegen.micro.instructions import TILES, DotInstruction
from codegen.micro.tile_block import TileBlock

_SIZE = TILES.rows * TILES.row_bytes


def spell_dot(b: Builder, d: DotInstruction, acc: ir.Value, rows: ir.Value, lanes: ir.Value) -> ir.Value:
    """``acc[l] + sum over t of rows[l, t] * lanes[l, t]`` for vectors of the accumulator and of integers as wide as a factor."""
    count = acc.type.count
    for t in range(d.terms):
        picks = lane_numbers(*range(t, d.terms * count, d.terms))
        x, y = (convert(b, b.shuffle_vector(v, v, picks), d.operand, d.result) for v in (rows, lanes))
        acc = emit_op(b, "fma", [x, y, acc], d.result)
    return acc


class SoftwareTiles:
    """Tile registers in a function's stack; the operations of :class:`codegen.emit.llvm_tiles.Registers`."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.memory = alloca(b, ir.ArrayType(I8, TILES.count * _SIZE), 64, "tiles")
        self.block: TileBlock | None = None

    def configure(self, block: TileBlock) -> None:
        """Rows and lanes of each register."""
        self.block = block

    def release(self) -> None:
        """Nothing to give back."""

    def zero(self, n: int) -> None:
        """Clear a register."""
        t = vector(I8, TILES.row_bytes)
        for row in range(TILES.rows):
            self.b.store(ir.Constant(t, None), self._at(n, row)).align = 64

    def load(self, n: int, shape: tuple[int, int], source: ir.Value, stride: ir.Value, passing: bool = False) -> None:
        """Rows of memory, ``stride`` bytes apart."""
        self.b.call(_move(self.b.module, shape[1]), [self._at(n), I64(TILES.row_bytes), source, stride, I64(shape[0])])

    def store(self, n: int, shape: tuple[int, int], target: ir.Value, stride: ir.Value) -> None:
        """To rows of memory, ``stride`` bytes apart."""
        self.b.call(_move(self.b.module, shape[1]), [target, stride, self._at(n), I64(TILES.row_bytes), I64(shape[0])])

    def dot(self, acc: int, rows: int, lanes: int) -> None:
        """One product of tiles."""
        assert self.block is not None
        self.b.call(_dot(self.b.module, self.block), [self._at(acc), self._at(rows), self._at(lanes)])

    def _at(self, n: int, row: int = 0) -> ir.Value:
        return self.b.gep(self.memory, [I64(n * _SIZE + row * TILES.row_bytes)], inbounds=True, source_etype=I8)


def _move(module: ir.Module, width: int) -> ir.Function:
    """``(to, distance of its rows, from, distance of its rows, rows)``: a copy of rows of ``width`` bytes."""
    def body(fn: ir.Function, b: Builder) -> None:
        def row(n: ir.Value) -> None:
            p, q = (b.gep(fn.args[k], [b.mul(n, fn.args[k + 1])], source_etype=I8) for k in (2, 0))
            v = b.load(p, typ=vector(I8, width))
            v.align = 1
            b.store(v, q).align = 1
        counted(b, fn.args[4], row)

    return _function(module, f"tile.move.{width}", [PTR, I64, PTR, I64, I64], body)


def _dot(module: ir.Module, block: TileBlock) -> ir.Function:
    """``(accumulator, rows, lanes)``: the product of two tiles, a row and a step at a time."""
    d = block.instruction
    result, element = vector(scalar_type(d.result), block.lanes), scalar_type(d.operand)
    group, whole = ir.IntType(d.terms * d.operand.bits), vector(element, block.lanes * d.terms)

    def body(fn: ir.Function, b: Builder) -> None:
        def at(p: ir.Value, row: ir.Value, byte: ir.Value) -> ir.Value:
            return b.gep(p, [b.add(b.mul(row, I64(TILES.row_bytes)), byte)], source_etype=I8)

        def row(r: ir.Value) -> None:
            def step(s: ir.Value) -> None:
                acc = b.load(at(fn.args[0], r, I64(0)), typ=result)
                one = b.load(at(fn.args[1], r, b.mul(s, I64(group.width // 8))), typ=group)
                lanes = b.load(at(fn.args[2], s, I64(0)), typ=whole)
                b.store(spell_dot(b, d, acc, b.bitcast(splat(b, one, block.lanes), whole), lanes), at(fn.args[0], r, I64(0))).align = 4
                for v in (acc, one, lanes):
                    v.align = 4
            counted(b, I64(block.steps), step)
        counted(b, I64(block.rows), row)

    return _function(module, f"{d.name}.{block.rows}.{block.lanes}.{block.steps}", [PTR, PTR, PTR], body)


def _function(module: ir.Module, name: str, arguments: list[ir.Type], body: Callable[[ir.Function, Builder], None]) -> ir.Function:
    if name not in module.globals:
        fn = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
        fn.linkage = "internal"
        b = Builder(fn.append_basic_block("entry"))
        body(fn, b)
        b.ret_void()
    return module.globals[name]
