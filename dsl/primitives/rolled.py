"""A nest with the stages of a pass put in: readers renewed, producers first, what nobody reads any more dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dsl.algebra import reads, substitute, substitute_values
from dsl.carrier import partial
from dsl.cascade.factored import product
from dsl.cascade.model import Accumulator, Cascade
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Const, Expr, Op, Reduce, Tensor, Where, cast, index, op, where
from dsl.nest import Nest, Stage
from dsl.opset import PRECISIONS
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.record import primitive
from dsl.widen import contains


@primitive
def region(nest: Nest, stage: str, loop: str) -> Nest:
    """Take a row loop of a rolling stage away: the stages in its loop over blocks run over those rows instead.

    before::

        m.roll: for i in 64
                  for k_b: m.new: for k

    after ``region(m.roll, i)``::

        m.roll: for k_b: m.new: for i in 64: for k

    Raises:
        ScheduleError: not a rolling stage, or not one of its row loops.
    """
    s = nest[stage]
    if not s.states or loop not in s.order or loop in s.reducing():
        raise ScheduleError(f"region({stage!r}, {loop!r}): not a row loop of a rolling stage", f"its loops are {', '.join(s.order)}")
    return nest.with_stage(replace(s, order=tuple(x for x in s.order if x != loop)))


def with_pass(nest: Nest, new: list[Stage], replaced: Mapping[Tensor, Tensor], gone: set[str]) -> Nest:
    """The nest with stages added and others gone; every reader sees the definitions that stand for those replaced.

    Raises:
        ScheduleError: a new stage reads what depends on it.
    """
    moved: dict[Tensor, Tensor] = dict(replaced)
    stages = [with_bodies(s, moved, {}) for s in nest.stages if s.name not in gone]
    for s in new:
        if any(r.tensor in moved for t in s.tensors for r in reads(t.body)):
            raise ScheduleError(f"{s.name} reads what depends on it", "the reductions of a pass depend on one another outside of it")
    return moved_nest(nest, (*stages, *new), moved)


def beside(acc: Accumulator, c: Cascade, name: str) -> Stage:
    """An accumulator that no row of a pass changes, as a reduction of its own over its other axes."""
    own = tuple(Var(v.name, v.extent) for v in acc.extra)
    bound = tuple(Var(v.name, v.extent) for v in c.axes)
    env = {v: as_term(o) for v, o in zip((*acc.extra, *c.axes), (*own, *bound))}
    inputs, carrier = tuple(substitute(e, env) for e in acc.inputs), partial(acc.carrier)
    names = [name] if len(acc.state) == 1 else [f"{name}{n}" for n in range(len(acc.state))]
    tensors = tuple(Compute(label, own, Reduce(inputs, (carrier, bound, n), t.dtype, acc.loc), acc.loc)
                    for n, (label, t) in enumerate(zip(names, acc.state)))
    s = Stage(name, tensors, own, bound)
    return replace(s, order=tuple(s.axis_names().values()))


def arranged(nest: Nest, host: str, again: bool = False) -> Nest:
    """Producers first again, dead stages dropped, and producers of one tile attached in the loop.

    Args:
        nest: a nest with the stages of a pass.
        host: the rolling stage.
        again: whether producers that others read too are computed a second time for the loop.
    """
    return _attach_producers(_again(_ordered(nest), host) if again else _ordered(nest), host)


def _ordered(nest: Nest) -> Nest:
    """Producers first, without stages that nothing needs."""
    needed: set[str] = set()
    todo = [s for s in nest.stages if nest.is_output(s)]
    while todo:
        s = todo.pop()
        if s.name not in needed:
            needed.add(s.name)
            todo += [p for t in s.sources() if (p := nest.producer(t)) is not None]
            todo += [x for x in nest.stages if x.attach is not None and x.attach[0] == s.name]
    kept = [s for s in nest.stages if s.name in needed]
    order: list[Stage] = []
    placed: set[str] = set()

    def visit(s: Stage) -> None:
        if s.name in placed:
            return
        placed.add(s.name)
        attached = [x for x in kept if x.attach is not None and x.attach[0] == s.name]  # copies of states are the last of them
        for p in (*attached, *(p for p in kept if any(t in s.sources() for t in p.tensors))):
            visit(p)
        order.append(s)

    for s in kept:
        if s.attach is None:
            visit(s)
    return replace(nest, stages=tuple(order))


def _again(nest: Nest, host: str) -> Nest:
    """A copy, for the loop alone, of every reduction over other axes that it and others read, with the rows of the pass outside."""
    loop = nest[host].order[-1]
    for s in reversed(nest.stages):
        readers = [c for c in nest.consumers(s) if c.attach == (host, loop)]
        if (s.kind == "reduce" and s.attach is None and readers and len(s.tensors) == 1
                and all(_blocked(c, s) and _by_row(c, s, nest[host]) for c in readers)
                and (len(readers) < len(nest.consumers(s)) or nest.is_output(s) or not _rows_first(readers, s))):
            nest = _copied(nest, s, readers)
    return _ordered(nest)


def _by_row(consumer: Stage, s: Stage, host: Stage) -> bool:
    """Whether other elements of a producer are read for other rows: one that every row reads is better kept."""
    rows = {(v.name, v.extent) for v in host.axes if v.extent is not None and v.extent != 1}
    return all(rows <= {(v.name, v.extent) for i in r.indices if isinstance(i, Term) for v in i.vars}
               for t in consumer.tensors for r in reads(t.body) if r.tensor in s.tensors)


def _block_axis(consumer: Stage, s: Stage) -> set[int]:
    """The positions of a producer's indices that run along the block."""
    return {n for t in consumer.tensors for r in reads(t.body) if r.tensor in s.tensors
            for n, i in enumerate(r.indices) if isinstance(i, Term) and consumer.axes[0] in i.vars}


def _rows_first(readers: list[Stage], s: Stage) -> bool:
    return all(_block_axis(c, s) == {len(s.axes) - 1} for c in readers)


def _copied(nest: Nest, s: Stage, readers: list[Stage]) -> Nest:
    """A producer once more for some of its readers, the axis of the block last."""
    last = {n for c in readers for n in _block_axis(c, s)}
    order = [n for n in range(len(s.axes)) if n not in last] + sorted(last)
    (t,), body = s.tensors, s.body
    own = [Var(v.name, v.extent) for v in s.axes]
    bound = tuple(Var(v.name, v.extent) for v in s.bound)
    env = {v: as_term(o) for v, o in zip((*s.axes, *s.bound), (*own, *bound))}
    args = tuple(substitute(a, env) for a in body.args)
    name = unique_stage(nest, f"{s.name}.again")
    again = Reduce(args, (body.data[0], bound, body.data[2]), body.dtype, body.loc)
    made = Compute(name, tuple(own[n] for n in order), again, t.loc, t.dtype)
    copy = Stage(name, (made,), made.axes, bound)
    copy = replace(copy, order=tuple(copy.axis_names().values()))
    moved: dict[Tensor, Tensor] = {}

    def renewed(c: Stage) -> Stage:
        known: dict[Expr, Expr] = {}
        for r in (r for x in c.tensors for r in reads(x.body) if r.tensor is t):
            at = [index(i) if isinstance(i, Term) else i for i in r.indices]
            known[r] = made.read(*(at[n] for n in order))
        new = tuple(Compute(x.name, x.axes, substitute(substitute_values(x.body, known), {}, moved), x.loc, x.dtype) for x in c.tensors)
        moved.update(zip(c.tensors, new))
        return replace(c, tensors=new)

    names = {c.name for c in readers}
    stages: list[Stage] = []
    for x in nest.stages:
        stages += [copy, x] if x.name == s.name else [renewed(x) if x.name in names else with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(stages), moved)


def _attach_producers(nest: Nest, host: str) -> Nest:
    """Reductions over other axes that only the pass reads, and that have its rows: they are computed for a block at a time."""
    h = nest[host]
    loop = h.order[-1]
    for s in reversed(nest.stages):
        consumers = nest.consumers(s)
        if (s.kind == "reduce" and s.attach is None and consumers and not nest.is_output(s)
                and all(c.attach == (host, loop) for c in consumers)):
            if all(_blocked(c, s) and _by_row(c, s, h) for c in consumers):
                nest = nest.with_stage(replace(s, attach=(host, loop)))
    return nest


def _blocked(consumer: Stage, s: Stage) -> bool:
    """Whether a consumer reads just a block of a producer."""
    at = consumer.axes[0]
    for t in consumer.tensors:
        for r in reads(t.body):
            if r.tensor in s.tensors:
                terms = [i for i in r.indices if isinstance(i, Term)]
                if len(terms) != len(r.indices) or not any(at in i.vars for i in terms):
                    return False
    return True


# -- elements ------------------------------------------------------------------------------------------------------
def parted(e: Expr, extra: frozenset[Var]) -> tuple[Expr | None, Expr | None]:
    """The factors of a product that are free of some axes, and the others; a condition free of them goes with the first."""
    if isinstance(e, Where) and not e.args[0].free & extra and isinstance(e.args[2], Const) and e.args[2].value == 0:
        shared, rest = parted(e.args[1], extra)
        return None if shared is None else where(e.args[0], shared, e.args[2]), rest
    sides: tuple[list[Expr], list[Expr]] = [], []
    for f in _product_of(e):
        sides[bool(f.free & extra)].append(f)
    return product(sides[0]), product(sides[1])


def _product_of(e: Expr) -> tuple[Expr, ...]:
    return (*_product_of(e.args[0]), *_product_of(e.args[1])) if isinstance(e, Op) and e.name == "mul" else (e,)


def bare(e: Expr) -> Expr:
    """A value under its conversions."""
    while isinstance(e, Cast):
        e = e.args[0]
    return e


def without_casts(e: Expr) -> tuple[Expr, Callable[[Expr], Expr]]:
    """A value under the exact conversions and the permissions around it, and what puts those around another."""
    if isinstance(e, Op) and e.name in PRECISIONS:
        core, around = without_casts(e.args[0])
        return core, lambda x: op(e.name, around(x))
    if isinstance(e, Cast) and e.dtype.is_float and contains(e.dtype, e.args[0].dtype):
        core, around = without_casts(e.args[0])
        return core, lambda x: cast(around(x), e.dtype)
    return e, lambda x: x


def point_of(v: Var) -> Expr:
    """Any point along an axis: the first where there is just one."""
    return index(0) if v.extent is not None and v.extent == 1 else index(v)
