"""Scalar expressions of a stage's body to tile values."""

from __future__ import annotations

from collections.abc import Iterator

from codegen.lower.context import Context, InMemory, InRegisters, storage_index, without_implied
from codegen.tile.ir import Check, Iota, Load, Predicate, Rename, Slot, Value, tile_axes_of, union_axes
from dsl.algebra import index_condition, index_term, walk
from dsl.dim import Term, Var
from dsl.dtype import Dtype, bool_, i64
from dsl.errors import InternalError
from dsl.expr import Cast, Const, Expr, Index, Op, Read, Where
from dsl.opset import OPS, PRECISIONS
from dsl.placing import Placed


def lower_value(cx: Context, e: Expr, p: Placed) -> Value:
    """The tile of ``e`` over the tile axes it depends on; equal expressions in one scope are emitted once.

    Operands come before their users, so that however deep an expression is, only selections nest calls.
    """
    for node in _pending(cx, e, p):
        cx.memo[cx.key(node, p)] = _lower(cx, node, p)
    value = cx.known(e, p)
    assert value is not None
    return value


def _pending(cx: Context, root: Expr, p: Placed) -> Iterator[Expr]:
    """What is not emitted yet of an expression, operands first; what a selection or an index condition does with its own is left to it."""
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        e, ready = stack.pop()
        if cx.known(e, p) is not None:
            continue
        if ready or not e.args or isinstance(e, Where) or index_condition(e) is not None:
            yield e
            continue
        stack.append((e, True))
        stack.extend((a, False) for a in reversed(e.args))


def _lower(cx: Context, e: Expr, p: Placed) -> Value:
    b = cx.builder
    if isinstance(e, Const):
        return b.const(e.value, e.dtype)
    if isinstance(e, Index):
        return iota(cx, cx.term(e.term, p))
    if isinstance(e, Read):
        return lower_read(cx, e, p, ())
    if isinstance(e, Cast):
        return _cast(cx, e, p)
    if isinstance(e, Where):
        return _where(cx, e, p)
    if isinstance(e, Op) and e.name in PRECISIONS:
        return lower_value(cx, e.args[0], p)  # outside a dot there is nothing to permit
    if isinstance(e, Op):
        terms = index_condition(e)
        if terms is not None:
            return predicate(cx, tuple(cx.term(t, p) for t in terms))
        return b.map(e.name, tuple(lower_value(cx, a, p) for a in e.args), e.dtype)
    raise InternalError(f"a {type(e).__name__} reached the lowering of {p.stage.name}", "reductions and scans are stages of their own")


def iota(cx: Context, t: Term) -> Value:
    """The value of an index term."""
    if t.is_const:
        return cx.builder.const(t.const, i64)
    return cx.builder.define(Iota(t), Value(i64, tile_axes_of(t, cx.tile)))


def _cast(cx: Context, e: Cast, p: Placed) -> Value:
    """A conversion; a pair that only rounds to a narrower float and back stays, since it rounds."""
    inner = e.args[0]
    return cx.builder.map("cast", (lower_value(cx, inner, p),), e.dtype)


def predicate(cx: Context, terms: tuple[Term, ...]) -> Value:
    """The truth of index conditions, as a bool tile; what is proved is left out."""
    left = cx.unproved(terms)
    if not left:
        return cx.builder.const(True, bool_)
    axes = tuple(sorted({a for t in left for a in tile_axes_of(t, cx.tile)}, key=lambda v: v.uid))
    return cx.builder.define(Predicate(left), Value(bool_, axes))


def _where(cx: Context, e: Where, p: Placed) -> Value:
    """A selection. ``where(index condition, x[...], 0)`` is a masked load, which reads zero where it is masked off."""
    cond, then, other = e.args
    terms = index_condition(cond)
    if terms is not None:
        resolved = tuple(cx.term(t, p) for t in terms)
        left = cx.unproved(resolved)
        if not left:
            return lower_value(cx, then, p)
        if any(cx.holds(-1 - t) for t in left):
            return lower_value(cx, other, p)
        source = _plain_read(then)
        if (source is not None and not source.args and isinstance(other, Const) and other.value == 0 and str(other.data[0]) != "-0.0"
                and _in_memory(cx, source)):
            value = lower_read(cx, source, p, left)
            return value if then is source else cx.builder.map("cast", (value,), then.dtype)
    c = lower_value(cx, cond, p)
    first = _guarded(cx, then, p, c) if _gathers(then) else lower_value(cx, then, p)
    second = _guarded(cx, other, p, cx.builder.map("not", (c,), bool_)) if _gathers(other) else lower_value(cx, other, p)
    return cx.builder.map("where", (c, first, second), e.dtype)


def _gathers(e: Expr) -> bool:
    """Whether an index in it is data, and so is checked while the kernel runs."""
    return any(isinstance(n, Read) and n.args for n in walk(e))


def _guarded(cx: Context, e: Expr, p: Placed, cond: Value) -> Value:
    """A value only looked at where ``cond`` holds: its gathers are checked only there."""
    saved, cx.guards = cx.guards, (*cx.guards, cond)
    try:
        return lower_value(cx, e, p)
    finally:
        cx.guards = saved


def _never(terms: tuple[Term, ...]) -> bool:
    """Whether one of the conditions is false at every point."""
    return any(t.is_const and t.const < 0 for t in terms)


def _plain_read(e: Expr) -> Read | None:
    if isinstance(e, Cast) and isinstance(e.args[0], Read):
        return e.args[0]
    return e if isinstance(e, Read) else None


def _in_memory(cx: Context, r: Read) -> bool:
    return isinstance(cx.bindings.get(r.tensor), InMemory)


def lower_read(cx: Context, r: Read, p: Placed, mask: tuple[Term, ...]) -> Value:
    """A read as a load with the masks that could not be proved away, or the tile that holds the region."""
    binding = cx.bindings.get(r.tensor)
    if binding is None:
        raise InternalError(f"{p.stage.name} reads {r.tensor.name} before it is computed")
    if isinstance(binding, InRegisters):
        return _from_registers(cx, r, p, binding)
    slots: list[Slot] = []
    conds: list[Value] = []
    point = [i for i in r.indices if isinstance(i, Term)]
    if len(point) < len(r.indices):
        if binding.placed is not None:
            raise InternalError(f"{r.tensor.name} is indexed by data but kept in a private region")
        slots, conds = _gather_slots(cx, r, p)
    else:
        slots = list(storage_index(binding, tuple(cx.term(i, p) for i in point)))
        slots = [s.subs(cx.env) if isinstance(s, Term) else s for s in slots]
    need = [t for s, n in zip(slots, binding.buffer.shape) if isinstance(s, Term) for t in (s, n - 1 - s)]
    full = without_implied((*mask, *cx.unproved(need)))
    if _never(full):
        dtype = binding.buffer.dtype
        return cx.builder.const(0.0 if dtype.is_float else False if dtype == bool_ else 0, dtype)
    unwritten = cx.unproved(p.bound) if cx.mask_private and binding.placed is not None and not full else ()
    return load(cx, InMemory(binding.buffer), tuple(slots), full or unwritten, tuple(conds), r)


def load(cx: Context, binding: InMemory, slots: tuple[Slot, ...], mask: tuple[Term, ...], conds: tuple[Value, ...], r: Read) -> Value:
    """Emit a load; its axes are those of the indices and masks."""
    axes: set[Var] = set()
    for s in (*slots, *mask):
        axes |= set(tile_axes_of(s, cx.tile)) if isinstance(s, Term) else set(s.axes)
    axes |= set(union_axes(*conds))
    cx.builder.loc = r.loc
    value = Value(binding.buffer.dtype, tuple(sorted(axes, key=lambda v: v.uid)), binding.buffer.name)
    return cx.builder.define(Load(binding.buffer, slots, mask, conds), value)


def _gather_slots(cx: Context, r: Read, p: Placed) -> tuple[list[Slot], list[Value]]:
    """Indices of a gather; each data-dependent one is checked at run time and masked, so that no stray address is touched."""
    slots: list[Slot] = []
    conds: list[Value] = []
    for n, i in enumerate(r.indices):
        if isinstance(i, Term):
            slots.append(cx.term(i, p))
            continue
        v = lower_value(cx, i, p)
        v = v if v.dtype == i64 else cx.builder.map("cast", (v,), i64)
        inside = _inside(cx, v, r.tensor.shape[n])
        conds.append(inside)
        slots.append(v)
        if not _proved_inside(i, r.tensor.shape[n]):
            code = len(cx.checks) + 1
            cx.checks.append(f"index {n} of {r.tensor.name}: `{i}` is outside [0, {r.tensor.shape[n]}) ({r.loc})")
            cx.builder.add(Check(v, r.tensor.shape[n], code, cx.unproved([*p.spatial, *p.bound]), cx.guards))
    return slots, conds


def _proved_inside(i: Expr, size: Term) -> bool:
    """Whether the index is clamped by construction: ``min(max(e, 0), size - 1)``."""
    if isinstance(i, Cast):
        return _proved_inside(i.args[0], size)
    return (isinstance(i, Op) and i.name == "min" and isinstance(i.args[0], Op) and i.args[0].name == "max"
            and isinstance(i.args[1], (Const, Index)) and (most := index_term(i.args[1])) is not None and most + 1 == size)


def _inside(cx: Context, v: Value, size: Term) -> Value:
    b = cx.builder
    low = b.map("ge", (v, b.const(0, i64)), bool_)
    return b.map("and", (low, b.map("lt", (v, iota(cx, size)), bool_)), bool_)


# -- tiles in registers --------------------------------------------------------------------------------------------
def match_tile(r: Read, consumer: Placed, producer: Placed, env: dict[Var, Term]) -> tuple[tuple[Var, Var], ...] | None:
    """(producer axis, consumer axis) pairs when a read covers exactly the producer's tile; None when it does not.

    A consumer that walks along an axis in a loop takes one point of it at a time, not the tile.
    """
    tile = {x.var for x in consumer.loops if x.tile}
    pairs: list[tuple[Var, Var]] = []
    tile = {x.var for x in consumer.loops if x.tile}
    for axis, i in zip(producer.stage.axes, r.indices):
        if not isinstance(i, Term):
            return None
        here = i.subs(consumer.value).subs(env) - producer.start[axis].subs(env)
        there = producer.value[axis] - producer.start[axis]
        if here.const != there.const or len(here.parts) != len(there.parts):
            return None
        for mono, c in there.parts.items():
            partner = next((m for m, k in here.parts.items() if k == c), None)
            if partner is None or len(mono) != 1 or len(partner) != 1 or not isinstance(mono[0], Var) or not isinstance(partner[0], Var):
                return None
            if mono[0].extent != partner[0].extent or partner[0] not in tile:
                return None
            pairs.append((mono[0], partner[0]))
    return tuple(pairs)


def _from_registers(cx: Context, r: Read, p: Placed, binding: InRegisters) -> Value:
    pairs = match_tile(r, p, binding.placed, cx.env)
    if pairs is None:
        raise InternalError(f"{p.stage.name} reads {r.tensor.name} at {r.indices}, which is not the tile it is kept in")
    moved = tuple((a, b) for a, b in pairs if a is not b and a in binding.value.axes)
    if not moved:
        return binding.value
    names = dict(moved)
    axes = tuple(sorted((names.get(a, a) for a in binding.value.axes), key=lambda v: v.uid))
    return cx.builder.define(Rename(binding.value, moved), Value(binding.value.dtype, axes, binding.value.hint))


class TileAlgebra:
    """The :class:`dsl.carrier.Algebra` whose values are tiles."""

    def __init__(self, cx: Context) -> None:
        self.cx = cx

    def op(self, name: str, *args: Value) -> Value:
        """A pointwise operation; comparisons give bool."""
        return self.cx.builder.map(name, args, bool_ if OPS[name].rule == "bool" else args[0].dtype)

    def const(self, value: float, dtype: Dtype) -> Value:
        """A literal."""
        v = bool(value) if dtype is bool_ else float(value) if dtype.is_float else int(value)
        return self.cx.builder.const(v, dtype)

    def where(self, cond: Value, a: Value, b: Value) -> Value:
        """Selection."""
        return self.cx.builder.map("where", (cond, a, b), a.dtype)

    def cast(self, x: Value, dtype: Dtype) -> Value:
        """Conversion."""
        return x if x.dtype == dtype else self.cx.builder.map("cast", (x,), dtype)

    def dtype(self, x: Value) -> Dtype:
        """The dtype of a tile."""
        return x.dtype
