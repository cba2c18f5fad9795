"""The executable specification of tile programs: valid in, valid out, checked between passes.

Structure and dtypes are checked here; :mod:`codegen.tile.bounds` proves accesses in bounds and :mod:`codegen.tile.races` proves
writes disjoint. A violation of structure is a defect of dlc (InternalError); BoundsError and RaceError name the user's index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from codegen.tile.bounds import check_access, condition_facts, consequences, end_inside, holds
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
    Phase,
    Predicate,
    Prefetch,
    Reduce,
    Rename,
    Scan,
    Seek,
    Slot,
    Store,
    TileOp,
    TileProgram,
    Value,
    walk_ops,
)
from codegen.tile.races import Access, check_lanes, check_phase
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype, bool_, f32, f64, i32, i64
from dsl.errors import InternalError
from dsl.opset import OPS, result_dtype

Axes = frozenset[Var]
_PRECISIONS = ("ieee", "tf32", "bf16x3")


def verify(program: TileProgram) -> None:
    """Check a tile program.

    Raises:
        InternalError: the program is malformed, or a bound has neither a proof nor a counterexample.
        BoundsError: an access can leave its buffer.
        RaceError: two grid points, or two lanes of a store, may write the same element.
    """
    _check_buffers(program)
    written: set[Buffer] = set()
    for phase in program.phases:
        _check_grid(program, phase)
        here = {op.buffer for op in walk_ops(phase.body) if isinstance(op, Store)}
        checker = _Checker(program, phase, written | here)
        grid = [v for v, _ in phase.grid]
        facts = [f for v, n in phase.grid for f in (as_term(v), *consequences(n - 1 - as_term(v)))]
        checker.block(phase.body, _Scope(frozenset((*program.sizes, *grid)), facts, set()))
        check_phase(phase.name, grid, [a for a in checker.accesses if a.op.buffer.scope != "scratch" and a.op.buffer in here])
        written |= here


def _fail(title: str, op: TileOp | None = None) -> NoReturn:
    raise InternalError(title, repr(op) if op is not None else "", loc=op.loc if op is not None else None)


def _check_buffers(program: TileProgram) -> None:
    buffers = [*program.buffers, *(b for p in program.phases for b in p.scratch)]
    names = [b.name for b in buffers]
    if len(set(names)) != len(names):
        _fail(f"two buffers of {program.name} share a name: {sorted(names)}")
    for b in buffers:
        if b.scope not in ("input", "output", "workspace", "scratch") or (b.scope == "scratch") != (b not in program.buffers):
            _fail(f"buffer {b.name} has scope {b.scope}")
        if len(b.strides) != len(b.shape):
            _fail(f"buffer {b.name} has {len(b.shape)} dimensions and {len(b.strides)} strides")
        loose = {v for t in (*b.shape, *b.strides) for v in t.vars} - set(program.sizes)
        if loose:
            _fail(f"the shape of {b.name} uses {loose}, which are not sizes of {program.name}")


def _check_grid(program: TileProgram, phase: Phase) -> None:
    seen: set[Var] = set()
    for v, extent in phase.grid:
        if v in seen or extent.vars - set(program.sizes):
            _fail(f"grid variable {v} of {phase.name}: repeated, or its extent {extent} is not made of sizes")
        if v.extent is None or not holds(v.extent - extent, ()):
            _fail(f"grid variable {v} of {phase.name} runs to {extent}, beyond its extent {v.extent}")
        seen.add(v)
    if phase.group and len(phase.grid) < 2:
        _fail(f"{phase.name} groups a grid of {len(phase.grid)} axes")


@dataclass
class _Scope:
    """What may be used at a point: bound variables (not tile axes), terms known >= 0, and defined values."""

    bound: frozenset[Var]
    facts: list[Term]
    values: set[Value] = field(default_factory=set)

    def inside(self, var: Var | None = None, facts: Iterable[Term] = (), values: Iterable[Value] = ()) -> _Scope:
        """The scope of a nested block."""
        bound = self.bound if var is None else self.bound | {var}
        return _Scope(bound, [*self.facts, *facts], {*self.values, *values})


class _Checker:
    """Walks one phase."""

    def __init__(self, program: TileProgram, phase: Phase, readable: set[Buffer]) -> None:
        self.program, self.buffers = program, {*program.buffers, *phase.scratch}
        self.readable = readable
        self.accesses: list[Access] = []

    def block(self, block: Block, scope: _Scope) -> None:
        """Every operation of a block, in order."""
        for op in block.ops:
            for v in op.operands():
                if v not in scope.values:
                    _fail(f"{v!r} is used where it is not defined", op)
            if type(op) not in _RULES:
                _fail(f"unknown operation {type(op).__name__}", op)
            _RULES[type(op)](self, op, scope)
            for r in op.results:
                if r in scope.values or r.op is not op:
                    _fail(f"{r!r} is defined twice, or does not know its definition", op)
            scope.values.update(op.results)
        for v in block.yields:
            if v not in scope.values:
                _fail(f"{v!r} is yielded where it is not defined")

    # -- helpers -------------------------------------------------------------------------------------------------
    def axes(self, slots: Iterable[Slot], scope: _Scope, op: TileOp) -> Axes:
        """The tile axes of index terms and values; every other variable must be bound."""
        found: set[Var] = set()
        for s in slots:
            found |= set(s.axes) if isinstance(s, Value) else s.vars - scope.bound
        for v in found:
            if v.kind != "axis" or v.extent is None or not v.extent.is_const:
                _fail(f"variable `{v}` is not bound here and is no tile axis", op)
        return frozenset(found)

    def result(self, op: TileOp, axes: Iterable[Var], *dtypes: Dtype) -> None:
        """The results must have these axes and dtypes."""
        if len(op.results) != len(dtypes):
            _fail(f"{len(op.results)} results where {len(dtypes)} are defined", op)
        for r, d in zip(op.results, dtypes):
            if r.dtype != d or len(set(r.axes)) != len(r.axes) or set(r.axes) != set(axes):
                _fail(f"the result {r!r} of {r.dtype} should have axes {_names(axes)} and dtype {d}", op)

    def access(self, op: Load | Store, scope: _Scope) -> Axes:
        """Check buffer, rank, index dtypes and bounds; returns the tile axes of the indices."""
        if op.buffer not in self.buffers:
            _fail(f"{op.buffer.name} is not a buffer of the program", op)
        if len(op.indices) != len(op.buffer.shape):
            _fail(f"{len(op.indices)} indices into {op.buffer.name} of {len(op.buffer.shape)} dimensions", op)
        if any(isinstance(i, Value) and not i.dtype.is_int for i in op.indices) or any(c.dtype != bool_ for c in op.conds):
            _fail("an index value must be an integer and a condition a bool", op)
        check_access(op, scope.facts)
        own = [f for t in (*op.mask, *(t for c in op.conds for t in condition_facts(c))) for f in consequences(t)]
        self.accesses.append(Access(op, (*scope.facts, *own)))
        return self.axes(op.indices, scope, op)

    # -- rules ---------------------------------------------------------------------------------------------------
    def load(self, op: Load, scope: _Scope) -> None:
        """Axes are those of indices, masks and conditions; memory must have been written."""
        axes = self.access(op, scope) | self.axes((*op.mask, *op.conds), scope, op)
        if op.buffer.scope != "input" and op.buffer not in self.readable:
            _fail(f"{op.buffer.name} is read before anything is written to it", op)
        self.result(op, axes, op.buffer.dtype)

    def store(self, op: Store, scope: _Scope) -> None:
        """The value's, masks' and conditions' axes, if of more than one point, are among those of the indices.

        Each of the indices decides where the value goes.
        """
        axes = self.access(op, scope)
        if op.buffer.scope == "input":
            _fail(f"store to the input {op.buffer.name}", op)
        beyond = (set(op.value.axes) | self.axes((*op.mask, *op.conds), scope, op)) - axes
        beyond = {v for v in beyond if v.extent != 1}
        if beyond or op.value.dtype != op.buffer.dtype:
            _fail(f"cannot store {op.value!r} of {op.value.dtype} to {op.buffer.name} of {op.buffer.dtype}"
                  f": axes {_names(beyond)} are not in its indices", op)
        check_lanes(self.accesses[-1], sorted(axes, key=lambda v: v.uid))
        self.result(op, ())

    def const(self, op: Const, scope: _Scope) -> None:
        """A scalar of a dtype that holds the value."""
        if len(op.results) != 1:
            _fail("a constant defines one value", op)
        d, v = op.results[0].dtype, op.value
        if (d is bool_) != isinstance(v, bool) or (d.is_int and not isinstance(v, int)):
            _fail(f"the constant {v!r} is not a {d}", op)
        self.result(op, (), d)

    def iota(self, op: Iota, scope: _Scope) -> None:
        """i64 over the tile axes of the term."""
        self.result(op, self.axes((op.term,), scope, op), i64)

    def predicate(self, op: Predicate, scope: _Scope) -> None:
        """Bool over the tile axes of the terms."""
        self.result(op, self.axes(op.terms, scope, op), bool_)

    def map(self, op: Map, scope: _Scope) -> None:
        """Operands of one dtype, as the opset asks; low floats are only cast and selected."""
        axes = {a for v in op.args for a in v.axes}
        dtypes = [v.dtype for v in op.args]
        if op.name == "cast":
            if len(dtypes) != 1 or len(op.results) != 1:
                _fail("a cast has one operand and one result", op)
            return self.result(op, axes, op.results[0].dtype)
        if op.name == "where":
            if len(dtypes) != 3 or dtypes[0] != bool_ or dtypes[1] != dtypes[2]:
                _fail(f"where({', '.join(map(str, dtypes))})", op)
            return self.result(op, axes, dtypes[1])
        if op.name not in OPS or len(dtypes) != OPS[op.name].arity:
            _fail(f"`{op.name}` of {len(dtypes)} operands is not in the opset", op)
        rule = result_dtype(op.name, dtypes)
        if isinstance(rule, str) or any(d != rule[0] or d.is_low for d in dtypes):
            _fail(f"`{op.name}` of {', '.join(map(str, dtypes))}" + (f": {rule}" if isinstance(rule, str) else ""), op)
        self.result(op, axes, rule[1])

    def reduce(self, op: Reduce, scope: _Scope) -> None:
        """Results lose the reduced axes."""
        axes = {a for s in op.states for a in s.axes}
        if not op.axes or not set(op.axes) <= axes or len(set(op.axes)) != len(op.axes):
            _fail(f"cannot reduce {_names(axes)} over {_names(op.axes)}", op)
        self.result(op, axes - set(op.axes), *(s.dtype for s in op.states))

    def scan(self, op: Scan, scope: _Scope) -> None:
        """Results keep the operands' axes."""
        axes = {a for s in op.states for a in s.axes}
        if op.axis not in axes:
            _fail(f"cannot scan {_names(axes)} along {op.axis}", op)
        self.result(op, axes, *(s.dtype for s in op.states))

    def dot(self, op: Dot, scope: _Scope) -> None:
        """Operands of one dtype (or two fp8), accumulated in f32, f64, i32 or i64; the contracted axes are in both."""
        a, b = set(op.a.axes), set(op.b.axes)
        kept = (a | b) - set(op.axes)
        if not op.axes or not set(op.axes) <= a & b or op.precision not in _PRECISIONS:
            _fail(f"cannot multiply {op.a!r} and {op.b!r} over {_names(op.axes)} with precision {op.precision!r}", op)
        da, db, dc = op.a.dtype, op.b.dtype, op.acc.dtype
        same = da == db or (da.is_float and db.is_float and da.bits == db.bits == 8)
        if not same or dc not in ((f64,) if da == f64 else (f32,) if da.is_float else (i32, i64)):
            _fail(f"a dot of {da} and {db} does not accumulate in {dc}", op)
        if not set(op.acc.axes) <= kept:
            _fail(f"the accumulator {op.acc!r} has axes outside {_names(kept)}", op)
        self.result(op, kept, dc)

    def broadcast(self, op: Broadcast, scope: _Scope) -> None:
        """The result has the value's axes and more."""
        if len(op.results) != 1 or not set(op.value.axes) <= set(op.results[0].axes):
            _fail(f"{op.value!r} does not broadcast to {op.results}", op)
        self.axes((op.results[0],), scope, op)
        self.result(op, op.results[0].axes, op.value.dtype)

    def rename(self, op: Rename, scope: _Scope) -> None:
        """Old axes are the value's, new ones distinct and of the same extents."""
        new = dict(op.axes)
        axes = [new.get(a, a) for a in op.value.axes]
        if not set(new) <= set(op.value.axes) or len(set(axes)) != len(axes) or any(a.size != b.size for a, b in op.axes):
            _fail(f"cannot rename {op.value!r} by {op.axes}", op)
        self.result(op, axes, op.value.dtype)

    def loop(self, op: For, scope: _Scope) -> None:
        """Inits, parameters, yields and results agree; the variable stays in its extent."""
        params = op.body.params
        lists = (op.inits, op.body.yields, op.results)
        if any(len(values) != len(params) for values in lists) or op.stages < 1 or op.unroll < 1:
            _fail(f"a loop carries {len(params)} values, with {[len(x) for x in lists]} inits, yields and results", op)
        self.block(op.body, scope.inside(op.var, self.range(op, scope), params))
        for p, values in zip(params, zip(*lists)):
            for v in values:
                exact = v is values[2]
                if v.dtype != p.dtype or (set(v.axes) != set(p.axes) if exact else not set(v.axes) <= set(p.axes)):
                    _fail(f"{v!r} of {v.dtype} where a loop carries {p!r} of {p.dtype}", op)

    def range(self, op: For | Seek, scope: _Scope) -> list[Term]:
        """What is known of a variable in the body of what runs over its range, which lies in its extent."""
        self.axes((op.lo, op.hi), scope, op)
        if (op.lo.vars | op.hi.vars) - scope.bound or op.var in scope.bound:
            _fail(f"the range [{op.lo}, {op.hi}) of {op.var} is not made of bound variables, or {op.var} is in use", op)
        if not holds(op.lo, scope.facts) or (op.var.extent is not None and not holds(op.var.extent - op.hi, scope.facts)):
            _fail(f"the range [{op.lo}, {op.hi}) of {op.var} is not within its extent {op.var.extent}", op)
        ends = dict.fromkeys((op.hi, end_inside(op.lo, op.hi)))
        return [*consequences(as_term(op.var) - op.lo), *(f for hi in ends for f in consequences(hi - 1 - as_term(op.var)))]

    def seek(self, op: Seek, scope: _Scope) -> None:
        """One number says where to go; inside, the variable is in its range like that of a loop."""
        if op.value.axes or op.value.dtype != i64 or op.results or op.body.params or op.body.yields:
            _fail("a body that is sought by anything but an i64, or gives or takes values", op)
        self.block(op.body, scope.inside(op.var, self.range(op, scope)))

    def branch(self, op: If, scope: _Scope) -> None:
        """The condition is the same for the whole tile; nothing comes out."""
        if any(c.axes or c.dtype != bool_ for c in op.conds):
            _fail("a block is run by scalar conditions", op)
        if any(t.vars - scope.bound for t in op.terms) or op.results or op.body.params or op.body.yields:
            _fail("a condition on tile axes, or a value out of a conditional block", op)
        self.block(op.body, scope.inside(None, [f for t in op.terms for f in consequences(t)]))

    def prefetch(self, op: Prefetch, scope: _Scope) -> None:
        """One element, of a buffer of the program."""
        if op.buffer not in self.buffers or any(t.vars - scope.bound for t in op.indices):
            _fail("a prefetch of something else than one element of a buffer", op)

    def check(self, op: Check, scope: _Scope) -> None:
        """An integer tile against a size; the code (from 1) has a text."""
        if not op.value.dtype.is_int or op.size.vars - scope.bound or any(c.dtype != bool_ for c in op.conds):
            _fail("a check needs an integer tile, a size and bool conditions", op)
        self.axes(op.mask, scope, op)
        if not 1 <= op.code <= len(self.program.checks):
            _fail(f"check {op.code} has no text among {len(self.program.checks)}", op)


def _names(axes: Iterable[Var]) -> str:
    return "{" + ", ".join(sorted(a.name for a in axes)) + "}"


_RULES: dict[type[TileOp], Callable[..., None]] = {
    Load: _Checker.load, Store: _Checker.store, Const: _Checker.const, Iota: _Checker.iota, Predicate: _Checker.predicate,
    Map: _Checker.map, Reduce: _Checker.reduce, Scan: _Checker.scan, Dot: _Checker.dot, Broadcast: _Checker.broadcast,
    Rename: _Checker.rename, For: _Checker.loop, Seek: _Checker.seek, If: _Checker.branch,
    Prefetch: _Checker.prefetch, Check: _Checker.check,
}
