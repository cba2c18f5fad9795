"""Stages to loops: placement of producers, peeling, carried reduction states, stores."""

from __future__ import annotations

from codegen.lower.context import Context, InMemory, InRegisters, storage_index, storage_shape
from codegen.lower.guarded import with_guards
from codegen.lower.parting import Piece, branches, cut
from codegen.lower.pieces import Body, bare_loops, inner_vars, pieces
from codegen.lower.placing import in_registers, single
from codegen.lower.prefetch import emit_prefetches
from codegen.lower.reduction import Update, finalize, identity_states, lift_masked, merge_tile, update
from codegen.lower.roll import begin_sums, emit_roll
from codegen.lower.scan import Along
from codegen.lower.seek import fill, met, place_of
from codegen.lower.states import StateMemory
from codegen.lower.values import lower_value
from codegen.tile.ir import Block, Buffer, For, If, Seek, Store, Value
from codegen.tile.layout import contiguous
from dsl.dim import ZERO, Term, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Reduce, Scan
from dsl.nest import GRID_ROLES, Stage
from dsl.placing import Placed, PlacedLoop
from dsl.sought import goal


def emit_stage(cx: Context, stage: Stage) -> None:
    """Emit one stage's loops at the current point (inside its grid when it is a root)."""
    p = cx.placed[stage.name]
    for x in p.loops:
        if x.tile:
            cx.tile.add(x.var)
            if x.role == "vectorize":
                cx.lanes.add(x.var)
    loops = [x for x in p.loops if not x.tile and x.role not in GRID_ROLES]
    _declare(cx, stage, p)
    emit_attached(cx, stage, "", *(x.name for x in p.loops if x.role in GRID_ROLES))
    if stage.kind == "reduce":
        emit_reduce(cx, stage, p, loops)
    elif stage.kind == "scan":
        _emit_scan(cx, stage, p, loops)
    elif stage.kind == "roll":
        rows = [x for x in loops if not x.reduce]
        begin_sums(cx, stage, p)
        emit_loops(cx, stage, p, rows, lambda: emit_roll(cx, stage, p, emit_attached))
    else:
        _branched(cx, branches(cx, stage, p) if stage.notes.get("parted") else [],
                  lambda: emit_loops(cx, stage, p, loops, lambda: _emit_map(cx, stage, p)))


def _branched(cx: Context, conditions: list[Term], body: Body) -> None:
    """The body under each condition and under its opposite, less those known by then."""
    left = [t for t in conditions if not cx.holds(t) and not cx.holds(-1 - t)]
    if not left:
        body()
        return
    for fact in (left[0], -1 - left[0]):
        block = Block()
        cx.builder.add(If((fact,), block))
        with cx.block(block, facts=[fact]):
            _branched(cx, left[1:], body)


def emit_attached(cx: Context, stage: Stage, *loops: str) -> None:
    """Emit the producers attached at a loop of ``stage`` (or at several that begin at one place), in dependence order."""
    for s in cx.nest.stages:
        if s.attach is not None and s.attach[0] == stage.name and s.attach[1] in loops:
            emit_stage(cx, s)


def _declare(cx: Context, stage: Stage, p: Placed) -> None:
    """Decide where a private stage lives: a tile in registers when every consumer reads exactly its tile, else a scratch buffer."""
    if stage.attach is None or stage.beside or stage.kind == "roll" or (in_registers(cx, stage, p) and not stage.notes.get("memory")):
        return
    for t in stage.tensors:
        if t not in cx.nest.program.outputs and not _declared(cx.bindings.get(t)):
            shape = storage_shape(p)
            if any(v.kind != "dim" for s in shape for v in s.vars):
                raise ScheduleError(
                    f"{stage.name} computed at {stage.attach[1]} of {stage.attach[0]} needs {shape} elements of private memory",
                    "the size is not the same for every iteration", "compute it as a root instead")
            buffer = Buffer(cx.unique(t.name), t.dtype, shape, contiguous(shape), "scratch")
            cx.scratch.append(buffer)
            cx.bindings[t] = InMemory(buffer, p)


def _declared(binding: object) -> bool:
    """Whether a stage has its memory already: from an earlier piece of the loop it is computed in, or because it updates a state."""
    return isinstance(binding, InMemory) and binding.placed is not None


# -- loops ---------------------------------------------------------------------------------------------------------
def emit_loops(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop], body: Body) -> None:
    """Nest the loops around ``body``; producers attached at a loop come first inside it."""
    if not loops:
        body()
        return
    x, rest = loops[0], loops[1:]

    def inner() -> None:
        emit_attached(cx, stage, x.name)
        emit_loops(cx, stage, p, rest, body)

    if single(x):
        inner()
        return
    if x.role == "seek":
        _emit_seek(cx, stage, p, x, inner)
        return
    if x.name in stage.notes.get("skip", {}):
        within = Block()
        cx.builder.add(If((), within, met(cx, stage, p, x)))
        with cx.block(within):
            _emit_rounds(cx, stage, p, x, inner)
        return
    _emit_rounds(cx, stage, p, x, inner)


def _emit_rounds(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, inner: Body) -> None:
    """One loop, in its pieces."""
    notes = stage.notes
    for c in _parts(cx, stage, p, x):
        if c.lo.is_const and c.hi - c.lo == 1:  # a ragged end at a known place: its masks are constants
            with cx.block(cx.builder.block, {x.var: c.value.subs({c.var: c.lo})}, [f.subs({c.var: c.lo}) for f in c.facts]):
                inner()
            continue
        block = Block()
        cx.builder.add(For(c.var, c.lo, c.hi, (), block, int(notes.get("pipeline", {}).get(x.name, 1)),
                           int(notes.get("unroll_by", {}).get(x.name, 1))))
        with cx.block(block, {x.var: c.value}, list(c.facts)):
            emit_prefetches(cx, stage, p, x, c.var)
            inner()


def _emit_seek(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, body: Body) -> None:
    """The iteration that data names, for each piece of the loop that it may lie in."""
    found = goal(stage, p, x.name)
    if isinstance(found, str):
        raise ScheduleError(f"seek({x.name!r}): nothing says at which iteration a term of {stage.name} counts", found)
    at = place_of(cx, p, found)
    for var, lo, hi, facts in pieces(cx, p, x):
        block = Block()
        cx.builder.add(Seek(var, at, lo, hi, block))
        with cx.block(block, {x.var: as_term(var)}, facts):
            body()


def _parts(cx: Context, stage: Stage, p: Placed, x: PlacedLoop) -> list[Piece]:
    """The pieces of a loop, cut where the conditions of a stage change if its schedule says so."""
    whole = [Piece(var, lo, hi, as_term(var), tuple(facts)) for var, lo, hi, facts in pieces(cx, p, x)]
    if not stage.notes.get("parted"):
        return whole
    inner = (cx.tile | inner_vars(cx)) - {x.var}
    return [part for w in whole for part in cut(cx, stage, p, x, w, inner)]


# -- map stages ----------------------------------------------------------------------------------------------------
def _emit_map(cx: Context, stage: Stage, p: Placed) -> None:
    values = [lower_value(cx, t.body, p) for t in stage.tensors]
    for t, v in zip(stage.tensors, values):
        bind_result(cx, stage, p, t, v)


def bind_result(cx: Context, stage: Stage, p: Placed, t: Compute, v: Value) -> None:
    """Keep a stage's tile in registers, and store it where the tensor lives in memory."""
    binding = cx.bindings.get(t)
    cx.builder.loc = t.loc
    if isinstance(binding, InMemory):
        if binding.placed is None:
            slots = tuple(cx.term(as_term(a), p) for a in stage.axes)
            mask = cx.unproved(p.spatial)
        else:
            slots = tuple(s.subs(cx.env) for s in storage_index(binding, tuple(p.value[a] for a in stage.axes)))
            need = [u for s, n in zip(slots, binding.buffer.shape) for u in (s, n - 1 - s)]
            mask = cx.unproved([*need, *(p.spatial if stage.along else ())])  # other blocks have what lies past this one
        if v.dtype != binding.buffer.dtype:
            v = cx.builder.map("cast", (v,), binding.buffer.dtype)
        cx.builder.add(Store(binding.buffer, slots, v, mask, streaming=bool(stage.notes.get("streaming"))))
    if stage.attach is not None and (not isinstance(binding, InMemory) or (binding.placed is None and in_registers(cx, stage, p))):
        held = t.dtype.held  # a state may be wider than the result
        cx.bindings[t] = InRegisters(v if v.dtype == held else cx.builder.map("cast", (v,), held), p)


# -- scans ---------------------------------------------------------------------------------------------------------
def _emit_scan(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop]) -> None:
    """Loops over the rows, inside them those along the scan; where rows run inside, their states lie in memory."""
    loops = [x for x in loops if not single(x) or _has_attached(cx, stage, x.name)]
    first = next((n for n, x in enumerate(loops) if x.reduce), len(loops))
    last_row = max((n for n, x in enumerate(loops) if not x.reduce), default=-1)
    along = Along(cx, stage, p, pieces, lambda loop: emit_attached(cx, stage, loop))

    def store(states: tuple[Value, ...]) -> None:
        results = finalize(cx, along.u, states)
        for t in stage.tensors:
            bind_result(cx, stage, p, t, results[t.body.data[3]])

    def carried() -> None:
        along.emit(loops[first:], store)

    if last_row < first:
        emit_loops(cx, stage, p, loops[:first], carried)
        return

    def through_memory() -> None:
        mixed, inner = loops[first:last_row + 1], loops[last_row + 1:]
        rows = [x for x in mixed if not x.reduce]
        memory = StateMemory.of(cx, stage, rows, along.rows.axes, along.u.dtypes)
        bare_loops(cx, p, rows, lambda: memory.store(cx, identity_states(cx, along.rows)))
        emit_loops(cx, stage, p, mixed, lambda: memory.store(cx, along.emit(inner, store, memory.load(cx))))

    emit_loops(cx, stage, p, loops[:first], through_memory)


# -- reducing stages -----------------------------------------------------------------------------------------------
def emit_reduce(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop]) -> None:
    """Spatial loops, then reduction loops with the state carried in registers; through memory where spatial loops lie inside."""
    p = with_guards(stage, p)
    loops = [x for x in loops if not single(x) or _has_attached(cx, stage, x.name)]
    first = next((n for n, x in enumerate(loops) if x.reduce or x.role == "seek"), len(loops))
    last_spatial = max((n for n, x in enumerate(loops) if not x.reduce), default=-1)
    if last_spatial < first:
        emit_loops(cx, stage, p, loops[:first], lambda: _reduce_in_registers(cx, stage, p, loops[first:]))
        return
    emit_loops(cx, stage, p, loops[:first],
               lambda: _reduce_through_memory(cx, stage, p, loops[first:last_spatial + 1], loops[last_spatial + 1:]))


def _has_attached(cx: Context, stage: Stage, loop: str) -> bool:
    return any(s.attach == (stage.name, loop) for s in cx.nest.stages)


def _reduce_in_registers(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop]) -> None:
    u = Update.of(cx, stage, p)
    states = _carry(cx, stage, p, loops, u, None)
    results = finalize(cx, u, merge_tile(cx, u, states))
    for t in stage.tensors:
        assert isinstance(t.body, (Reduce, Scan))
        bind_result(cx, stage, p, t, results[t.body.data[2]])


def _carry(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop], u: Update, states: tuple[Value, ...] | None) -> tuple[Value, ...]:
    """Reduction loops around the update; returns the final states."""
    if not loops:
        if states is None and not u.dot:
            return lift_masked(cx, u)
        return update(cx, u, states if states is not None else identity_states(cx, u))
    if states is None:
        states = identity_states(cx, u)
    x = loops[0]
    if single(x):
        emit_attached(cx, stage, x.name)
        return _carry(cx, stage, p, loops[1:], u, states)
    notes = stage.notes
    copies = int(notes.get("unroll_by", {}).get(x.name, 1))
    for var, lo, hi, facts in pieces(cx, p, x):
        if copies > 1 and (hi - lo).is_const and (hi - lo).const <= copies:  # no loop is left
            for n in range((hi - lo).const):
                at = lo + n
                with cx.block(cx.builder.block, {x.var: at}, [f.subs({var: at}) for f in facts]):
                    emit_attached(cx, stage, x.name)
                    states = _carry(cx, stage, p, loops[1:], u, states)
            continue
        block = Block(params=tuple(Value(s.dtype, s.axes, s.hint) for s in states))
        loop = For(var, lo, hi, states, block, int(notes.get("pipeline", {}).get(x.name, 1)), copies)
        with cx.block(block, {x.var: as_term(var)}, facts):
            emit_prefetches(cx, stage, p, x, var)
            emit_attached(cx, stage, x.name)
            block.yields = _carry(cx, stage, p, loops[1:], u, block.params)
        results = tuple(Value(s.dtype, s.axes, s.hint) for s in states)
        cx.builder.add(loop, *results)
        states = results
    return states


def _reduce_through_memory(cx: Context, stage: Stage, p: Placed, outer: list[PlacedLoop], inner: list[PlacedLoop]) -> None:
    """States live in memory between iterations of the outer reduction loops.

    They lie where the results go when they are of the same kind, else apart.
    """
    u = Update.of(cx, stage, p)
    t = stage.tensors[0]
    binding = cx.bindings.get(t)
    whole = u.dot or u.each or not u.inner
    if (not isinstance(binding, InMemory) or len(u.dtypes) != 1 or t.dtype != u.dtypes[0] or not u.plain or not whole
            or len(stage.tensors) > 1):
        _reduce_through_states(cx, stage, p, outer, inner)
        return

    def body() -> None:
        began = None if u.goals else sum((cx.env.get(x.var, ZERO) for x in outer if x.reduce), ZERO) - 1
        states = _carry(cx, stage, p, inner, u, (u.reload(cx, binding, began),))
        bind_result(cx, stage, p, t, merge_tile(cx, u, states)[0])

    if u.goals:  # not every element is met
        fill(cx, stage, p, [x for x in outer if not x.reduce], lambda: bind_result(cx, stage, p, t, identity_states(cx, u)[0]))
    emit_loops(cx, stage, p, outer, body)


def _reduce_through_states(cx: Context, stage: Stage, p: Placed, outer: list[PlacedLoop], inner: list[PlacedLoop]) -> None:
    """Three passes over the elements: identities, the reduction with its states in private memory, results."""
    u = Update.of(cx, stage, p)
    elements = [x for x in outer if not x.reduce]
    memory = StateMemory.of(cx, stage, elements, u.axes, u.dtypes)

    def finish() -> None:
        results = finalize(cx, u, merge_tile(cx, u, memory.load(cx)))
        for t in stage.tensors:
            assert isinstance(t.body, Reduce)
            bind_result(cx, stage, p, t, results[t.body.data[2]])

    fill(cx, stage, p, elements, lambda: memory.store(cx, identity_states(cx, u)))
    emit_loops(cx, stage, p, outer, lambda: memory.store(cx, _carry(cx, stage, p, inner, u, memory.load(cx))))
    bare_loops(cx, p, elements, finish)


