"""One phase of a tile program as an LLVM function: arguments, the share of the grid, loops, and every operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from codegen.analysis.balance import growth
from codegen.emit.dot_match import DotMatch, match_dot, operand_loads
from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_dot import emit_dot_by_elements, emit_vector_dot
from codegen.emit.llvm_grid import CONTEXT, deal, place, run
from codegen.emit.llvm_loop import Counter, emit_loop
from codegen.emit.llvm_memory import ZEROS, Memory, find_updated
from codegen.emit.llvm_model import SoftwareTiles
from codegen.emit.llvm_ops import emit_map
from codegen.emit.llvm_reduce import emit_reduce, emit_scan
from codegen.emit.llvm_regs import Coord, Shape, Tile, lanes_of_phase, make, shape_of
from codegen.emit.llvm_terms import Terms, iota_tile
from codegen.emit.llvm_tiles import HardwareTiles, TileDots
from codegen.emit.llvm_types import I1, I8, I32, I64, PTR, alloca, constant, intrinsic, splat
from codegen.emit.residents import find_residents
from codegen.emit.word_copies import find_word_copies
from codegen.tile import ir as tile
from codegen.tile.ir import Buffer, Phase, TileProgram, Value
from dsl.dim import ZERO, Term, Var, nonneg, product
from dsl.dtype import bool_
from dsl.loc import UNKNOWN, Loc

BODY = ir.FunctionType(ir.VoidType(), [PTR, I64, I64])  # (context, thread, threads)


@dataclass(frozen=True)
class _Carried:
    """The values that a loop carries in vector registers: before it, at the start and end of each iteration, after it; their shapes."""

    inits: list[Value]
    params: list[Value]
    yields: list[Value]
    results: list[Value]
    shapes: list[Shape]

    @staticmethod
    def of(op: tile.For, places: list[int], shape: Callable[[tuple[Var, ...]], Shape]) -> _Carried:
        """Those at some places of the loop's lists."""
        inits, params, yields, results = ([values[n] for n in places] for values in (op.inits, op.body.params, op.body.yields, op.results))
        return _Carried(inits, params, yields, results, [shape(v.axes) for v in inits])


def scratch_bytes(b: Buffer) -> Term:
    """Bytes of a scratch buffer, rounded up to cache lines with one line spare."""
    return (product(b.shape) * b.dtype.itemsize + 63) // 64 * 64 + 64


class PhaseEmitter:
    """Emits one phase as ``void body(ptr context, i64 thread, i64 threads)``.

    ``private`` is the bytes of scratch that each thread has outside the stack, zero where the stack holds it; the dot instructions of the
    sets ``modelled`` are spelled out in others.
    """

    def __init__(self, module: ir.Module, program: TileProgram, phase: Phase, vector_bits: int, features: tuple[str, ...], private: Term,
                 places: bool = False, modelled: tuple[str, ...] = ()) -> None:
        self.program, self.phase, self.private = program, phase, private
        self.register, self.width = vector_bits // 8, lanes_of_phase(phase, vector_bits)
        self.modelled, self.dot_sets = modelled, (*features, *modelled)
        self.words = find_word_copies(phase.body)
        self.taken = operand_loads(phase.body, self._match) | {v.op for op in self.words for v in op.operands() if v.op is not None}
        self.fn = ir.Function(module, BODY, f"{program.name}.{phase.name}")
        self.fn.linkage = "internal"
        self.b = Builder(self.fn.append_basic_block("entry"), features)
        self.places, self.last = places, ""
        self.tiles: dict[Value, Tile] = {}
        self.pointers: dict[Buffer, ir.Value] = {}
        self.terms = Terms(self.b)
        self.scalars = self.terms.scalars

    def emit(self) -> ir.Function:
        """The finished function."""
        self._arguments()
        grid = self.phase.grid
        if not grid:
            self.block(self.phase.body)
        else:
            self._grid()
        if self.units is not None:
            self.units.finish()
        if any(isinstance(op, tile.Store) and op.streaming for op in tile.walk_ops(self.phase.body)):
            self.b.fence("seq_cst")  # stores past the caches are seen by the others before the phase ends
        self.b.ret_void()
        return self.fn

    def _arguments(self) -> None:
        """Buffer addresses, sizes, private memory."""
        b = self.b
        args = b.load(self.fn.args[0], typ=PTR)
        for n, buffer in enumerate(self.program.buffers):
            p = b.load(b.gep(args, [I32(n)], source_etype=PTR), typ=PTR, name=buffer.name)
            self.pointers[buffer] = p
        sizes = {v: b.load(b.gep(args, [I32(n)], source_etype=PTR), typ=I64, name=v.name)
                 for n, v in enumerate(self.program.sizes, len(self.program.buffers))}
        self.error = b.gep(self.fn.args[0], [I32(0), I32(2)], source_etype=CONTEXT)
        zero = alloca(b, ir.ArrayType(I8, ZEROS), 64)
        b.store(ir.Constant(ir.ArrayType(I8, ZEROS), None), zero)
        self.terms.enter(sizes)
        self._scratch()
        self.terms.leave()
        self.terms.enter(sizes)  # anew, where the buffers have addresses
        self.memory = Memory(b, self.terms, self.pointers, zero, self.register, find_updated(b, self.phase, self.pointers))
        self.units = self._tiles()

    def _tiles(self) -> TileDots | None:
        """The tile registers, where a dot of the phase runs on them."""
        residents = find_residents(self.phase.body, self._match)
        if not residents:
            return None
        model = any(r.match.instruction.feature in self.modelled for r in residents)
        return TileDots(self.b, SoftwareTiles(self.b) if model else HardwareTiles(self.b), self.memory, residents, self.shape)

    def _match(self, op: tile.Dot) -> DotMatch | None:
        return match_dot(op, self.shape(op.results[0].axes), self.dot_sets)

    def _scratch(self) -> None:
        b = self.b
        if self.private != 0:
            start = b.load(b.gep(self.fn.args[0], [I32(0), I32(1)], source_etype=CONTEXT), typ=PTR)
            start = b.gep(start, [b.mul(self.fn.args[1], self.terms.scalar(self.private))], source_etype=I8)
        at = ZERO
        for buffer in self.phase.scratch:
            if self.private != 0:
                self.pointers[buffer] = b.gep(start, [self.terms.scalar(at)], source_etype=I8)
            else:
                self.pointers[buffer] = alloca(b, ir.ArrayType(I8, scratch_bytes(buffer).const), 64, buffer.name)
            at = at + scratch_bytes(buffer)

    def _grid(self) -> None:
        """A share of the grid points: a run of them, or where they have unequal work one after another."""
        b, phase, (context, thread, threads) = self.b, self.phase, self.fn.args
        axes = [(v, self.terms.scalar(e)) for v, e in phase.grid]
        total: ir.Value = I64(1)
        for _, n in axes:
            total = b.mul(total, n)

        def body(point: Counter, _: list[ir.Value]) -> list[ir.Value]:
            self._within(place(b, point.value, axes, phase.group), phase.body)
            return []

        grows = 0 if phase.group else growth(phase)
        if grows:
            deal(b, context, total, threads, grows > 0, lambda lo, hi: emit_loop(b, "point", lo, hi, [], body, True))
        else:
            emit_loop(b, "point", *run(b, total, thread, threads), [], body, False)

    # -- operations --------------------------------------------------------------------------------------------
    def block(self, block: tile.Block) -> None:
        """Every operation of a block."""
        for op in block.ops:
            if self.places:
                self._cite(op.loc)
            getattr(self, f"op_{type(op).__name__.lower()}")(op)

    def _cite(self, loc: Loc | None) -> None:
        """A comment with the user's line, where it is another than before."""
        text = "" if loc is None or loc is UNKNOWN else f"{loc}: {loc.text.strip()}"
        if text and text != self.last:
            self.b.comment(text)
            self.last = text

    def shape(self, axes: tuple[Var, ...]) -> Shape:
        """How a tile with these axes lies in registers."""
        return shape_of(axes, self.program.lanes, self.width)

    def op_const(self, op: tile.Const) -> None:
        """A literal."""
        r = op.results[0]
        self.tiles[r] = Tile(self.shape(()), r.dtype, {(0,): constant(op.value, r.dtype)})

    def op_iota(self, op: tile.Iota) -> None:
        """Index values."""
        r = op.results[0]
        self.tiles[r] = iota_tile(self.terms, op.term, self.shape(r.axes))

    def op_predicate(self, op: tile.Predicate) -> None:
        """Index conditions."""
        r = op.results[0]
        shape = self.shape(r.axes)

        def one(coord: Coord) -> ir.Value:
            m = self.memory.mask(op.terms, [], shape, coord)
            return splat(self.b, m if m is not None else I1(1), shape.width)

        self.tiles[r] = make(shape, bool_, one)

    def op_load(self, op: tile.Load) -> None:
        """A load."""
        r = op.results[0]
        if op not in self.taken and (self.units is None or not self.units.fetches(op)):
            self.tiles[r] = self.memory.load(op, self.shape(r.axes), self.tiles)

    def op_store(self, op: tile.Store) -> None:
        """A store, over the axes of its value and indices."""
        if self.units is not None and self.units.holds(op.value) and op.value not in self.tiles:
            self.units.store(op)
            return
        if (copy := self.words.pop(op, None)) is not None:
            self.pointers |= {words: self.pointers[b] for words, b in copy.views}
            self.op_load(copy.load)
            op = copy.store
        axes = set(op.value.axes)
        for i in (*op.indices, *op.mask):
            axes |= set(i.axes) if isinstance(i, Value) else {v for v in i.vars if _is_tile(v, self.scalars)}
        self.memory.store(op, self.shape(tuple(sorted(axes, key=lambda v: v.uid))), self.tiles)

    def op_map(self, op: tile.Map) -> None:
        """A pointwise operation."""
        r = op.results[0]
        self.tiles[r] = emit_map(self.b, op, [self.tiles[a] for a in op.args], self.shape(r.axes))

    def op_rename(self, op: tile.Rename) -> None:
        """The same registers under other names."""
        r, source = op.results[0], self.tiles[op.value]
        names, shape, own = dict(op.axes), self.shape(r.axes), source.shape
        lane = None if own.lane is None else names.get(own.lane, own.lane)
        seen = Tile(Shape(tuple(names.get(v, v) for v in own.unrolled), lane, own.width, own.chunks), r.dtype, source.regs)
        self.tiles[r] = make(shape, r.dtype, lambda c: seen.at(self.b, shape, c))

    def op_broadcast(self, op: tile.Broadcast) -> None:
        """Registers repeated along more axes."""
        r, source = op.results[0], self.tiles[op.value]
        shape = self.shape(r.axes)
        self.tiles[r] = make(shape, r.dtype, lambda c: source.at(self.b, shape, c))

    def op_reduce(self, op: tile.Reduce) -> None:
        """Combine along axes, in the order :func:`codegen.emit.llvm_reduce.emit_reduce` states."""
        self.tiles.update(zip(op.results, emit_reduce(self.b, op, self.tiles, self.shape)))

    def op_scan(self, op: tile.Scan) -> None:
        """Prefixes, in the order :func:`codegen.emit.llvm_reduce.emit_scan` states."""
        self.tiles.update(zip(op.results, emit_scan(self.b, op, self.tiles, self.shape)))

    def op_dot(self, op: tile.Dot) -> None:
        """A dot, by an instruction where one fits."""
        r = op.results[0]
        if self.units is not None and self.units.holds(r):
            self.units.multiply(op, self.tiles)
            self._leave(r)
            return
        found = self._match(op)
        self.tiles[r] = (emit_dot_by_elements(self.b, op, self.tiles, self.shape) if found is None else
                         emit_vector_dot(self.b, self.memory, op, self.tiles, self.shape(r.axes), found,
                                         found.instruction.feature in self.modelled))

    def _leave(self, v: Value) -> None:
        """Vectors of a finished accumulator, where something takes them."""
        left = self.units.leave(v) if self.units is not None and self.units.holds(v) else None
        if left is not None:
            self.tiles[v] = left

    def op_for(self, op: tile.For) -> None:
        """A loop; carried tiles become phis, unless tile registers hold them; ``unroll`` copies of the body share a test."""
        held = [n for n, v in enumerate(op.body.params) if self.units is not None and self.units.holds(v)]
        for n in held:
            assert self.units is not None
            self.units.enter(op.body.params[n], op.inits[n], self.tiles)
        self._for(op, _Carried.of(op, [n for n in range(len(op.inits)) if n not in held], self.shape))
        for n in held:
            self._leave(op.results[n])

    def _for(self, op: tile.For, carried: _Carried) -> None:
        """The loop itself, with phis for the values that are in vector registers."""
        inits = self._registers(carried.inits, carried.shapes)
        lo, hi = self.terms.scalar(op.lo), self.terms.scalar(op.hi)
        name = op.var.name.replace(".", "_")
        if op.unroll > 1:
            rounds = intrinsic(self.b, "llvm.smax.i64", I64, [self.b.sdiv(self.b.sub(hi, lo), I64(op.unroll)), I64(0)])
            inits = emit_loop(self.b, f"{name}.{op.unroll}", I64(0), rounds, inits,
                              lambda n, regs: self._rounds(op, carried, self.b.add(lo, n.times(I64(op.unroll))), regs), False)
            lo = self.b.add(lo, self.b.mul(rounds, I64(op.unroll)))
        runs = op.unroll == 1 and nonneg(op.hi - op.lo - 1)
        ends = emit_loop(self.b, name, lo, hi, inits, lambda i, regs: self._once(op, carried, i, regs), runs)
        self._bind(carried.results, carried.shapes, ends)

    def _once(self, op: tile.For, carried: _Carried, at: ir.Value | Counter, regs: list[ir.Value]) -> list[ir.Value]:
        """The body of a loop for one value of its variable; returns the registers it hands on."""
        self._bind(carried.params, carried.shapes, regs)
        self._within({op.var: at}, op.body)
        return self._registers(carried.yields, carried.shapes)

    def _within(self, values: dict[Var, ir.Value | Counter], body: tile.Block) -> None:
        """A block in which variables have values."""
        self.terms.enter(values)
        self.block(body)
        self.terms.leave()

    def _rounds(self, op: tile.For, carried: _Carried, first: ir.Value, regs: list[ir.Value]) -> list[ir.Value]:
        """``unroll`` iterations in a row; what is computed from the loop variable is computed anew in each."""
        for k in range(op.unroll):
            regs = self._once(op, carried, self.b.add(first, I64(k)), regs)
        return regs

    def _registers(self, values: list[Value], shapes: list[Shape]) -> list[ir.Value]:
        return [splat(self.b, self.tiles[v].at(self.b, s, c), s.width) for v, s in zip(values, shapes) for c in s.coords()]

    def _bind(self, values: list[Value], shapes: list[Shape], regs: list[ir.Value]) -> None:
        at = iter(regs)
        for v, s in zip(values, shapes):
            self.tiles[v] = Tile(s, v.dtype, {c: next(at) for c in s.coords()})

    def op_seek(self, op: tile.Seek) -> None:
        """A block that runs for one value of its variable, if that is in the range."""
        b, at = self.b, self.tiles[op.value].at(self.b, self.shape(()), (0,))
        inside = b.and_(b.icmp_signed(">=", at, self.terms.scalar(op.lo)), b.icmp_signed("<", at, self.terms.scalar(op.hi)))
        with b.if_then(inside):
            self._within({op.var: at}, op.body)

    def op_if(self, op: tile.If) -> None:
        """A guarded block."""
        cond = self.memory.mask(op.terms, [self.tiles[c] for c in op.conds], self.shape(()), (0,))
        if cond is None:
            self.block(op.body)
            return
        with self.b.if_then(cond):
            self.block(op.body)

    def op_prefetch(self, op: tile.Prefetch) -> None:
        """A prefetch for reading."""
        offset = self.memory.offset(op.buffer, op.indices)
        assert offset is not None
        p = self.memory.pointer(op.buffer, offset)
        intrinsic(self.b, "llvm.prefetch.p0", ir.VoidType(), [p, I32(0), I32(4 - op.level), I32(1)])

    def op_check(self, op: tile.Check) -> None:
        """Record the code of a check that fails for any element."""
        axes = {a for v in op.operands() for a in v.axes} | {v for t in op.mask for v in t.vars if _is_tile(v, self.scalars)}
        shape = self.shape(tuple(sorted(axes, key=lambda v: v.uid)))
        b = self.b
        for coord in shape.coords():
            v = self.tiles[op.value].at(b, shape, coord)
            size = splat(b, self.terms.scalar(op.size), shape.width)
            bad = b.icmp_unsigned(">=", v, size)
            mask = self.memory.mask(op.mask, [self.tiles[c] for c in op.conds], shape, coord)
            bad = bad if mask is None else b.and_(bad, splat(b, mask, shape.width))
            if shape.width:
                bad = intrinsic(b, f"llvm.vector.reduce.or.v{shape.width}i1", I1, [bad])
            with b.if_then(bad, likely=False):
                b.store(I32(op.code), self.error)


def _is_tile(v: Var, scalars: dict[Var, Any]) -> bool:
    return v not in scalars
