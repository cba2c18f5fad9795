"""Primitives that say where a stage is computed: in the loops of a reader, in a nest of its own, or in the readers' own expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsl.algebra import reads, substitute
from dsl.dependence import needed_elsewhere, uncovered
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Read, Tensor
from dsl.nest import GRID_ROLES, TILE_ROLES, Nest, Stage, Step
from dsl.primitives.bodies import moved_nest, with_bodies
from dsl.primitives.record import primitive


@primitive
def compute_at(nest: Nest, stage: str, consumer: str, loop: str) -> Nest:
    """Compute just the region that a reader needs inside one of its loops, there.

    before::

        y: for j in 64: y[j] = f(j)
        z: for j.o in 4
             for j.i in 16: z[j] = g(y[j])

    after ``compute_at(y, z, j.o)``::

        z: for j.o in 4
             y: for j in 16: y[j] = f(j)      # the 16 elements that this round reads
             for j.i in 16: z[j] = g(y[j])

    The loop ``""`` of a reader is the place inside its parallel loops and outside all others. The elements that several rounds read are
    computed in each of them.

    Raises:
        ScheduleError: no such loop, or a tile axis; the stage's own loops are parallel; somebody outside the loop reads it, or nobody does;
            a result of the kernel whose elements would not each be computed once.
    """
    s, c = nest[stage], nest[consumer]
    what = f"compute_at({stage!r}, {_at(consumer, loop)!r})"
    _check_place(nest, s, c, loop, what)
    check_free(nest, s, what)
    check_whole(nest, s, what)
    made = nest.with_stage(replace(s, attach=(consumer, loop)))
    why = needed_elsewhere(made, made[stage], consumer, loop)
    if why is not None:
        raise ScheduleError(f"{what}: {stage} is needed outside that loop", why, "an outer loop, or compute_root")
    check_reached(made, what)
    if nest.is_output(s) and (why := uncovered(made, made[stage])) is not None:
        raise ScheduleError(f"{what}: {stage} is a result of the kernel, and would not be computed whole", why, f"compute_root({stage!r})")
    return made


def _at(consumer: str, loop: str) -> str:
    return f"{consumer}:{loop}"


def _check_place(nest: Nest, s: Stage, c: Stage, loop: str, what: str) -> None:
    if loop and loop not in c.order:
        raise ScheduleError(f"{c.name} has no loop `{loop}`", remedy="its loops are " + ", ".join(c.order))
    if loop and c.role(loop) in TILE_ROLES:
        raise ScheduleError(f"{what}: {loop} is {c.role(loop)}, an axis of the tile", "inside a tile nothing is computed apart",
                            "a loop outside the tile")
    above: Stage | None = c
    while above is not None:
        if above.name == s.name:
            raise ScheduleError(f"{what}: {c.name} is computed inside {s.name}", "each would be inside the other")
        above = nest[above.attach[0]] if above.attach else None
    if not nest.consumers(s):
        raise ScheduleError(f"{what}: nothing reads {s.name}",
                            remedy="a stage is computed at a loop of its reader; to bring a reader here, reverse_compute_at")
    grid = [x for x in s.order if s.role(x) in GRID_ROLES]
    if grid:
        raise ScheduleError(f"{what}: {s.name} has parallel loops", "threads are started once, around the outermost loops",
                            f"serial({', '.join(map(repr, grid))}) of {s.name} first")


@primitive
def compute_root(nest: Nest, stage: str) -> Nest:
    """Give a stage a nest of its own again: the inverse of :func:`compute_at`.

    before::

        z: for j.o in 4
             y: for j in 16
             for j.i in 16

    after ``compute_root(y)``::

        y: for j in 64
        z: for j.o in 4
             for j.i in 16
    """
    check_free(nest, nest[stage], f"compute_root({stage!r})")
    made = nest.with_stage(replace(nest[stage], attach=None, beside=()))
    check_reached(made, f"compute_root({stage!r})")
    return made


def check_free(nest: Nest, s: Stage, what: str) -> None:
    """Refuse to move what the loop of a rolling stage is made of.

    Raises:
        ScheduleError: the stage is computed in such a loop.
    """
    if s.attach is not None and nest[s.attach[0]].kind == "roll" and s.kind != "roll":
        raise ScheduleError(f"{what}: {s.name} brings a state of {s.attach[0]} up to date, block by block",
                            "elsewhere there is no such state", "a schedule without roll: default=False")


def check_whole(nest: Nest, s: Stage, what: str) -> None:
    """Refuse to compute a part of a stage at a time where others are computed beside it, some points in each round of its own loops.

    Raises:
        ScheduleError: names one of them.
    """
    beside = next((x.name for x in nest.stages if x.beside and x.attach is not None and x.attach[0] == s.name), None)
    if beside is not None:
        raise ScheduleError(f"{what}: {beside} is computed beside {s.name}", "its rounds would no longer make every point once",
                            f"compute_root({beside!r}) first")


def check_reached(nest: Nest, what: str) -> None:
    """Refuse a nest in which a stage that is computed at a loop is read outside it.

    Raises:
        ScheduleError: names the stage and the reader.
    """
    for s in nest.stages:
        if s.attach is not None:
            why = needed_elsewhere(nest, s, *s.attach)
            if why is not None:
                raise ScheduleError(f"{what}: {s.name} is computed at {s.attach[1] or 'the start'} of {s.attach[0]}", why,
                                    f"compute_root({s.name!r}), or an outer loop, first")


@primitive
def compute_inline(nest: Nest, stage: str) -> Nest:
    """Replace every read of a map stage by its definition, and drop the stage.

    before::

        y: for j: y[j] = x[j] + 1
        z: for j: z[j] = y[j] * y[2*j]

    after ``compute_inline(y)``::

        z: for j: z[j] = (x[j] + 1) * (x[2*j] + 1)

    Raises:
        ScheduleError: a reduction, a scan, a result of the kernel, a stage that nobody reads, or one in whose loops another is computed.
    """
    s = nest[stage]
    what = f"compute_inline({stage!r})"
    if s.kind != "map":
        elements = "sums up several elements" if s.kind == "reduce" else "goes on from the element before"
        point = f"{s.tensors[0].name}[{', '.join('0' for _ in s.axes)}]" if s.axes else s.tensors[0].name
        raise ScheduleError(f"{what}: {stage} is a {s.kind} and has no expression of its own",
                            f"{point} is made by a loop over {', '.join(v.name for v in s.bound)}, which {elements}",
                            "compute_at a loop of its reader")
    if nest.is_output(s):
        raise ScheduleError(f"{what}: {stage} is a result of the kernel", remedy="leave it: a result is stored whoever else reads it")
    if not nest.consumers(s):
        raise ScheduleError(f"{what}: nothing reads {stage}")
    here = next((x for x in nest.stages if x.attach is not None and x.attach[0] == stage), None)
    if here is not None:
        raise ScheduleError(f"{what}: {here.name} is computed at {here.attach[1] if here.attach else ''} of {stage}",
                            "the loop would be gone", f"compute {here.name} somewhere else first")
    moved: dict[Tensor, Tensor] = {}
    stages = [with_bodies(t, moved, {t: t for t in s.tensors}) for t in nest.stages if t.name != stage]
    return moved_nest(nest, tuple(stages), moved)


def inline_where(nest: Nest, chosen: Callable[[Stage, list[Stage]], bool]) -> Nest:
    """:func:`compute_inline` for every definition that is chosen by itself and its readers, last ones first, in one go.

    A reader is seen with what was inlined in it so far, ``chosen(stage, readers)``. What reads a reader is told of its new definition in
    the end, and not once for each of the definitions that went into it.
    """
    left = {s.name: s for s in nest.stages}
    hosts = {s.attach[0] for s in nest.stages if s.attach is not None}
    for s in reversed(nest.stages):
        readers = [c for c in left.values() if not c.sources().isdisjoint(s.tensors)]
        if s.kind == "map" and s.attach is None and s.name not in hosts and readers and not nest.is_output(s) and chosen(s, readers):
            del left[s.name]
            left |= {c.name: with_bodies(c, {}, {t: t for t in s.tensors}) for c in readers}
    moved: dict[Tensor, Tensor] = {}
    stages: list[Stage] = []
    for s in (s for s in nest.stages if s.name in left):
        stages.append(with_bodies(left[s.name], moved, {}))
        if stages[-1] is not s:
            moved.update(zip(s.tensors, stages[-1].tensors))
    steps = [Step("compute_inline", {"stage": s.name}) for s in reversed(nest.stages) if s.name not in left]
    return replace(moved_nest(nest, tuple(stages), moved), trace=(*nest.trace, *steps))


@primitive
def merge(nest: Nest, first: str, second: str) -> Nest:
    """Compute two map stages over the same box in one set of loops; ``second`` moves into ``first``.

    before::

        y: for i: y[i] = f(x[i])
        z: for i: z[i] = g(x[i], y[i])

    after ``merge(y, z)``::

        y: for i: y[i] = f(x[i]); z[i] = g(x[i], f(x[i]))

    Where one reads the other at its own point, it has the other's definition in its place, which the loop computes once.

    Raises:
        ScheduleError: other extents, not map stages, one needs other elements of the other, or something between them needs the first.
    """
    a, b = nest[first], nest[second]
    if a.kind != "map" or b.kind != "map" or [x.extent for x in a.axes] != [x.extent for x in b.axes]:
        raise ScheduleError(f"{first} and {second} cannot share loops", "they are not pointwise over the same shape")
    a, b = _knowing(a, b), _knowing(b, a)
    if first == second or depends(nest, b, a) or depends(nest, a, b):
        raise ScheduleError(f"{first} and {second} cannot share loops", f"{second} needs elements of {first}, or the other way round",
                            "compute_inline, or compute_at")
    names = [s.name for s in nest.stages]
    low, high = sorted((names.index(first), names.index(second)))
    between = next((s.name for s in nest.stages[low + 1:high] if depends(nest, s, nest.stages[low])), None)
    if between is not None:
        raise ScheduleError(f"{first} and {second} cannot share loops", f"{between} stands between them and needs {names[low]}")
    env: dict[Var, Term] = {o: as_term(n) for o, n in zip(b.axes, a.axes)}
    new = tuple(Compute(t.name, a.axes, substitute(t.body, env), t.loc, t.dtype) for t in b.tensors)
    moved: dict[Tensor, Tensor] = dict(zip((*nest[first].tensors, *nest[second].tensors), (*a.tensors, *new)))
    joined = replace(a, tensors=(*a.tensors, *new))
    order = [joined if n == high else s for n, s in enumerate(nest.stages) if n == high or s.name not in (first, second)]
    return moved_nest(nest, tuple(with_bodies(s, moved, {}) if s is not joined else s for s in order), moved)


def _knowing(s: Stage, other: Stage) -> Stage:
    """A stage that has the definition of another in place of its reads, where all of them are at its own point."""
    return with_bodies(s, {}, {t: t for t in other.tensors}) if reads_own_point(s, other) else s


def reads_own_point(s: Stage, other: Stage) -> bool:
    """Whether a stage reads another, and only the element at the same place as the one it computes."""
    places = [list(r.indices) for t in s.tensors for r in reads(t.body) if r.tensor in other.tensors]
    return bool(places) and all(p == [as_term(v) for v in s.axes] for p in places)


def depends(nest: Nest, s: Stage, on: Stage) -> bool:
    """Whether ``s`` reads ``on``, directly or through others."""
    todo, seen = [s], set()
    while todo:
        x = todo.pop()
        if x.name == on.name:
            return True
        if x.name not in seen:
            seen.add(x.name)
            todo += [p for t in x.sources() if (p := nest.producer(t)) is not None]
    return False


@primitive
def untile(nest: Nest, stage: str) -> Nest:
    """Undo how the loops of a stage, and of what is computed inside it, were arranged; what was fused stays fused.

    before::

        z: for j.o in 4        # parallel
             y: for j in 16    # vectorize
             for j.i in 16     # vectorize

    after ``untile(z)``::

        z: y: for j in 64
           for j in 64

    Splits, fusions, paddings, orders, roles and layouts are forgotten. Copies made by cache_read and pack are gone; the other stages
    inside are computed at the start of ``stage``, until they are placed again.
    """
    inside = [s.name for s in nest.stages if s.name != stage and _inside(nest, s, stage)]
    rolling = next((name for name in (stage, *inside) if nest[name].kind == "roll"), None)
    if rolling is not None:
        raise ScheduleError(f"untile({stage!r}): {rolling} is a rolling stage",
                            "its loop over blocks carries states; there is no plain form of it", "begin with the plain nest: default=False")
    for name in inside:
        if is_copy(nest[name]):
            producers: dict[Tensor, Compute] = {t: t for t in nest[name].tensors}
            moved: dict[Tensor, Tensor] = {}
            stages = [with_bodies(s, moved, producers) for s in nest.stages if s.name != name]
            nest = moved_nest(nest, tuple(stages), moved)
    for name in (stage, *inside):
        if any(s.name == name for s in nest.stages):
            s = nest[name]
            loops = tuple(x for v, x in s.axis_names().items() if v is not s.position)
            attach = s.attach if name == stage else None if s.beside else (stage, "")
            beside = s.beside if name == stage else ()
            nest = nest.with_stage(replace(s, relations=(), order=loops, roles={}, notes={}, layout=None, attach=attach, beside=beside))
    return nest


def _inside(nest: Nest, s: Stage, host: str) -> bool:
    return s.name == host or (s.attach is not None and _inside(nest, nest[s.attach[0]], host))


def is_copy(s: Stage) -> bool:
    """Whether a stage only holds elements of a tensor, as cache_read makes them."""
    e = s.body
    while isinstance(e, Cast):
        e = e.args[0]
    return len(s.tensors) == 1 and isinstance(e, Read) and list(e.indices) == [as_term(v) for v in s.axes] and "copy" in s.notes


__all__ = ["compute_at", "compute_inline", "compute_root", "depends", "inline_where", "is_copy", "merge", "reads_own_point", "untile"]
