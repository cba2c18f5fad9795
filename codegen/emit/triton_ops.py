"""Tile operations as Triton statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import PurePath

from codegen.emit.triton_carriers import prefix, reduction
from codegen.emit.triton_dot import dot, permute
from codegen.emit.triton_maths import Operand, convert, pointwise
from codegen.emit.triton_terms import Axes, Terms
from codegen.emit.triton_types import literal, tl
from codegen.emit.writer import Lines, atom
from codegen.tile.ir import (
    Block,
    Broadcast,
    Buffer,
    Check,
    Const,
    Dot,
    For,
    If,
    Iota,
    Load,
    Map,
    Predicate,
    Prefetch,
    Reduce,
    Rename,
    Scan,
    Seek,
    Store,
    TileOp,
    Value,
    walk_ops,
)
from dsl.dtype import Dtype, bool_
from dsl.loc import Loc

_INLINE = 60
_REDUCED = {"sum": "total", "max": "highest", "min": "lowest", "any": "some", "all": "every"}
_NAMED = (Dot, Reduce, Scan, Map)  # operations that always write an assignment for a carried value
_BARRIER = "tl.debug_barrier()"


class Ops(Terms):
    """Writes the operations of one phase into :attr:`block`."""

    error = ""  # the pointer that receives the code of a failed run-time check

    def prepare(self, body: Block) -> None:
        """Count uses, to decide what gets a name, and find the buffers whose reads must wait for this program's own writes."""
        self.uses: Counter[Value] = Counter()
        self.user: dict[Value, tuple[Block, TileOp]] = {}
        self.named: set[Value] = set()
        self.aliases: dict[Value, Value] = {}
        self.loc: Loc | None = None
        self.dead = _dead(body)
        self._count(body)
        stored = {op.buffer for op in walk_ops(body) if isinstance(op, Store)}
        self.ordered: set[Buffer] = {op.buffer for op in walk_ops(body) if isinstance(op, Load)} & stored

    def _count(self, block: Block) -> None:
        for op in block.ops:
            if op in self.dead:
                continue
            for v in op.operands():
                self.uses[v] += 1
                self.user[v] = (block, op)
            for b in op.blocks():
                self._count(b)
        self.uses.update(block.yields)

    def write(self, block: Block) -> None:
        """Every operation of a block."""
        for op in block.ops:
            if op in self.dead:
                continue
            for v in op.results:
                inlined = self.uses[v] == 1 and v in self.user and self.user[v][0] is block and v not in self.named
                if inlined and isinstance(op, (Map, Iota, Predicate, Broadcast)):
                    self.inline_next = True
            _WRITE[type(op)](self, op)

    inline_next = False

    # -- results -------------------------------------------------------------------------------------------------
    def define(self, op: TileOp, text: str) -> None:
        """Give the single result a name, or keep its text for the one place that uses it."""
        (v,) = op.results
        inline, self.inline_next = self.inline_next and len(text) <= _INLINE, False
        if inline:
            self.values[v] = Operand(text, v.dtype)
            return
        self.comment(op)
        self.block.add(f"{self.name(v, op)} = {text}")

    def name(self, v: Value, op: TileOp | None = None) -> str:
        """A name for a value: that of the loop parameter it becomes, or a fresh one from its hint."""
        if v in self.aliases:
            text = self.values[self.aliases[v]].text
        else:
            plain = v.hint if not isinstance(op, Load) else f"{v.hint}_tile" if v.axes else f"{v.hint}_element"
            text = self.names.fresh(plain, "t")
        self.values[v] = Operand(text, v.dtype)
        return text

    def comment(self, op: TileOp) -> None:
        """Cite the user's line when it changes."""
        if op.loc is not None and op.loc != self.loc and op.loc.line:
            self.loc = op.loc
            self.block.add(f"# {PurePath(op.loc.file).name}:{op.loc.line}: {op.loc.text.strip()}".rstrip(": "))

    def whole(self, v: Value, axes: Axes) -> str:
        """A value with every element of ``axes`` present."""
        x = self.values[v]
        if x.value is not None:
            return f"tl.full({self.shape(axes)}, {literal(x.value, x.dtype)}, {tl(x.dtype)})"
        if set(v.axes) == set(axes):
            return x.text
        if not v.axes and not axes:
            return x.text
        return f"tl.broadcast_to({self.value(v, axes).text}, {self.shape(axes)})"

    def operands(self, op: TileOp) -> list[Operand]:
        """The operands, ready to be combined."""
        axes = self.sorted({a for v in op.operands() for a in v.axes})
        return [self.value(v, axes) for v in op.operands()]

    # -- values --------------------------------------------------------------------------------------------------
    def const(self, op: Const) -> None:
        """Written where it is used."""
        self.values[op.results[0]] = Operand.const(op.value, op.results[0].dtype)

    def iota(self, op: Iota) -> None:
        """An index term in 64 bits."""
        axes = self.axes_of(op.term)
        text = self.vector(op.term, axes)
        self.define(op, f"{atom(text)}.to(tl.int64)" if axes else f"tl.cast({text}, tl.int64)")

    def predicate(self, op: Predicate) -> None:
        """A comparison."""
        axes = self.sorted(op.results[0].axes)
        self.define(op, self.mask(op.terms, (), axes) or literal(True, bool_))

    def map(self, op: Map) -> None:
        """A pointwise operation."""
        args, dtype = self.operands(op), op.results[0].dtype
        if op.name == "cast" and args[0].value is not None and not dtype.is_low:
            self.inline_next = False
            self.values[op.results[0]] = Operand.const(_cast_literal(args[0].value, dtype), dtype)
            return
        self.define(op, convert(args[0], dtype, self.helpers) if op.name == "cast" else pointwise(op.name, args, dtype, self.helpers))

    def broadcast(self, op: Broadcast) -> None:
        """Repeated along new axes; a literal stays one."""
        self.define(op, self.whole(op.value, self.sorted(op.results[0].axes)))

    def rename(self, op: Rename) -> None:
        """Free, unless the order of the dimensions changes."""
        new = dict(op.axes)
        held = tuple(new.get(a, a) for a in self.sorted(op.value.axes))
        x = self.values[op.value]
        self.values[op.results[0]] = Operand(permute(x.text, held, self.sorted(held)), x.dtype, x.value)

    def reduce(self, op: Reduce) -> None:
        """One dimension after another, the last first: the order of the axes is kept."""
        axes = self.sorted({a for s in op.states for a in s.axes})
        dtypes = tuple(s.dtype for s in op.states)
        texts = tuple(self.whole(s, axes) for s in op.states)
        for axis in reversed(op.axes[1:]):
            step = reduction(op.carrier, texts, dtypes, axes.index(axis), self.helpers)
            texts = tuple(self.names.fresh(s.hint or op.carrier.name) for s in op.states)
            self.block.add(f"{', '.join(texts)} = {step}")
            axes = tuple(a for a in axes if a is not axis)
        self.assign(op, reduction(op.carrier, texts, dtypes, axes.index(op.axes[0]), self.helpers), op.carrier.name)

    def scan(self, op: Scan) -> None:
        """Prefixes along one dimension."""
        axes = self.sorted(op.results[0].axes)
        texts = tuple(self.whole(s, axes) for s in op.states)
        dtypes = tuple(s.dtype for s in op.states)
        self.assign(op, prefix(op.carrier, texts, dtypes, axes.index(op.axis), op.reverse, self.helpers), op.carrier.name)

    def assign(self, op: TileOp, text: str, hint: str) -> None:
        """Name every result."""
        self.comment(op)
        for v in op.results:
            v.hint = v.hint or _REDUCED.get(hint, hint)
        self.block.add(f"{', '.join(self.name(v, op) for v in op.results)} = {text}")

    def dot(self, op: Dot) -> None:
        """A product of tiles."""
        self.define(op, dot(self, op))

    # -- memory --------------------------------------------------------------------------------------------------
    def load(self, op: Load) -> None:
        """Masked where it could not be proved that no mask is needed."""
        axes = self.sorted(op.results[0].axes)
        pointers = self.address(op.buffer, op.indices, axes)
        mask = self.mask(op.mask, op.conds, axes)
        other = "" if op.undefined or not mask else f", other={_zero(op.buffer.dtype)}"
        self.define(op, f"tl.load({pointers}{f', mask={mask}' if mask else ''}{other})")

    def store(self, op: Store) -> None:
        """Within barriers where this program also reads the buffer: its threads do not see each other's writes otherwise."""
        axes = self.sorted({a for i in op.indices for a in (i.axes if isinstance(i, Value) else self.axes_of(i))})
        pointers = self.address(op.buffer, op.indices, axes)
        mask = self.mask(op.mask, op.conds, axes)
        how = ', cache_modifier=".cs"' if op.streaming else ""
        value = self.value(op.value, axes)
        self.comment(op)
        if op.buffer in self.ordered and self.block.lines[-1:] != [_BARRIER]:
            self.block.add(_BARRIER)
        self.block.add(f"tl.store({pointers}, {value.typed}{f', mask={mask}' if mask else ''}{how})")
        if op.buffer in self.ordered:
            self.block.add(_BARRIER)

    def check(self, op: Check) -> None:
        """The greatest code of a failed check is left in the error buffer."""
        axes = self.sorted({*(a for v in op.operands() for a in v.axes), *(a for t in op.mask for a in self.axes_of(t))})
        x = atom(self.value(op.value, axes).typed)
        bad = f"(({x} < 0) | ({x} >= {self.scalar(op.size)}))"
        mask = self.mask(op.mask, op.conds, axes)
        bad = f"{bad} & {atom(mask)}" if mask else bad
        self.comment(op)
        name = self.names.fresh("stray")
        self.block.add(f"{name} = tl.max({atom(bad)}.to(tl.int32))" if axes else f"{name} = {atom(bad)}.to(tl.int32)")
        self.block.add(f"tl.atomic_max({self.error}, {op.code}, mask={name} != 0)")

    def prefetch(self, op: Prefetch) -> None:
        """Triton's pipeliner decides what to fetch ahead."""

    # -- control -------------------------------------------------------------------------------------------------
    def loop(self, op: For) -> None:
        """Carried values are assigned before the loop and at the end of its body."""
        self.comment(op)
        for init, param, result in zip(op.inits, op.body.params, op.results):
            axes = self.sorted(param.axes)
            text = self.whole(init, axes)
            name = self.names.fresh(param.hint or result.hint or "carried")
            self.block.add(f"{name} = {text}")
            self.values[param] = self.values[result] = Operand(name, param.dtype)
        self._alias(op)
        name = counter = self.names.fresh(op.var.name)
        inner = Lines(self.block.level + 1, self.block)
        if self.wide:
            counter = self.names.fresh(f"{op.var.name}_count")
            inner.add(f"{name} = tl.cast({counter}, tl.int64)")
        self.scalars[op.var], self.levels[op.var] = name, inner.level
        header = f"for {counter} in {self._range(op)}:"
        outer, self.block = self.block, inner
        self.write(op.body)
        moved = [(p, y) for p, y in zip(op.body.params, op.body.yields) if self.aliases.get(y) is not p and y is not p]
        if moved:
            left = ", ".join(self.values[p].text for p, _ in moved)
            inner.add(f"{left} = {', '.join(self.whole(y, self.sorted(p.axes)) for p, y in moved)}")
        self.block = outer
        outer.nest(header, inner)

    def _range(self, op: For) -> str:
        lo, hi = self.scalar(op.lo), self.scalar(op.hi)
        facts = [f"num_stages={op.stages}"] if op.stages > 1 else []
        facts += [f"loop_unroll_factor={op.unroll}"] if op.unroll > 1 else []
        bounds = f"{lo}, {hi}"
        return f"tl.range({', '.join([bounds, *facts])})" if facts else f"range({bounds})"

    def _alias(self, op: For) -> None:
        """A carried value may take its parameter's name when nothing reads the parameter after it is defined."""
        index = {v: n for n, o in enumerate(op.body.ops) for v in o.results}
        for p, y in zip(op.body.params, op.body.yields):
            if op.body.yields.count(y) > 1 or y not in index or set(y.axes) != set(p.axes) or not isinstance(y.op, _NAMED):
                continue
            readers = [o for o in op.body.ops if p in o.operands() or any(p in i.operands() for b in o.blocks() for i in walk_ops(b))]
            if p in op.body.yields or _is_literal(y) or any(op.body.ops.index(o) > index[y] for o in readers):
                continue
            for o in readers:
                if o is not y.op and not all(self.uses[r] == 1 and self.user.get(r, (None, None))[1] is y.op for r in o.results):
                    self.named |= set(o.results)  # inlined, it could be read too late
            self.aliases[y] = p

    def seek(self, op: Seek) -> None:
        """A condition on the place that data names."""
        self.comment(op)
        name = self.names.fresh(op.var.name)
        text = self.value(op.value, ()).typed
        self.block.add(f"{name} = {text if self.wide else f'tl.minimum(tl.maximum({text}, -1), 0x7FFFFFFF).to(tl.int32)'}")
        inner = Lines(self.block.level + 1, self.block)
        self.scalars[op.var], self.levels[op.var] = name, inner.level
        condition = f"({name} >= {self.scalar(op.lo)}) & ({name} < {self.scalar(op.hi)})"
        outer, self.block = self.block, inner
        self.write(op.body)
        self.block = outer
        outer.nest(f"if {condition}:", inner)

    def branch(self, op: If) -> None:
        """A condition on the program or a loop."""
        self.comment(op)
        outer, self.block = self.block, Lines(self.block.level, self.block)
        condition = self.mask(op.terms, op.conds, ())
        self.write(op.body)
        body, self.block = self.block, outer
        outer.nest(f"if {condition}:", body)


_PURE = (Const, Iota, Predicate, Map, Broadcast, Rename, Reduce, Scan, Dot, Load)


def _dead(body: Block) -> set[TileOp]:
    """Operations without effect whose results nobody uses: conversions that a product made needless, say."""
    ops = list(walk_ops(body))
    uses = Counter(v for op in ops for v in op.operands()) + Counter(v for b in _blocks(body) for v in b.yields)
    dead: set[TileOp] = set()
    for op in reversed(ops):
        if isinstance(op, _PURE) and not any(uses[v] for v in op.results):
            dead.add(op)
            uses.subtract(op.operands())
    return dead


def _blocks(body: Block) -> list[Block]:
    return [body, *(inner for op in body.ops for b in op.blocks() for inner in _blocks(b))]


def _is_literal(v: Value) -> bool:
    return isinstance(v.op, Map) and v.op.name == "cast" and isinstance(v.op.args[0].op, Const)


def _zero(dtype: Dtype) -> str:
    return literal(0, dtype) if not dtype.is_float else "0.0"


def _cast_literal(value: bool | int | float, dtype: Dtype) -> bool | int | float:
    return bool(value) if dtype is bool_ else float(value) if dtype.is_float else int(value)


_WRITE: dict[type[TileOp], Callable[..., None]] = {
    Const: Ops.const, Iota: Ops.iota, Predicate: Ops.predicate, Map: Ops.map, Broadcast: Ops.broadcast, Rename: Ops.rename,
    Reduce: Ops.reduce, Scan: Ops.scan, Dot: Ops.dot, Load: Ops.load, Store: Ops.store, Check: Ops.check, Prefetch: Ops.prefetch,
    For: Ops.loop, Seek: Ops.seek, If: Ops.branch,
}
