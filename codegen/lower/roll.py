"""Rolling stages: a loop over blocks of a reduced axis, with states that the stages attached in it bring up to date.

The states are tiles in registers, carried by the loop, where every stage that updates one keeps its region in one tile; else they lie in
private memory and are updated in place. Sums along the rows lie in the memory of their results, which is set before the first row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from codegen.lower.context import Context, InMemory, InRegisters
from codegen.lower.placing import in_registers, reads_tile
from codegen.lower.reduction import widen
from codegen.lower.relevant import relevant
from codegen.lower.values import lower_value
from codegen.tile.ir import Block, Buffer, For, Load, Store, Value
from codegen.tile.layout import contiguous
from dsl.dim import ONE, ZERO, Term, Var, as_term, cdiv, tile_bound, tmax, tmin
from dsl.errors import ScheduleError
from dsl.expr import Compute, Expr, Read, Tensor
from dsl.nest import GRID_ROLES, Stage, State
from dsl.placing import Placed, PlacedLoop, span

Attached = Callable[[Context, Stage, str], None]
Boxes = list[tuple[Term, Term]]  # for each dimension: the first element, and how many
_FILL = 8  # elements of a state that are set at once


@dataclass
class Carried:
    """One state: its value before a block, the definition of its value after it, where that stands, and the final result.

    ``slots`` are those of a sum along the rows.
    """

    before: Tensor
    after: Compute
    final: Compute
    initial: Expr
    placed: Placed
    slots: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A part of the loop: ``[lo, hi)``, and what is known in it."""

    lo: Term
    hi: Term
    facts: tuple[Term, ...]


def emit_roll(cx: Context, stage: Stage, p: Placed, attached: Attached) -> None:
    """The loop over blocks at one point of the rows' loops."""
    (x,) = (x for x in p.loops if x.reduce)
    states = [c for c in _states(cx, stage) if not c.slots]
    inside = _inside(cx, stage)
    keep = not stage.notes.get("memory") and all(
        in_registers(cx, c.placed.stage, c.placed) and all(reads_tile(cx, s, c.before, c.placed) for s in inside) for c in states)
    (_in_registers if keep else _in_memory)(cx, stage, p, x, states, attached)


def _inside(cx: Context, stage: Stage) -> list[Stage]:
    """The stages computed in the loop."""
    return [s for s in cx.nest.stages if s.attach is not None and s.attach[0] == stage.name]


def _states(cx: Context, stage: Stage) -> list[Carried]:
    return [_carried(cx, t, s) for t, s in zip(stage.tensors, stage.states)]


def _carried(cx: Context, final: Compute, state: State) -> Carried:
    assert isinstance(final.body, Read) and isinstance(final.body.tensor, Compute)
    after = final.body.tensor
    s = cx.nest.producer(after)
    assert s is not None
    return Carried(state.before, after, final, state.initial, cx.placed[s.name], state.slots)


def begin_sums(cx: Context, stage: Stage, p: Placed) -> None:
    """Set the sums along the rows to their initial values, over all that the loops inside the grid will add to."""
    outside = {x.var for x in p.loops if x.role in GRID_ROLES}
    for c in (c for c in _states(cx, stage) if c.slots):
        target = cx.bindings[c.final]
        assert isinstance(target, InMemory)
        at_zero = dict.fromkeys(c.placed.stage.axes, ZERO)
        here = replace(c.placed, start=at_zero, stage=replace(c.placed.stage, layout=c.slots))
        cx.bindings[c.before] = cx.bindings[c.after] = InMemory(target.buffer, here)
        boxes = [span(t.subs(c.placed.value), outside) or (ZERO, n) for t, n in zip(c.slots, target.buffer.shape)]
        _fill(cx, c, p, target.buffer, boxes)


# -- which blocks --------------------------------------------------------------------------------------------------
def segments(cx: Context, stage: Stage, p: Placed, x: PlacedLoop) -> list[Segment]:
    """The blocks in which some element matters, parted where all elements of a block do.

    A stage's note ``guards`` lists terms over its rows, its block and the variable in the note ``inner``, the point in a block; an
    element changes no state where one of them is negative. Blocks without any other element are left out at both ends.
    """
    free = {*p.region, *stage.notes.get("inner", ())}
    lo, hi, full_lo, full_hi = ZERO, x.extent.subs(cx.env), ZERO, x.extent.subs(cx.env)
    known: list[Term] = []
    for g in (g.subs(p.value).subs(cx.env) for g in stage.notes.get("guards", ())):
        k = g.coef(x.var)
        if not k:
            continue
        rest = g.subs({x.var: ZERO})
        best, worst = (tile_bound(rest, free, b) for b in (True, False))
        if k < 0:
            hi, full_hi = tmin(hi, best // -k + 1), tmin(full_hi, worst // -k + 1)
        else:
            lo, full_lo = tmax(lo, cdiv(-best, k)), tmax(full_lo, cdiv(-worst, k))
        known.append(tile_bound(g, free, False))
    lo = tmin(lo, x.extent.subs(cx.env))
    hi = tmax(hi, lo)
    full_lo = tmin(tmax(full_lo, lo), hi)
    full_hi = tmax(tmin(full_hi, hi), full_lo)
    parts = [Segment(lo, full_lo, ()), Segment(full_lo, full_hi, tuple(known)), Segment(full_hi, hi, ())]
    return [s for s in parts if s.lo != s.hi] or [Segment(lo, hi, ())]


def _for_each(cx: Context, x: PlacedLoop, s: Segment, inits: tuple[Value, ...], body: Callable[[tuple[Value, ...]], tuple[Value, ...]],
              stage: Stage) -> tuple[Value, ...]:
    """One segment as a loop that carries values; a single block is no loop."""
    if s.hi - s.lo == ONE:
        with cx.block(cx.builder.block, {x.var: s.lo}, [f.subs({x.var: s.lo}) for f in s.facts]):
            return body(inits)
    var = Var(x.name, s.hi if s.hi.is_const else x.extent)
    block = Block(params=tuple(Value(v.dtype, v.axes, v.hint) for v in inits))
    facts = [f.subs({x.var: as_term(var)}) for f in (*s.facts, s.hi - 1 - as_term(x.var), as_term(x.var) - s.lo)]
    with cx.block(block, {x.var: as_term(var)}, facts):
        block.yields = body(block.params)
    results = tuple(Value(v.dtype, v.axes, v.hint) for v in inits)
    cx.builder.add(For(var, s.lo, s.hi, inits, block, int(stage.notes.get("stages", 1))), *results)
    return results


# -- in registers --------------------------------------------------------------------------------------------------
def _in_registers(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, states: list[Carried], attached: Attached) -> None:
    axes = [tuple(sorted((y.var for y in c.placed.loops if y.tile and not y.reduce), key=lambda v: v.uid)) for c in states]
    values = tuple(widen(cx, replace_hint(lower_value(cx, c.initial, p), c.final.name), a) for c, a in zip(states, axes))

    def body(params: tuple[Value, ...]) -> tuple[Value, ...]:
        for c, v in zip(states, params):
            cx.bindings[c.before] = InRegisters(v, c.placed)
        attached(cx, stage, x.name)
        out = []
        for c, a in zip(states, axes):
            binding = cx.bindings[c.after]
            assert isinstance(binding, InRegisters)
            out.append(widen(cx, binding.value, a))
        return tuple(out)

    for s in segments(cx, stage, p, x):
        values = _for_each(cx, x, s, values, body, stage)
    for c, v in zip(states, values):
        _deliver(cx, stage, c, v)


def replace_hint(v: Value, hint: str) -> Value:
    """The value, under a readable name."""
    v.hint = v.hint or hint
    return v


def _deliver(cx: Context, stage: Stage, c: Carried, v: Value) -> None:
    """The final value of a state to memory or to the readers of its tile."""
    own = c.after.axes[1:]
    target = cx.bindings.get(c.final)
    if isinstance(target, InMemory):
        slots = tuple(c.placed.value[a].subs(cx.env) for a in own)
        cx.builder.add(Store(target.buffer, slots, v, cx.unproved([t for t in c.placed.spatial if x_free(t, c)])))
        if stage.attach is None:
            return
    value = {f: c.placed.value[a] for f, a in zip(c.final.axes, own)}
    start = {f: c.placed.start[a] for f, a in zip(c.final.axes, own)}
    where_ = replace(c.placed, stage=replace(stage, axes=c.final.axes, layout=None), value=value, start=start)
    cx.bindings[c.final] = InRegisters(v, where_)


def x_free(t: Term, c: Carried) -> bool:
    """Whether a guard says nothing about the block."""
    return not (t.vars & c.placed.value[c.after.axes[0]].vars)


# -- in memory -----------------------------------------------------------------------------------------------------
def _in_memory(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, states: list[Carried], attached: Attached) -> None:
    results = [(c, target) for c in states if isinstance(target := cx.bindings.get(c.final), InMemory) and target.placed is None]
    for c in states:
        cx.bindings[c.before] = cx.bindings[c.after] = _memory(cx, stage, c)
        binding = cx.bindings[c.before]
        assert isinstance(binding, InMemory)
        _fill(cx, c, p, binding.buffer, [(ZERO, n) for n in _extents(c)])

    def body(params: tuple[Value, ...]) -> tuple[Value, ...]:
        attached(cx, stage, x.name)
        return ()

    found = relevant(cx.nest, stage, cx.placed)
    for s in segments(cx, stage, p, x):
        cx.relevant = {} if s.facts else found
        _for_each(cx, x, s, (), body, stage)
    cx.relevant = {}
    for c, target in results:
        _copy(cx, c, target)


def _memory(cx: Context, stage: Stage, c: Carried) -> InMemory:
    """Private memory of the region's shape: the stages of a block may look past the rows of the region, at what they do not keep."""
    own = c.after.axes[1:]
    shape = tuple(c.placed.extent[a] for a in own)
    if not all(n.is_const for n in shape):
        raise ScheduleError(f"the state {c.final.name} of {stage.name} needs {shape} elements of private memory",
                            "the size depends on a dimension that is not known")
    buffer = Buffer(cx.unique(c.final.name), c.final.dtype, shape, contiguous(shape), "scratch")
    cx.scratch.append(buffer)
    if stage.attach is not None:
        origin = {f: c.placed.start[a] for f, a in zip(c.final.axes, own)}
        cx.bindings[c.final] = InMemory(buffer, replace(c.placed, stage=replace(stage, axes=c.final.axes, layout=None), start=origin))
    return InMemory(buffer, replace(c.placed, stage=replace(c.placed.stage, layout=tuple(as_term(a) for a in own))))


def _fill(cx: Context, c: Carried, p: Placed, buffer: Buffer, boxes: Boxes) -> None:
    """The initial value over a part of a state's memory."""
    def store(at: tuple[Term, ...], tile: tuple[Var, ...]) -> None:
        value = widen(cx, lower_value(cx, c.initial, p), tile)
        slots = tuple(t + lo.subs(cx.env) for t, (lo, _) in zip(at, boxes))
        inside = [e - 1 - t for t, (_, e) in zip(at, boxes)] + [n - 1 - t for t, n in zip(slots, buffer.shape)]
        cx.builder.add(Store(buffer, slots, value, cx.unproved(inside)))

    _sweep(cx, [n for _, n in boxes], store)


def _copy(cx: Context, c: Carried, target: InMemory) -> None:
    """The final value over the state's region to the result's own memory."""
    binding = cx.bindings[c.before]
    assert isinstance(binding, InMemory)

    def store(at: tuple[Term, ...], tile: tuple[Var, ...]) -> None:
        slots = tuple(t + c.placed.start[a].subs(cx.env) for t, a in zip(at, c.after.axes[1:]))
        inside = cx.unproved([e - 1 - t for t, e in zip(at, binding.buffer.shape)])
        value = cx.builder.add(Load(binding.buffer, at, inside), Value(binding.buffer.dtype, tile, c.final.name))
        cx.builder.add(Store(target.buffer, slots, value, (*inside, *cx.unproved([n - 1 - t for t, n in zip(slots, target.buffer.shape)]))))

    _sweep(cx, _extents(c), store)


def _extents(c: Carried) -> list[Term]:
    """The extents of a state's region."""
    return [c.placed.extent[a] for a in c.after.axes[1:]]


def _sweep(cx: Context, extents: list[Term], store: Callable[[tuple[Term, ...], tuple[Var, ...]], None]) -> None:
    """Loops over a region, the last axis a few elements at a time: ``store(point counted from the region's start, tile axes)``."""
    tile = Var("z", as_term(_FILL)) if extents and extents[-1] != 1 else None
    if tile is not None:
        cx.tile.add(tile)
        cx.lanes.add(tile)

    def at(n: int, point: tuple[Term, ...]) -> None:
        if n == len(extents):
            store(tuple(t.subs(cx.env) for t in point), (tile,) if tile is not None else ())
            return
        last = n == len(extents) - 1 and tile is not None
        count = cdiv(extents[n], _FILL) if last else extents[n]
        inner = as_term(tile) if last and tile is not None else ZERO
        if count == 1:
            at(n + 1, (*point, inner))
            return
        var = Var(f"z{n}", count)
        block = Block()
        cx.builder.add(For(var, ZERO, count, (), block))
        with cx.block(block, {var: as_term(var)}):
            at(n + 1, (*point, as_term(var) * (_FILL if last else 1) + inner))

    at(0, ())
