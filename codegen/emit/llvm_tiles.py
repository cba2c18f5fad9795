"""Dots on tile registers: accumulators that stay in them over whole loops, and the memory their results end in.

What :mod:`codegen.emit.residents` found has no vector registers, and no phi. It is zeroed or loaded before its outermost loop, and stored
after it: straight to where the program stores it, or to the stack where something else is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from llvmlite import ir

from codegen.emit.dot_match import DotMatch, Factor
from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_memory import Memory
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_types import I8, I64, PTR, alloca, counted, intrinsic, scalar_type, vector
from codegen.emit.residents import Resident, element_offset
from codegen.micro.tile_block import TileBlock
from codegen.tile.ir import Broadcast, Const, Dot, Load, Store, TileOp, Value
from dsl.dim import Var, as_term, product
from dsl.dtype import Dtype

_KEPT = 16 << 10  # bytes of a factor that are left in the nearest cache beside a panel of the other
Move = Callable[[int, tuple[int, int], ir.Value, ir.Value], None]
_I8 = ir.IntType(8)


class Registers(Protocol):
    """The tile registers of a function."""

    def configure(self, block: TileBlock) -> None:
        """Say how many rows each has, and how long they are."""

    def release(self) -> None:
        """Leave them as they were found."""

    def zero(self, n: int) -> None:
        """Clear one."""

    def load(self, n: int, shape: tuple[int, int], source: ir.Value, stride: ir.Value, passing: bool = False) -> None:
        """Load (rows, bytes of a row) from memory, rows ``stride`` bytes apart; ``passing`` if the nearest cache should not keep them."""

    def store(self, n: int, shape: tuple[int, int], target: ir.Value, stride: ir.Value) -> None:
        """Store to memory."""

    def dot(self, acc: int, rows: int, lanes: int) -> None:
        """One product."""


class HardwareTiles:
    """The processor's; their numbers are part of each instruction."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.block: TileBlock | None = None

    def configure(self, block: TileBlock) -> None:
        """Load a configuration, which clears all of them."""
        self.block = block
        kind = ir.ArrayType(_I8, 64)
        name = f"tiles.{block.rows}.{block.lanes}.{block.steps}.{block.row_tiles}.{block.lane_tiles}.{block.instruction.name}"
        if name not in self.b.module.globals:
            made = ir.GlobalVariable(self.b.module, kind, name)
            made.global_constant, made.linkage, made.align = True, "internal", 64
            made.initializer = ir.Constant(kind, bytearray(block.configuration()))
        place = self.b.gep(self.b.module.globals[name], [I64(0)], source_etype=kind)
        place.type = PTR
        intrinsic(self.b, "llvm.x86.ldtilecfg", ir.VoidType(), [place])

    def release(self) -> None:
        """Other code pays for registers in use whenever threads are switched."""
        intrinsic(self.b, "llvm.x86.tilerelease", ir.VoidType(), [])

    def zero(self, n: int) -> None:
        """Clear one."""
        intrinsic(self.b, "llvm.x86.tilezero", ir.VoidType(), [_I8(n)])

    def load(self, n: int, shape: tuple[int, int], source: ir.Value, stride: ir.Value, passing: bool = False) -> None:
        """Load one; its shape is in the configuration."""
        intrinsic(self.b, f"llvm.x86.tileload{'dt1' if passing else 'd'}64", ir.VoidType(), [_I8(n), source, stride])

    def store(self, n: int, shape: tuple[int, int], target: ir.Value, stride: ir.Value) -> None:
        """Store one."""
        intrinsic(self.b, "llvm.x86.tilestored64", ir.VoidType(), [_I8(n), target, stride])

    def dot(self, acc: int, rows: int, lanes: int) -> None:
        """One product."""
        assert self.block is not None
        intrinsic(self.b, self.block.instruction.intrinsic, ir.VoidType(), [_I8(acc), _I8(rows), _I8(lanes)])


class Rows(dict[Coord, ir.Value]):
    """The registers of a tile that lies in memory row by row, each loaded where it is used."""

    def __init__(self, b: Builder, place: ir.Value, shape: Shape, dtype: Dtype, pitch: int) -> None:
        super().__init__()
        self.b, self.place, self.shape, self.dtype, self.pitch = b, place, shape, dtype, pitch

    def __missing__(self, coord: Coord) -> ir.Value:
        at = I64(sum(n * self.pitch for n in coord[:-1]) + coord[-1] * self.shape.width)
        p = self.b.gep(self.place, [at], inbounds=True, source_etype=scalar_type(self.dtype))
        v = self.b.load(p, typ=vector(scalar_type(self.dtype), self.shape.width))
        v.align = self.dtype.itemsize
        return v


class TileDots:
    """The dots of one phase that run on tile registers.

    Args:
        b: the function's builder, in its entry block.
        registers: the processor's tiles, or their model.
        memory: addresses.
        residents: of :func:`codegen.emit.residents.find_residents`.
        shape_of: how a tile with given axes lies in vector registers.
    """

    def __init__(self, b: Builder, registers: Registers, memory: Memory, residents: list[Resident],
                 shape_of: Callable[[tuple[Var, ...]], Shape]) -> None:
        self.b, self.registers, self.memory, self.shape_of = b, registers, memory, shape_of
        self.residents = residents
        self.of = {v: r for r in residents for v in r.values}
        self.parked = {r: alloca(b, ir.ArrayType(I8, _bytes(r)), 64, "results") for r in residents}
        shapes = {r.match.block for r in residents}
        self.fixed = len(shapes) == 1
        if self.fixed and residents:
            self.registers.configure(_block(residents[0]))

    def holds(self, v: Value) -> bool:
        """Whether a value stays in tile registers."""
        return v in self.of

    def enter(self, into: Value, init: Value, tiles: Mapping[Value, Tile]) -> None:
        """Bring the first value of an accumulator into its registers, where it comes from elsewhere."""
        r, block = self.of[into], _block(self.of[into])
        if init in r.values:
            return
        if not self.fixed:
            self.registers.configure(block)
        if _is_zero(init):
            self._clear(block)
            return
        if init.op in r.fetched:
            self._load(r, init.op)
            return
        self._write(r, tiles[init])
        self._each(r, self.registers.load, self.parked[r], I64(_pitch(r)))

    def fetches(self, op: Load) -> bool:
        """Whether a load is made when its accumulator is entered."""
        return any(op in r.fetched for r in self.residents)

    def multiply(self, op: Dot, tiles: Mapping[Value, Tile]) -> None:
        """One step of an accumulator."""
        self.enter(op.results[0], op.acc, tiles)
        self._products(self.of[op.results[0]])

    def leave(self, v: Value) -> Tile | None:
        """The value as vectors, when it is finished and something other than a store takes it; None else."""
        r = self.of[v]
        return self._park(r) if v in r.finished and v not in r.stored else None

    def store(self, op: Store) -> None:
        """Write a resident to memory, masked rows and lanes aside."""
        r = self.of[op.value]
        if not op.mask:
            self._move(r, self.registers.store, op)
            return
        whole = self.memory.whole(op.mask, self.shape_of(op.value.axes))
        if whole is None:
            self._masked(r, op)
            return
        with self.b.if_else(whole) as (inside, edge):
            with inside:
                self._move(r, self.registers.store, op)
            with edge:
                self._masked(r, op)

    def finish(self) -> None:
        """Give the registers back, at the end of the function."""
        self.registers.release()

    def _clear(self, block: TileBlock) -> None:
        for n in range(block.accumulators):
            self.registers.zero(n)

    def _load(self, r: Resident, op: TileOp | None) -> None:
        assert isinstance(op, Load)
        some = self.memory.mask(op.mask, [], Shape((), None, 0, 1), (0,))
        if some is None:
            self._move(r, self.registers.load, op)
            return
        with self.b.if_else(some) as (inside, outside):
            with inside:
                self._move(r, self.registers.load, op)
            with outside:
                self._clear(_block(r))

    def _masked(self, r: Resident, op: Store) -> None:
        """Row by row from the stack, each under its mask."""
        m, dtype = r.match, r.match.instruction.result
        assert m.row is not None
        self._each(r, self.registers.store, self.parked[r], I64(_pitch(r)))
        row, shape, terms = m.row, self.shape_of((m.lane,)), self.memory.terms

        def one(n: ir.Value) -> None:
            terms.enter({row: n})
            place = self.b.gep(self.parked[r], [self.b.mul(n, I64(_pitch(r)))], inbounds=True, source_etype=I8)
            self.memory.store_masked(op, op.mask, shape, {op.value: Tile(shape, dtype, Rows(self.b, place, shape, dtype, 0))})
            terms.leave()

        counted(self.b, I64(row.size), one)
        del terms.scalars[row]

    def _move(self, r: Resident, move: Move, op: Store | Load) -> None:
        """Load or store every accumulator where the program does."""
        offset, m, size = element_offset(op), r.match, op.buffer.dtype.itemsize
        assert offset is not None and m.row is not None
        stride = offset.coef_term(m.row)
        assert stride is not None
        base = self.memory.pointer(op.buffer, offset.subs({m.row: as_term(0), m.lane: as_term(0)}))
        self._each(r, move, base, self.memory.terms.scalar(stride * size))

    def _park(self, r: Resident) -> Tile:
        """The registers' contents on the stack, to be loaded as vectors."""
        self._each(r, self.registers.store, self.parked[r], I64(_pitch(r)))
        m, dtype = r.match, r.match.instruction.result
        assert m.row is not None
        shape = self.shape_of((m.row, m.lane))
        return Tile(shape, dtype, Rows(self.b, self.parked[r], shape, dtype, m.lane.size))

    def _write(self, r: Resident, source: Tile) -> None:
        """Vectors to the stack."""
        m, dtype = r.match, r.match.instruction.result
        assert m.row is not None
        shape = self.shape_of((m.row, m.lane))
        for coord in shape.coords():
            at = I64(coord[0] * m.lane.size + coord[1] * shape.width)
            p = self.b.gep(self.parked[r], [at], inbounds=True, source_etype=scalar_type(dtype))
            self.b.store(source.at(self.b, shape, coord), p).align = dtype.itemsize

    def _each(self, r: Resident, move: Move, base: ir.Value, stride: ir.Value) -> None:
        """Move every accumulator to or from rows of memory ``stride`` bytes apart."""
        block, size = _block(r), r.match.instruction.result.itemsize
        for row in range(block.row_tiles):
            start = base if row == 0 else self.b.gep(base, [self.b.mul(stride, I64(row * block.rows))], source_etype=I8)
            for lane in range(block.lane_tiles):
                p = start if lane == 0 else self.b.gep(start, [I64(lane * block.lanes * size)], source_etype=I8)
                move(block.accumulator(row, lane), (block.rows, block.lanes * size), p, stride)

    def _products(self, r: Resident) -> None:
        """The dots of one step; every tile of a factor is loaded once."""
        block, m = _block(r), r.match
        d = block.instruction
        size = d.operand.itemsize
        rows, lanes = (block.rows, block.steps * d.terms * size), (block.steps, block.lanes * d.terms * size)
        for row, lane, a, c, load_row, load_lane in block.products():
            if load_row:
                place, apart = self._address(m, m.rows, row * block.rows, 0), self._stride(m.rows, m.row, size)
                self.registers.load(a, rows, place, apart, _passes(m.rows))
            if load_lane:
                self.registers.load(c, lanes, self._address(m, m.lanes, 0, lane * block.lanes), self._stride(m.lanes, m.step, size))
            self.registers.dot(block.accumulator(row, lane), a, c)

    def _address(self, m: DotMatch, f: Factor, row: int, lane: int) -> ir.Value:
        env = {m.lane: as_term(lane), m.term: as_term(0)} | ({m.row: as_term(row)} if m.row is not None else {})
        return self.memory.pointer(f.buffer, f.offset.subs(env | ({m.step: as_term(0)} if m.step is not None else {})))

    def _stride(self, f: Factor, axis: Var | None, size: int) -> ir.Value:
        if axis is None:
            return I64(0)
        step = f.offset.coef_term(axis)
        assert step is not None
        return self.memory.terms.scalar(step * size)


def _passes(f: Factor) -> bool:
    """Whether a factor is too large for the nearest cache: panels of the other one stay there, and this one goes by."""
    size = product(f.buffer.shape) * f.buffer.dtype.itemsize
    return not size.is_const or size.const > _KEPT


def _block(r: Resident) -> TileBlock:
    assert r.match.block is not None
    return r.match.block


def _pitch(r: Resident) -> int:
    """Bytes between rows of an accumulator on the stack."""
    return r.match.lane.size * r.match.instruction.result.itemsize


def _bytes(r: Resident) -> int:
    assert r.match.row is not None
    return r.match.row.size * _pitch(r)


def _is_zero(v: Value) -> bool:
    while isinstance(v.op, Broadcast):
        v = v.op.value
    return isinstance(v.op, Const) and v.op.value == 0
