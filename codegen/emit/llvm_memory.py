"""Loads and stores: pointers from index terms, one register at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_masks import NEVER, Masks, at_coord
from codegen.emit.llvm_regs import Coord, Shape, Tile, make
from codegen.emit.llvm_terms import Terms
from codegen.emit.llvm_transpose import concatenate, lanes_between
from codegen.emit.llvm_turn import NEAR, Interleave, Turn
from codegen.emit.llvm_types import I1, I32, I64, PTR, int_const, intrinsic, lane_numbers, mangle, memory_type, splat, vector, word
from codegen.tile.ir import Buffer, Load, Phase, Store, Value, walk_ops
from dsl.dim import Term, as_term, tile_bound
from dsl.dtype import bool_

_STREAMED = 16  # bytes of the least register that is stored past the caches
ZEROS = 128  # readable bytes of zeros, which a load takes where its mask is off


class Memory(Masks):
    """Loads and stores of one function.

    ``pointers`` are the buffers' base addresses, ``zero`` where :data:`ZEROS` lie, ``register`` the bytes of a vector register,
    ``updated`` says of buffers whether they lie where an input does (1, else 0).
    """

    def __init__(self, b: Builder, terms: Terms, pointers: dict[Buffer, ir.Value], zero: ir.Value, register: int,
                 updated: dict[Buffer, ir.Value]) -> None:
        super().__init__(b, terms)
        self.pointers, self.zero, self.register, self.updated = pointers, zero, register, updated

    # -- addresses ---------------------------------------------------------------------------------------------
    def offset(self, buffer: Buffer, slots: tuple[Any, ...]) -> Term | None:
        """The element offset of an access; None when an index is data."""
        if any(isinstance(s, Value) for s in slots):
            return None
        out: Term = as_term(0)
        for s, stride in zip(slots, buffer.strides):
            out = out + s * stride
        return out

    def pointer(self, buffer: Buffer, offset: Term, lane_first: int = 0) -> ir.Value:
        """Address of the element at a scalar offset: a shared base plus a constant, which addressing modes absorb."""
        base = self._base(buffer, Term(offset.parts, 0))
        const = offset.const + lane_first
        return base if not const else self.b.gep(base, [I64(const)], source_etype=memory_type(buffer.dtype))

    def _base(self, buffer: Buffer, offset: Term) -> ir.Value:
        """The address at an offset without a constant, from that which scopes around it know."""
        if not offset.parts:
            return self.pointers[buffer]

        def emit() -> ir.Value:
            outer, own = self.terms.split(offset)
            return self.b.gep(self._base(buffer, outer), [self.terms.scalar(own)], source_etype=memory_type(buffer.dtype))

        return self.terms.once((buffer, offset), offset, emit)

    # -- loads -------------------------------------------------------------------------------------------------
    def load(self, op: Load, shape: Shape, tiles: dict[Value, Tile]) -> Tile:
        """The tile of a load."""
        conds = [tiles[c] for c in op.conds]
        offset = self.offset(op.buffer, op.indices)
        dtype = op.buffer.dtype
        turns = [] if offset is None or conds else Turn.of(offset, shape)
        if turns and offset is not None:
            return self._load_turned(op, turns, offset)

        def one(coord: Coord) -> ir.Value:
            mask = self.mask(op.mask, conds, shape, coord)
            if offset is None and self._runs(op, shape, tiles):
                raw = self._load_run(op, shape, coord, tiles, mask)
            elif offset is None:
                raw = self._gather(op.buffer, self._dynamic(op.buffer, op.indices, shape, coord, tiles), mask, shape)
            else:
                raw = self._load_at(op.buffer, at_coord(offset, shape, coord), mask, shape, coord)
            return self._from_memory(raw, dtype)

        return make(shape, dtype, one)

    def _load_turned(self, op: Load, turns: list[Turn], offset: Term) -> Tile:
        """Load vectors along the axis that memory is contiguous in, then transpose blocks of them into the lanes asked for."""
        found: dict[Coord, ir.Value] = {}
        for turn in turns:
            rows, (at,), mask = turn.memory, turn.seen((offset,)), turn.seen(op.mask)
            raw = {c: self._load_at(op.buffer, at_coord(at, rows, c), self.mask(mask, [], rows, c), rows, c) for c in rows.coords()}
            found |= {c: self._from_memory(v, op.buffer.dtype) for c, v in turn.exchange(self.b, raw).items()}
        return Tile(turns[0].registers, op.buffer.dtype, found)

    def _load_at(self, buffer: Buffer, t: Term, mask: ir.Value | None, shape: Shape, coord: Coord) -> ir.Value:
        if mask is NEVER:
            return ir.Constant(vector(memory_type(buffer.dtype), shape.width), None)
        if shape.lane is None:
            return self._load_scalar(buffer, self.pointer(buffer, t), mask)
        w, lane = shape.width, shape.lane
        if lane not in t.vars:
            return self._load_splat(buffer, t, mask, w)
        first = t.subs({lane: as_term(coord[-1] * w)})
        coef = t.coef(lane)
        if coef == 1:
            return self._load_vector(buffer, self.pointer(buffer, first), mask, w)
        if coef == -1:
            back = self._load_vector(buffer, self.pointer(buffer, first - (w - 1)), None if mask is None else self.reversed(mask, w), w)
            return self.reverse(back)
        if coef is not None and 1 < coef <= NEAR and w >= NEAR:
            return self._load_spread(buffer, first, coef, w, mask)
        return self._gather(buffer, self.terms.lanes(t, lane, coord[-1] * w, w), mask, shape)

    def _load_spread(self, buffer: Buffer, first: Term, step: int, w: int, mask: ir.Value | None) -> ir.Value:
        """Every ``step``-th element: whole vectors from the first to the last of them, none beyond, and shuffles."""
        last = step * (w - 1)
        starts = [min(n * w, last + 1 - w) for n in range(step)]
        parts = [self._load_vector(buffer, self.pointer(buffer, first + s), self.spread(mask, step, s, w), w) for s in starts]
        out = parts[0]
        for n in range(1, step):
            own = [w + step * lane - starts[n] if step * lane // w == n else -1 for lane in range(w)]
            before = [step * lane if n == 1 else lane for lane in range(w)]
            picks = [o if o >= 0 else b if step * lane // w < n else 0 for lane, (o, b) in enumerate(zip(own, before))]
            out = self.b.shuffle_vector(out, parts[n], lane_numbers(*picks))
        return out

    def _load_splat(self, buffer: Buffer, t: Term, mask: ir.Value | None, w: int) -> ir.Value:
        """One element in every lane; where only the mask varies by lane, select zero."""
        if mask is None or not isinstance(mask.type, ir.VectorType):
            return splat(self.b, self._load_scalar(buffer, self.pointer(buffer, t), mask), w)
        some = intrinsic(self.b, f"llvm.vector.reduce.or.v{w}i1", I1, [mask])
        value = splat(self.b, self._load_scalar(buffer, self.pointer(buffer, t), some), w)
        return self.b.select(mask, value, ir.Constant(value.type, None))

    def _load_scalar(self, buffer: Buffer, p: ir.Value, mask: ir.Value | None) -> ir.Value:
        p = p if mask is None else self.b.select(mask, p, self.zero)
        v = self.b.load(p, name=word(buffer.name), typ=memory_type(buffer.dtype))
        v.align = buffer.dtype.itemsize
        return v

    def _load_vector(self, buffer: Buffer, p: ir.Value, mask: ir.Value | None, w: int) -> ir.Value:
        t = vector(memory_type(buffer.dtype), w)
        if mask is not None and w * buffer.dtype.itemsize <= ZEROS:
            whole, mask = self.parts(mask)
            p = p if whole is None else self.b.select(whole, p, self.zero)
        if mask is None:
            v = self.b.load(p, name=word(buffer.name), typ=t)
            v.align = buffer.dtype.itemsize
            return v
        full, each = splat(self.b, mask, w), self._register_lanes(buffer, w)
        piece = vector(memory_type(buffer.dtype), each)
        name = f"llvm.masked.load.{mangle(piece)}.p0"
        parts = [self._masked(name, piece,
                              [self._beyond(p, buffer, n), lanes_between(self.b, full, n, each), ir.Constant(piece, None)], buffer)
                 for n in range(0, w, each)]
        return concatenate(self.b, parts)

    def _register_lanes(self, buffer: Buffer, w: int) -> int:
        """How many of ``w`` lanes one register takes: masked accesses are written register by register, lest LLVM split their masks."""
        fit = max(self.register // buffer.dtype.itemsize, 1)
        parts = w // fit
        return fit if w % fit == 0 and parts & (parts - 1) == 0 else w

    def _beyond(self, p: ir.Value, buffer: Buffer, elements: int) -> ir.Value:
        return p if not elements else self.b.gep(p, [I64(elements)], inbounds=True, source_etype=memory_type(buffer.dtype))

    def _masked(self, name: str, result: ir.Type, args: list[ir.Value], buffer: Buffer, at: int = 0) -> ir.Value:
        """A masked memory intrinsic; its alignment is an attribute of the pointer operand."""
        return intrinsic(self.b, name, result, args, {at: buffer.dtype.itemsize})

    def _gather(self, buffer: Buffer, offsets: ir.Value, mask: ir.Value | None, shape: Shape) -> ir.Value:
        w = shape.width
        p = self.b.gep(self.pointers[buffer], [offsets], inbounds=True, source_etype=memory_type(buffer.dtype))
        if not w:
            return self._load_scalar(buffer, p, mask)
        t = vector(memory_type(buffer.dtype), w)
        full = splat(self.b, mask, w) if mask is not None else int_const(vector(I1, w), 1)
        p.type = vector(PTR, w)
        return self._masked(f"llvm.masked.gather.{mangle(t)}.v{w}p0", t, [p, full, ir.Constant(t, None)], buffer)

    def _dynamic(self, buffer: Buffer, slots: tuple[Any, ...], shape: Shape, coord: Coord, tiles: dict[Value, Tile]) -> ir.Value:
        """Element offset with data-dependent indices: i64, or a vector of them."""
        b, w = self.b, shape.width
        out: ir.Value | None = None
        for s, stride in zip(slots, buffer.strides):
            if isinstance(s, Value):
                v = tiles[s].at(b, shape, coord)
                part = b.mul(v, splat(b, self.terms.scalar(stride), w)) if stride != 1 else v
            else:
                t = at_coord(s * stride, shape, coord)
                part = self.terms.lanes(t, shape.lane, coord[-1] * w, w) if shape.lane is not None else self.terms.scalar(t)
            out = part if out is None else b.add(out, part)
        assert out is not None
        return out

    def _from_memory(self, raw: ir.Value, dtype: Any) -> ir.Value:
        return self.b.icmp_unsigned("!=", raw, int_const(raw.type, 0)) if dtype == bool_ else raw

    def _to_memory(self, v: ir.Value, dtype: Any) -> ir.Value:
        lanes = v.type.count if isinstance(v.type, ir.VectorType) else 0
        return self.b.zext(v, vector(memory_type(bool_), lanes)) if dtype == bool_ else v

    def _runs(self, op: Load, shape: Shape, tiles: dict[Value, Tile]) -> bool:
        """Whether the lanes of a load at places that are data are neighbours in memory: rows of a table, say."""
        data = [tiles[s] for s in op.indices if isinstance(s, Value)]
        return shape.lane is not None and all(t.shape.lane is None for t in data) and _known(op).coef(shape.lane) == 1

    def _load_run(self, op: Load, shape: Shape, coord: Coord, tiles: dict[Value, Tile], mask: ir.Value | None) -> ir.Value:
        """One vector from a place that is data, the same for all its lanes."""
        assert shape.lane is not None
        place = self.terms.scalar(at_coord(_known(op), shape, coord).subs({shape.lane: as_term(coord[-1] * shape.width)}))
        for s, stride in ((s, n) for s, n in zip(op.indices, op.buffer.strides) if isinstance(s, Value)):
            at = tiles[s].at(self.b, Shape(shape.unrolled, None, 0, 1), (*coord[:-1], 0))
            place = self.b.add(place, self.b.mul(at, self.terms.scalar(stride)))
        p = self.b.gep(self.pointers[op.buffer], [place], inbounds=True, source_etype=memory_type(op.buffer.dtype))
        return self._load_vector(op.buffer, p, mask, shape.width)

    # -- stores ------------------------------------------------------------------------------------------------
    def store(self, op: Store, shape: Shape, tiles: dict[Value, Tile]) -> None:
        """Write a tile."""
        if op.conds or (whole := self.whole(op.mask, shape)) is None:
            self.store_masked(op, op.mask, shape, tiles)
            return
        with self.b.if_else(whole) as (inside, edge):
            with inside:
                self.store_masked(op, (), shape, tiles)
            with edge:
                self.store_masked(op, op.mask, shape, tiles)

    def whole(self, mask: tuple[Term, ...], shape: Shape) -> ir.Value | None:
        """Whether a mask holds at every point of a tile: one test for all its registers; None where that would save nothing.

        A masked store is many times slower than a plain one on some machines, and a mask takes instructions on all of them.
        """
        axes = {*shape.unrolled, *(() if shape.lane is None else (shape.lane,))}
        ragged = [t for t in mask if t.bounds[0] < 0]
        if not any(t.vars & axes for t in ragged) or len(list(shape.coords())) == 1 and shape.lane is None:
            return None
        out: ir.Value | None = None
        for t in ragged:
            worst = tile_bound(t, axes, best=False)
            out = self._and(out, self.b.icmp_signed(">=", self.terms.scalar(worst), I64(0)))
        return out

    def store_masked(self, op: Store, masks: tuple[Term, ...], shape: Shape, tiles: dict[Value, Tile]) -> None:
        """Write the elements of a tile at which ``masks`` hold."""
        conds = [tiles[c] for c in op.conds]
        offset = self.offset(op.buffer, op.indices)
        value = tiles[op.value]
        if offset is not None and not conds and self._store_shuffled(op, masks, offset, shape, value):
            return
        if op.streaming and offset is not None and not conds and not masks and self._store_streaming(op, offset, shape, value):
            return
        for coord in shape.coords():
            mask = self.mask(masks, conds, shape, coord)
            v = self._to_memory(value.at(self.b, shape, coord), op.buffer.dtype)
            if offset is None:
                self._scatter(op.buffer, self._dynamic(op.buffer, op.indices, shape, coord, tiles), v, mask, shape.width)
            else:
                self._store_at(op, at_coord(offset, shape, coord), v, mask, shape, coord)

    def _store_shuffled(self, op: Store, masks: tuple[Term, ...], offset: Term, shape: Shape, value: Tile) -> bool:
        """Shuffle registers until they are runs of memory and store those; returns whether that can be done."""
        dtype = op.buffer.dtype
        mixed = Interleave.of(offset, shape)
        lanes = {} if mixed is None else self.lanes(masks, shape)
        mixed = None if lanes is None else mixed
        turns = Turn.of(offset, shape) if mixed is None else []
        regs = {c: self._to_memory(value.at(self.b, shape, c), dtype) for c in shape.coords()} if mixed or turns else {}
        if mixed is not None:
            for t, v, mask in mixed.join(self.b, offset, regs, lanes or {}):
                self._store_vector(op, self.pointer(op.buffer, t), v, mask, v.type.count)
        for turn in turns:
            rows, (at,), mask = turn.memory, turn.seen((offset,)), turn.seen(masks)
            for c, v in turn.restore(self.b, regs).items():
                self._store_at(op, at_coord(at, rows, c), v, self.mask(mask, [], rows, c), rows, c)
        return bool(regs)

    def _store_streaming(self, op: Store, offset: Term, shape: Shape, value: Tile) -> bool:
        """Store past the caches where the addresses are those of whole registers, which is looked at once for the tile.

        Not over an input, whose lines are in the caches when it has been read.

        Returns whether all registers lie whole registers apart, so that one look is enough.
        """
        buffer, w, lane = op.buffer, shape.width, shape.lane
        size = min(w * buffer.dtype.itemsize, self.register)
        if lane is None or offset.coef(lane) != 1 or size < _STREAMED:
            return False
        places = {c: at_coord(offset, shape, c).subs({lane: as_term(c[-1] * w)}) for c in shape.coords()}
        first = next(iter(places.values()))
        apart = [t - first for t in places.values()]
        if not all(d.is_const and d.const * buffer.dtype.itemsize % size == 0 for d in apart):
            return False
        regs = [(self.pointer(buffer, t), self._to_memory(value.at(self.b, shape, c), buffer.dtype)) for c, t in places.items()]
        low = self.b.and_(self.b.ptrtoint(regs[0][0], I64), I64(size - 1))
        if buffer in self.updated:
            low = self.b.or_(low, self.updated[buffer])
        with self.b.if_else(self.b.icmp_unsigned("==", low, I64(0)), likely=True) as (aligned, other):
            with aligned:
                past = self.b.module.add_metadata([I32(1)])
                for p, v in regs:
                    s = self.b.store(v, p)
                    s.align = size
                    s.set_metadata("nontemporal", past)
            with other:
                for p, v in regs:
                    self.b.store(v, p).align = buffer.dtype.itemsize
        return True

    def _store_at(self, op: Store, t: Term, v: ir.Value, mask: ir.Value | None, shape: Shape, coord: Coord) -> None:
        buffer, lane, w = op.buffer, shape.lane, shape.width
        if mask is NEVER:
            return
        if lane is None or lane not in t.vars:
            self._store_scalar(buffer, self.pointer(buffer, t), v if lane is None else self.b.extract_element(v, I32(0)), mask)
            return
        if t.coef(lane) == 1:
            self._store_vector(op, self.pointer(buffer, t.subs({lane: as_term(coord[-1] * w)})), v, mask, w)
        elif t.coef(lane) == -1:
            p = self.pointer(buffer, t.subs({lane: as_term(coord[-1] * w)}) - (w - 1))
            self._store_vector(op, p, self.reverse(v), None if mask is None else self.reversed(mask, w), w)
        else:
            self._scatter(buffer, self.terms.lanes(t, lane, coord[-1] * w, w), v, mask, w)

    def _store_vector(self, op: Store, p: ir.Value, v: ir.Value, mask: ir.Value | None, w: int) -> None:
        whole, lanes = (None, None) if mask is None else self.parts(mask)
        if whole is not None:
            with self.b.if_then(whole):
                self._store_vector(op, p, v, lanes, w)
            return
        if lanes is not None:
            each = self._register_lanes(op.buffer, w)
            for n in range(0, w, each):
                part = lanes_between(self.b, v, n, each)
                self._masked(f"llvm.masked.store.{mangle(part.type)}.p0", ir.VoidType(),
                             [part, self._beyond(p, op.buffer, n), lanes_between(self.b, lanes, n, each)], op.buffer, at=1)
            return
        s = self.b.store(v, p)
        s.align = op.buffer.dtype.itemsize

    def _store_scalar(self, buffer: Buffer, p: ir.Value, v: ir.Value, mask: ir.Value | None) -> None:
        if mask is None:
            self.b.store(v, p).align = buffer.dtype.itemsize
            return
        if isinstance(mask.type, ir.VectorType):
            mask = intrinsic(self.b, f"llvm.vector.reduce.or.v{mask.type.count}i1", I1, [mask])
        with self.b.if_then(mask):
            self.b.store(v, p).align = buffer.dtype.itemsize

    def _scatter(self, buffer: Buffer, offsets: ir.Value, v: ir.Value, mask: ir.Value | None, w: int) -> None:
        p = self.b.gep(self.pointers[buffer], [offsets], inbounds=True, source_etype=memory_type(buffer.dtype))
        if not w:
            self._store_scalar(buffer, p, v, mask)
            return
        p.type = vector(PTR, w)
        full = splat(self.b, mask, w) if mask is not None else int_const(vector(I1, w), 1)
        self._masked(f"llvm.masked.scatter.{mangle(v.type)}.v{w}p0", ir.VoidType(), [v, p, full], buffer, at=1)


def find_updated(b: Builder, phase: Phase, pointers: Mapping[Buffer, ir.Value]) -> dict[Buffer, ir.Value]:
    """For every buffer that is stored to past the caches, whether an input that the phase reads lies in its place: 1 or 0."""
    ops = list(walk_ops(phase.body))
    inputs = dict.fromkeys(op.buffer for op in ops if isinstance(op, Load) and op.buffer.scope == "input")
    out: dict[Buffer, ir.Value] = {}
    for y in dict.fromkeys(op.buffer for op in ops if isinstance(op, Store) and op.streaming):
        same = [b.icmp_unsigned("==", pointers[x], pointers[y]) for x in inputs if x.dtype == y.dtype]
        if same:
            out[y] = b.zext(functools.reduce(b.or_, same), I64)
    return out


def _known(op: Load) -> Term:
    """The part of an element offset that is no data."""
    return sum((s * stride for s, stride in zip(op.indices, op.buffer.strides) if not isinstance(s, Value)), as_term(0))


__all__ = ["ZEROS", "Memory", "at_coord", "find_updated"]
