"""A nest with the stages of a pass put in: readers renewed, producers first, what nobody reads any more dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dsl.algebra import reads
from dsl.dim import Term
from dsl.errors import ScheduleError
from dsl.expr import Tensor
from dsl.nest import Nest, Stage
from dsl.primitives.bodies import moved_nest, with_bodies


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


def arranged(nest: Nest, host: str) -> Nest:
    """Producers first again, dead pointwise stages dropped, and producers of one tile attached in the loop."""
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
    return _attach_producers(replace(nest, stages=tuple(order)), host)


def _attach_producers(nest: Nest, host: str) -> Nest:
    """Reductions over other axes that only the pass reads, and that have its rows: they are computed for a block at a time."""
    h = nest[host]
    loop = h.order[-1]
    for s in reversed(nest.stages):
        consumers = nest.consumers(s)
        if (s.kind == "reduce" and s.attach is None and consumers and not nest.is_output(s)
                and all(c.attach == (host, loop) for c in consumers)):
            if all(_blocked(c, s) for c in consumers):
                nest = nest.with_stage(replace(s, attach=(host, loop)))
    return nest


def _blocked(consumer: Stage, s: Stage) -> bool:
    """Whether a consumer reads just a block of a producer, and other elements of it for other rows."""
    at = consumer.axes[0]
    for t in consumer.tensors:
        for r in reads(t.body):
            if r.tensor in s.tensors:
                terms = [i for i in r.indices if isinstance(i, Term)]
                if len(terms) != len(r.indices) or not any(at in i.vars for i in terms):
                    return False
                if not any(v in i.vars for i in terms for v in consumer.axes[1:]):
                    return False
    return True
