"""The innermost step of a reduction: lift, mask, combine; and what happens before and after its loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codegen.analysis.product import dot_precision, narrow, operand_dtype
from codegen.lower.context import Context, InMemory, storage_index
from codegen.lower.guarded import counting
from codegen.lower.values import TileAlgebra, lower_value, predicate
from codegen.tile.ir import Broadcast, Dot, Load, Map, Reduce, Value, tile_axes_of
from dsl.algebra import index_term
from dsl.carrier import Carrier, resumes
from dsl.dim import Term, Var
from dsl.dtype import Dtype, i32, i64
from dsl.equation import assuming
from dsl.errors import ScheduleError
from dsl.expr import Cast, Expr, Op, cast
from dsl.nest import Stage
from dsl.placing import Placed
from dsl.sought import Goal, goals

_POSITIONS = ("argmax", "argmin")  # carriers of a value and where it is


@dataclass
class Update:
    """A reducing stage's step.

    Attributes:
        args: the carrier's inputs.
        start: the state that the reduction goes on from; none when it begins with the identity.
        goals: where data sends the stage's seeking loops; ``args`` take for granted that it did.
        short: whether positions that are results are held in 32 bits, and widened in the end.
        dtypes: dtypes of the state tuple.
        spatial, inner: the stage's spatial and reduction tile axes.
        dot: whether the reduction tile axes are contracted by a dot.
    """

    carrier: Carrier
    args: tuple[Expr, ...]
    p: Placed
    dtypes: tuple[Dtype, ...]
    spatial: tuple[Var, ...]
    inner: tuple[Var, ...]
    dot: bool
    each: bool
    start: tuple[Expr, ...] = ()
    goals: Mapping[str, Goal] = field(default_factory=dict)
    short: bool = False

    @staticmethod
    def of(cx: Context, stage: Stage, p: Placed) -> Update:
        """The step of a stage."""
        body = stage.body
        carrier: Carrier = body.data[0]
        args = counting(stage, p)
        tile = [x for x in p.loops if x.tile]
        spatial = tuple(x.var for x in tile if not x.reduce)
        inner = tuple(x.var for x in tile if x.reduce)
        dot = any(x.role == "dot" for x in tile if x.reduce)
        short = carrier.name.split(".")[0] in _POSITIONS and not resumes(carrier) and _fits(args[1])
        args = (args[0], cast(args[1], i32)) if short else args
        dtypes = carrier.state(tuple(a.dtype for a in args))
        args, start = (args[:-len(dtypes)], args[-len(dtypes):]) if resumes(carrier) else (args, ())
        sought = goals(stage, p)
        for g in sought.values():
            args = tuple(assuming(a, g.equation.condition) for a in args)
        return Update(carrier, args, p, dtypes, spatial, inner, dot, bool(stage.notes.get("reduce_each")), start, sought, short)

    @property
    def plain(self) -> bool:
        """Whether the result is the state itself."""
        return self.carrier.name.split(".")[0] in ("sum", "prod", "max", "min", "any", "all")

    @property
    def axes(self) -> tuple[Var, ...]:
        """Axes of the carried state: the reduction tile's too unless each step reduces them."""
        return self.spatial if self.dot or self.each else tuple(sorted((*self.spatial, *self.inner), key=lambda v: v.uid))

    def reload(self, cx: Context, binding: InMemory, began: Term | None) -> Value:
        """The state left by the previous outer iteration; the identity in the first, which has not ``began``, if that is given."""
        point = tuple(self.p.value[a] for a in self.p.stage.axes)
        slots = tuple(s.subs(cx.env) for s in (storage_index(binding, point) if binding.placed else point))
        need = [t for s, n in zip(slots, binding.buffer.shape) for t in (s, n - 1 - s)]
        axes = tuple(sorted({a for s in slots for a in tile_axes_of(s, cx.tile)}, key=lambda v: v.uid))
        mask = dict.fromkeys((*(() if began is None else (began,)), *cx.unproved(need)))
        value = cx.builder.add(Load(binding.buffer, slots, tuple(mask)),
                               Value(self.dtypes[0], axes, "acc"))
        if began is None or self.carrier.name.startswith("sum"):
            return widen(cx, value, self.axes)
        first = identity_states(cx, self)[0]
        return widen(cx, cx.builder.map("where", (predicate(cx, (began,)), value, first), self.dtypes[0]), self.axes)


def widen(cx: Context, v: Value, axes: tuple[Var, ...]) -> Value:
    """The value over all of ``axes``."""
    if set(v.axes) == set(axes):
        return v
    return cx.builder.define(Broadcast(v), Value(v.dtype, axes, v.hint))


def identity_states(cx: Context, u: Update) -> tuple[Value, ...]:
    """The carrier's identity as tiles of the carried axes; the state to go on from where a dot accumulates into it.

    Elsewhere that state is combined with the rest at the end: the rest is then summed among values of its own size, and over fewer steps.
    """
    if u.start and u.dot:
        return tuple(widen(cx, lower_value(cx, e, u.p), u.axes) for e in u.start)
    hint = "acc" if u.carrier.name.startswith("sum") else u.carrier.name.split(".")[0] if u.carrier.name.isidentifier() else ""
    states = tuple(widen(cx, v, u.axes) for v in u.carrier.identity(TileAlgebra(cx), u.dtypes))
    for v in states:
        v.hint = v.hint or hint
    return states


def lift_masked(cx: Context, u: Update) -> tuple[Value, ...]:
    """The states of the tile's elements; the identity where the element lies past the end of a reduction axis."""
    algebra = TileAlgebra(cx)
    lifted = u.carrier.lift(algebra, tuple(lower_value(cx, a, u.p) for a in u.args), u.dtypes)
    left = cx.unproved(u.p.bound)
    if left and not _zero_outside(cx, u, left):
        inside = predicate(cx, left)
        neutral = u.carrier.identity(algebra, u.dtypes)
        lifted = tuple(algebra.where(inside, v, n) for v, n in zip(lifted, neutral))
    lifted = tuple(widen(cx, v, tuple(sorted({*v.axes, *(u.inner if not u.dot else ())} | set(u.axes), key=lambda a: a.uid)))
                   for v in lifted)
    return _reduced(cx, u, lifted) if u.each and u.inner else lifted


def _zero_outside(cx: Context, u: Update, left: tuple[Term, ...]) -> bool:
    """A sum of products of two loads that are both zero past the end needs no selection."""
    if not u.carrier.name.startswith("sum"):
        return False
    factors = product_factors(u.args[0])
    return factors is not None and all(_masked_by(lower_value(cx, f, u.p), left) for f in factors)


def _masked_by(v: Value, left: tuple[Term, ...]) -> bool:
    op = v.op
    while isinstance(op, Map) and op.name == "cast":
        op = op.operands()[0].op
    return isinstance(op, Load) and set(left) <= set(op.mask)


def product_factors(e: Expr) -> tuple[Expr, Expr] | None:
    """The factors of a product of two, seen through conversions of the product."""
    while isinstance(e, Cast):
        e = e.args[0]
    return (e.args[0], e.args[1]) if isinstance(e, Op) and e.name == "mul" else None


def update(cx: Context, u: Update, states: tuple[Value, ...]) -> tuple[Value, ...]:
    """One step: combine the carried states with the lifted elements, or one dot."""
    if u.dot:
        return (_dot(cx, u, states[0]),)
    fused = _fused_multiply_add(cx, u, states)
    if fused is not None:
        return fused
    lifted = lift_masked(cx, u)
    return tuple(widen(cx, v, u.axes) for v in u.carrier.combine(TileAlgebra(cx), states, lifted))


def _fused_multiply_add(cx: Context, u: Update, states: tuple[Value, ...]) -> tuple[Value, ...] | None:
    """A sum of products in floating point accumulates with fma: one rounding for product and sum.

    A loop that seeks gives the bits of one that does not, where the products stand in a selection.
    """
    if not u.carrier.name.startswith("sum") or not u.dtypes[0].is_float or u.each:
        return None
    factors = product_factors(u.args[0])
    left = cx.unproved(u.p.bound)
    if factors is None or u.goals or (left and not _zero_outside(cx, u, left)):
        return None
    a, b = (TileAlgebra(cx).cast(lower_value(cx, f, u.p), u.dtypes[0]) for f in factors)
    return (widen(cx, cx.builder.map("fma", (a, b, states[0]), u.dtypes[0]), u.axes),)


def _dot(cx: Context, u: Update, acc: Value) -> Value:
    factors = product_factors(u.args[0])
    if factors is None or not u.carrier.name.startswith("sum"):
        raise ScheduleError(f"{u.p.stage.name} is not a sum of products", f"its element is `{u.args[0]}`",
                            "use vectorize on the reduction axis instead of dot")
    left = cx.unproved(u.p.bound)
    dtype = operand_dtype(*factors)
    a, b = (lower_value(cx, narrow(f, dtype), u.p) for f in factors)
    if left:
        a, b = (v if _masked_by(v, left) else _masked(cx, v, left) for v in (a, b))
    product = Dot(a, b, acc, u.inner, dot_precision(*factors))
    return cx.builder.define(product, Value(acc.dtype, u.axes, acc.hint))


def _masked(cx: Context, v: Value, left: tuple[Term, ...]) -> Value:
    return cx.builder.map("where", (predicate(cx, left), v, cx.builder.const(0.0 if v.dtype.is_float else 0, v.dtype)), v.dtype)


def _reduced(cx: Context, u: Update, states: tuple[Value, ...]) -> tuple[Value, ...]:
    axes = tuple(a for a in u.inner if any(a in s.axes for s in states))
    if not axes:
        return states
    out = cx.builder.add(Reduce(u.carrier, states, axes),
                         *(Value(s.dtype, tuple(a for a in s.axes if a not in axes), s.hint) for s in states))
    return out if isinstance(out, tuple) else (out,)


def merge_tile(cx: Context, u: Update, states: tuple[Value, ...]) -> tuple[Value, ...]:
    """Combine the partial states of the reduction tile axes, and the state to go on from if it is not among them yet."""
    states = states if u.dot or u.each else _reduced(cx, u, states)
    if not u.start or u.dot:
        return states
    before = tuple(lower_value(cx, e, u.p) for e in u.start)
    return tuple(widen(cx, v, u.spatial) for v in u.carrier.combine(TileAlgebra(cx), before, states))


def finalize(cx: Context, u: Update, states: tuple[Value, ...]) -> tuple[Value, ...]:
    """The results of the finished states."""
    algebra = TileAlgebra(cx)
    results = u.carrier.finalize(algebra, states)
    return (results[0], algebra.cast(results[1], i64)) if u.short else results


def _fits(position: Expr) -> bool:
    """Whether 32 bits hold a position: as many lie in a register then as of the values beside them."""
    term = index_term(position)
    return term is not None and position.dtype is i64 and -(1 << 31) <= term.bounds[0] and term.bounds[1] < (1 << 31) - 1
