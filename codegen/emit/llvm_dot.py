"""Dots on a CPU: by an instruction whose operands lie in memory as it wants them, else one element at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llvmlite import ir

from codegen.emit.llvm_memory import Memory, at_coord
from codegen.emit.llvm_ops import emit_op
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_types import convert, intrinsic, named_type, splat, vector
from codegen.micro.instructions import DotInstruction, dot_instruction
from codegen.tile.ir import Buffer, Dot, Load, Value
from dsl.dim import Term, Var, as_term

ShapeOf = Callable[[tuple[Var, ...]], Shape]


@dataclass(frozen=True)
class _Operand:
    """A factor that an instruction can take straight from memory: its terms side by side, at an element offset."""

    buffer: Buffer
    offset: Term


def emit_dot(b: ir.IRBuilder, memory: Memory, op: Dot, tiles: dict[Value, Tile], shape_of: ShapeOf, features: Iterable[str]) -> Tile:
    """The tile of ``acc + a . b``."""
    out = shape_of(op.results[0].axes)
    found = _instruction(memory, op, out, features)
    return _by_elements(b, op, tiles, shape_of, out) if found is None else _by_instruction(b, memory, op, tiles, out, *found)


def _instruction(memory: Memory, op: Dot, out: Shape, features: Iterable[str]) -> tuple[DotInstruction, _Operand, _Operand] | None:
    """(instruction, factor along the lanes, factor that all lanes share) when one fits the dot and where its operands lie."""
    if out.lane is None or len(op.axes) != 1 or op.a.dtype != op.b.dtype:
        return None
    found = dot_instruction(features, op.a.dtype, op.acc.dtype, out.width)
    if found is None or op.axes[0].size != found.terms:
        return None
    lanes, rows = (op.a, op.b) if out.lane in op.a.axes else (op.b, op.a)
    x, y = (_operand(memory, v, op.axes[0]) for v in (lanes, rows))
    if x is None or y is None or x.offset.coef(out.lane) != found.terms or out.lane in y.offset.vars:
        return None
    return found, x, y


def _operand(memory: Memory, v: Value, axis: Var) -> _Operand | None:
    """The memory a value was loaded from, whole and with ``axis`` contiguous."""
    load = v.op
    if not isinstance(load, Load) or load.mask or load.conds:
        return None
    offset = memory.offset(load.buffer, load.indices)
    return _Operand(load.buffer, offset) if offset is not None and offset.coef(axis) == 1 else None


def _by_instruction(b: ir.IRBuilder, memory: Memory, op: Dot, tiles: dict[Value, Tile], out: Shape,
                    d: DotInstruction, lanes: _Operand, rows: _Operand) -> Tile:
    """One instruction a register; each operand is loaded once."""
    element = named_type(d.element)
    whole = vector(element, d.lanes * d.terms)
    group = ir.IntType(d.operand.bits * d.terms)
    memo: dict[tuple[Buffer, Term], ir.Value] = {}

    def load(x: _Operand, at: Term, t: ir.Type) -> ir.Value:
        if (x.buffer, at) not in memo:
            v = b.load(memory.pointer(x.buffer, at), typ=t)
            v.align = x.buffer.dtype.itemsize
            memo[x.buffer, at] = v if t is whole else b.bitcast(splat(b, v, d.lanes), whole)
        return memo[x.buffer, at]

    def one(coord: Coord) -> ir.Value:
        assert out.lane is not None
        here = {op.axes[0]: as_term(0), out.lane: as_term(coord[-1] * out.width)}
        x = load(lanes, at_coord(lanes.offset, out, coord).subs(here), whole)
        y = load(rows, at_coord(rows.offset, out, coord).subs(here), group)
        acc = tiles[op.acc].at(b, out, coord)
        return intrinsic(b, d.intrinsic, acc.type, [acc, y, x])

    return Tile(out, op.results[0].dtype, {coord: one(coord) for coord in out.coords()})


def _by_elements(b: ir.IRBuilder, op: Dot, tiles: dict[Value, Tile], shape_of: ShapeOf, out: Shape) -> Tile:
    """Multiply-accumulate over the contracted axes, one element at a time."""
    r = op.results[0]
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
