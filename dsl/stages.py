"""From a program to its unscheduled nest: every reduction and scan becomes a stage of its own, everything else a map stage."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from dsl.algebra import EXPRS, fresh_axes, reads, rebuild, sources, substitute, substitute_values, transform, walk, with_values
from dsl.dim import ZERO, Term, Var, as_term, nonneg, tmax, tmin
from dsl.equation import picked
from dsl.expr import Compute, Expr, Input, Op, Read, Reduce, Scan, Tensor, Where, const, index, op, scan, where
from dsl.nest import Nest, Stage
from dsl.program import Program
from dsl.units import squeeze
from dsl.widen import widen


def build_nest(program: Program, permissions: bool = False, like: Program | None = None) -> Nest:
    """The nest with one stage per definition and per reduction, all of them roots, in the order written.

    Args:
        program: what to compute.
        permissions: see :func:`dsl.widen.widen`.
        like: the same program at the sizes that a schedule was made for; see :func:`dsl.units.squeeze`.
    """
    wide = squeeze(widen(program, permissions), None if like is None else widen(like, permissions))
    stages: list[Stage] = []
    moved: dict[Tensor, Compute] = {}
    for c in wide.computes:
        body = picked(substitute(c.body, {}, moved))
        body = _hoist(c, _with_conditions(body), stages)
        shared = _same_reduction(stages, body, c.axes) if isinstance(body, Reduce) else None
        if shared is not None:
            n, same = shared
            moved[c] = Compute(c.name, stages[n].axes, same, c.loc, c.dtype)
            stages[n] = replace(stages[n], tensors=(*stages[n].tensors, moved[c]))
            continue
        new = Compute(c.name, c.axes, body, c.loc, c.dtype)
        moved[c] = new
        stages.append(_stage(new, _unique(c.name, stages)))
    outputs = tuple(moved[t] for t in wide.outputs)
    done = Program(wide.name, wide.inputs, outputs, wide.single, wide.loc)
    return Nest(done, tuple(stages))


def _unique(name: str, stages: list[Stage]) -> str:
    taken = {s.name for s in stages}
    n, out = 1, name
    while out in taken:
        out, n = f"{name}_{n}", n + 1
    return out


def _stage(c: Compute, name: str) -> Stage:
    bound = c.body.axes if isinstance(c.body, Reduce) else (c.body.data[1],) if isinstance(c.body, Scan) else ()
    s = Stage(name, (c,), c.axes, bound)
    return Stage(name, (c,), c.axes, bound, order=tuple(loop for a, loop in s.axis_names().items() if a is not s.position))


def _hoist(c: Compute, body: Expr, stages: list[Stage]) -> Expr:
    """Replace every reduction and scan strictly inside ``body`` by a read of a new stage over the axes it depends on."""
    memo: dict[Expr, Expr] = {}
    for node in walk(body):
        new = transform(node, lambda e: None, memo)
        if isinstance(new, Scan) and not (node is body and _is_canonical(c, new)):
            memo[node] = _hoisted_scan(c, new, stages)
        elif isinstance(new, Reduce) and node is not body:
            memo[node] = _hoisted(c, new, stages)
    return memo[body]


def _with_conditions(body: Expr) -> Expr:
    """A body whose reductions take the conditions around them along to what they gather, whose indices are checked while the kernel runs.

    Before: ``where(ok[i], sum[k](x[p[i], k] * w[k]), 0)``, where ``p[i]`` is only known to be an index if ``ok[i]``.
    After: ``where(ok[i], sum[k](where(ok[i], x[p[i], k], 0) * w[k]), 0)``. Conditions on axes that a reduction does not know stay outside.
    """
    chosen = (a for e in walk(body) if isinstance(e, Where) for a in e.args[1:])
    if not any(isinstance(e, Reduce) and any(isinstance(r, Read) and r.args for r in walk(e)) for a in chosen for e in walk(a)):
        return body
    memo: dict[tuple[Expr, tuple[Expr, ...], tuple[Expr, ...]], Expr] = {}

    def visit(e: Expr, taken: tuple[Expr, ...], around: tuple[Expr, ...]) -> Expr:
        key = (e, taken, around)
        if key not in memo:
            memo[key] = made(e, taken, around)
        return memo[key]

    def made(e: Expr, taken: tuple[Expr, ...], around: tuple[Expr, ...]) -> Expr:
        if isinstance(e, Where):
            cond, then, other = e.args
            branches = visit(then, taken, (*around, cond)), visit(other, taken, (*around, op("not", cond)))
            return rebuild(e, (visit(cond, taken, around), *branches))
        if isinstance(e, (Reduce, Scan)):
            known = [c for c in (*taken, *around) if isinstance(e, Reduce) and _axes(c) <= _axes(e) and _is_plain(c)]
            return rebuild(e, tuple(visit(a, tuple(known), ()) for a in e.args))
        new = rebuild(e, tuple(visit(a, taken, around) for a in e.args)) if e.args else e
        if isinstance(e, Read) and e.args and taken:
            return where(functools.reduce(lambda a, b: op("and", a, b), taken), new, const(0, e.dtype))
        return new

    return visit(body, (), ())


def _axes(e: Expr) -> set[Var]:
    return {v for v in e.free if v.kind == "axis"}


def _is_plain(e: Expr) -> bool:
    """Whether no reduction or scan occurs."""
    return not any(isinstance(n, (Reduce, Scan)) for n in walk(e))


def _is_canonical(c: Compute, e: Scan) -> bool:
    """Whether the definition holds just the prefixes of every length: inclusive, its own axis runs along the scanned one."""
    at: Term = e.at
    own = next((a for a in c.axes if at == as_term(a)), None)
    return (own is not None and own.extent == e.axis.extent and not e.exclusive and not any(own in x.free for x in e.args)
            and c.dtype == e.dtype)


def _hoisted_scan(c: Compute, e: Scan, stages: list[Stage]) -> Expr:
    """A read of a new stage of prefixes of every length; the empty prefix is the carrier's identity."""
    n = e.axis.extent
    assert n is not None
    last = e.at + 1 if e.exclusive and e.reverse else e.at - 1 if e.exclusive else as_term(e.at)
    state = e.carrier.state(tuple(x.dtype for x in e.args))
    empty = EXPRS.cast(e.carrier.finalize(EXPRS, e.carrier.identity(EXPRS, state))[e.out], e.dtype)
    if n == 0:
        return empty
    rows = {v for x in e.args for v in x.free if v.kind == "axis" and v is not e.axis}
    order = [v for v in c.axes if v in rows or v in e.at.vars]
    order += sorted(rows - set(order), key=lambda v: v.uid)
    along = next((v for v in order if v in e.at.vars and v not in rows), None)
    where_ = order.index(along) if along is not None else len(order)
    kept = [v for v in order if v in rows]
    position = Var(e.axis.name, n)
    own = {v: Var(v.name, v.extent) for v in kept}
    at = len([v for v in order[:where_] if v in rows])
    axes = (*(own[v] for v in kept[:at]), position, *(own[v] for v in kept[at:]))
    name = _unique(f"{c.name}_{e.carrier.name}", stages)
    args = tuple(substitute(x, {v: as_term(o) for v, o in own.items()}) for x in e.args)
    body = fresh_axes(scan(e.carrier, args, e.axis, as_term(position), out=e.out, reverse=e.reverse))
    tensor = Compute(name, axes, body, e.loc or c.loc)
    stages.append(_stage(tensor, name))
    inside = tmin(tmax(last, ZERO), n - 1) if not (nonneg(last) and nonneg(n - 1 - last)) else last
    read = tensor.read(*(index(v) for v in kept[:at]), inside, *(index(v) for v in kept[at:]))
    some = n - 1 - last if e.reverse else last
    return read if nonneg(some) else where(op("ge", index(some), 0), read, empty)


def _hoisted(c: Compute, node: Reduce | Scan, stages: list[Stage]) -> Expr:
    order = {v: n for n, v in enumerate(c.axes)}
    axes = tuple(sorted((v for v in node.free if v.kind == "axis"), key=lambda v: (order.get(v, len(order)), v.uid)))
    own = tuple(Var(v.name, v.extent) for v in axes)
    env: dict[Var, Term] = {v: as_term(o) for v, o in zip(axes, own)}
    label = f"{c.name}_{node.data[0].name}"
    name = _unique(label, stages)
    tensor = Compute(name, own, substitute(fresh_axes(node), env), node.loc or c.loc)
    shared = _same_reduction(stages, node, axes) if isinstance(node, Reduce) else None
    if shared is not None:
        return _component(stages, *shared).read(*(index(v) for v in axes))
    stages.append(_stage(tensor, name))
    return tensor.read(*(index(v) for v in axes))


def _component(stages: list[Stage], n: int, result: Reduce) -> Compute:
    """The tensor of a stage that is a result of its reduction; a new one if it has none."""
    s = stages[n]
    for t in s.tensors:
        if t.body.data[2] == result.out:
            return t
    extra = Compute(f"{s.name}{result.out}", s.axes, result, result.loc)
    stages[n] = replace(s, tensors=(*s.tensors, extra))
    return extra


def _same_reduction(stages: list[Stage], node: Reduce, axes: tuple[Var, ...]) -> tuple[int, Reduce] | None:
    """The stage that makes the same reduction already, perhaps of another result, and ``node`` over its axes."""
    for n, s in enumerate(stages):
        b = s.body
        if isinstance(b, Reduce) and b.carrier == node.carrier and len(s.axes) == len(axes) and len(b.axes) == len(node.axes):
            env = {o: as_term(v) for o, v in zip((*s.axes, *b.axes), (*axes, *node.axes))}
            if all(v.extent == o.extent for v, o in zip(axes, s.axes)) and all(substitute(x, env) is y for x, y in zip(b.args, node.args)):
                return n, Reduce(b.args, (b.carrier, b.axes, node.out), node.dtype, node.loc)
    return None


# -- inlining ------------------------------------------------------------------------------------------------------
def inline_reads(body: Expr, producers: Mapping[Tensor, Compute]) -> Expr:
    """Replace reads of map definitions by their bodies at the index read; data-dependent indices are substituted as values."""
    def one(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in producers:
            c = producers[e.tensor]
            return inline_reads(at(c, e.indices), producers)
        return None

    return transform(body, one, stays=lambda e: producers.keys().isdisjoint(sources(e)))


def at(c: Compute, indices: tuple[Term | Expr, ...]) -> Expr:
    """The body of a definition at a point."""
    terms = {v: i for v, i in zip(c.axes, indices) if isinstance(i, Term)}
    values = {v: i for v, i in zip(c.axes, indices) if isinstance(i, Expr)}
    body = substitute(c.body, terms)
    return with_values(body, values) if values else body


__all__ = ["Input", "Op", "at", "build_nest", "inline_reads", "reads", "substitute_values"]
