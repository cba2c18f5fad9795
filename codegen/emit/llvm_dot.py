"""Dots on a CPU: by an instruction whose operands lie in memory as it wants them, else one element at a time."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from codegen.emit.dot_match import DotMatch, Factor
from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_memory import Memory, at_coord
from codegen.emit.llvm_model import spell_dot
from codegen.emit.llvm_ops import emit_op
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_types import convert, intrinsic, named_type, scalar_type, splat, vector
from codegen.tile.ir import Buffer, Dot, Value
from dsl.dim import Term, Var, as_term

ShapeOf = Callable[[tuple[Var, ...]], Shape]


def emit_vector_dot(b: Builder, memory: Memory, op: Dot, tiles: dict[Value, Tile], out: Shape, m: DotMatch, modelled: bool) -> Tile:
    """The tile of ``acc + a . b``, one instruction (or what it means) a register; each operand is loaded once."""
    d = m.instruction
    element = scalar_type(d.operand) if modelled else named_type(d.element)
    whole, group = vector(element, d.lanes * d.terms), ir.IntType(d.operand.bits * d.terms)
    memo: dict[tuple[Buffer, Term], ir.Value] = {}

    def load(x: Factor, at: Term, t: ir.Type) -> ir.Value:
        if (x.buffer, at) not in memo:
            v = b.load(memory.pointer(x.buffer, at), typ=t)
            v.align = x.buffer.dtype.itemsize
            memo[x.buffer, at] = v if t is whole else b.bitcast(splat(b, v, d.lanes), whole)
        return memo[x.buffer, at]

    def one(coord: Coord) -> ir.Value:
        here = {m.term: as_term(0), m.lane: as_term(coord[-1] * out.width)}
        x = load(m.lanes, at_coord(m.lanes.offset, out, coord).subs(here), whole)
        y = load(m.rows, at_coord(m.rows.offset, out, coord).subs(here), group)
        acc = tiles[op.acc].at(b, out, coord)
        if modelled:
            return spell_dot(b, d, acc, y, x)
        return intrinsic(b, d.intrinsic, acc.type, [acc, y, x]) if d.adds else b.add(acc, intrinsic(b, d.intrinsic, acc.type, [y, x]))

    return Tile(out, op.results[0].dtype, {coord: one(coord) for coord in out.coords()})


def emit_dot_by_elements(b: Builder, op: Dot, tiles: dict[Value, Tile], shape_of: ShapeOf) -> Tile:
    """Multiply-accumulate over the contracted axes, one element at a time."""
    r = op.results[0]
    out = shape_of(r.axes)
    a, c, acc = (tiles[v] for v in (op.a, op.b, op.acc))
    wide = shape_of(tuple(sorted({*r.axes, *op.axes}, key=lambda v: v.uid)))
    if wide.lane is not out.lane:  # the lanes are contracted: they are taken one by one
        wide = Shape((*out.unrolled, *op.axes), out.lane, out.width, out.chunks)
    regs = {coord: acc.at(b, out, coord) for coord in out.coords()}
    for coord in wide.coords():
        env = dict(zip(wide.unrolled, coord))
        key = (*(env[v] for v in out.unrolled), coord[-1])
        x, y = (convert(b, t.at(b, wide, coord), t.dtype, r.dtype) for t in (a, c))
        regs[key] = emit_op(b, "fma", [splat(b, x, wide.width), splat(b, y, wide.width), regs[key]], r.dtype)
    return Tile(out, r.dtype, regs)
